// Owns the processes that measure: ours, each peer's and the limits'. A side lives for the whole suite, prepares one
// case at a time and times it on request, so that sides can take turns within milliseconds.
// Invariant: a side that cannot be had says why; it never ends the suite.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const peers = join(here, "../peers/kernels");
const cache = join(here, "../../.cache/bench");
const python = process.env.TESRA_PYTHON ?? "python3";
/** A case that takes longer is given up: the slowest, oneDNN's first plan of a convolution, takes under one. */
const ANSWER_TIMEOUT_MS = 60_000;

/** @returns how to start each side: [command, args, environment], or a reason. */
const starters = {
  ours: () => [process.execPath, [join(here, "ours.mjs")]],
  limits: () => compiled(join(here, "limits.cpp"), ["-pthread"], "this compiler cannot build the limits"),
  onednn: () =>
    compiled(join(peers, "onednn.cpp"), ["-ldnnl", "-fopenmp"], "no oneDNN: apt-get install -y libdnnl-dev"),
  openblas: () => {
    const command = compiled(
      join(peers, "openblas.cpp"),
      ["-lopenblas", "-pthread"],
      "no OpenBLAS: apt-get install -y libopenblas-dev",
    );
    // Debian's build takes newer processors for an old one.
    const has512 = existsSync("/proc/cpuinfo") && readFileSync("/proc/cpuinfo", "utf8").includes("avx512f");
    return [...command, [], has512 ? { OPENBLAS_CORETYPE: "SKYLAKEX" } : {}];
  },
  torch: () => pythonSide("torch_kernels.py", "torch"),
  onnxruntime: () => pythonSide("onnxruntime_kernels.py", "onnxruntime, onnx"),
  tfjs: () => {
    if (!existsSync(join(peers, "node_modules/@tensorflow/tfjs-backend-wasm"))) {
      const result = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: peers, encoding: "utf8" });
      if (result.status !== 0) throw new Error("npm ci in bench/peers/kernels failed");
    }
    return [process.execPath, [join(peers, "tfjs-kernels.mjs")]];
  },
  noble: () => [process.execPath, [join(peers, "noble-kernels.mjs")]],
  // Whoever has XMRig's CryptoNight built names a program that answers as side.h does.
  xmrig: () => {
    if (!process.env.TESRA_XMRIG) throw new Error("no XMRig: TESRA_XMRIG names a program that times it (bench/README.md)");
    return [process.env.TESRA_XMRIG];
  },
  // PR_SET_THP_DISABLE, 41, outlives exec; reserved huge pages, where a machine has them, stay.
  small: () => {
    const script = "import ctypes,os,sys; ctypes.CDLL(None).prctl(41,1,0,0,0); os.execv(sys.argv[1],sys.argv[1:])";
    return ["python3", ["-c", script, process.execPath, join(here, "ours.mjs")]];
  },
};
export const titles = {
  ours: "ours",
  onednn: "oneDNN",
  openblas: "OpenBLAS",
  torch: "PyTorch",
  onnxruntime: "onnxruntime",
  tfjs: "tfjs-wasm",
  noble: "@noble/hashes",
  xmrig: "XMRig",
  small: "ours, small pages",
};

function compiled(source, libraries, reason) {
  mkdirSync(cache, { recursive: true });
  const target = join(cache, source.split("/").at(-1).replace(".cpp", ""));
  const isFresh = (from) => statSync(target).mtimeMs > statSync(from).mtimeMs;
  if (!existsSync(target) || !isFresh(source) || !isFresh(join(peers, "side.h"))) {
    const result = spawnSync("g++", ["-O2", "-std=c++17", "-o", target, source, ...libraries], { encoding: "utf8" });
    if (result.status !== 0) throw new Error(reason);
  }
  return [target];
}

function pythonSide(file, packages) {
  const result = spawnSync(python, ["-c", `import ${packages}`], { encoding: "utf8" });
  if (result.status !== 0) throw new Error(`no ${packages} for ${python}; set TESRA_PYTHON (bench/README.md)`);
  return [python, [join(peers, file)]];
}

export class Side {
  #child;
  #answers;
  reason;
  version;

  constructor(name) {
    this.name = name;
  }

  async start() {
    try {
      const [command, args = [], environment = {}] = starters[this.name]();
      this.#child = spawn(command, args, {
        stdio: ["pipe", "pipe", "inherit"],
        env: { ...process.env, OMP_WAIT_POLICY: "passive", ...environment },
      });
      this.#child.stdin.on("error", () => {}); // its death is told by the missing answer
      this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
      this.version = (await this.#answer()).version;
    } catch (error) {
      this.reason = error.message;
    }
    return this;
  }

  /** @returns seconds of one run and the work it did, or why there is no figure. */
  async measure(request) {
    if (this.reason !== undefined) return { reason: this.reason };
    try {
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
      return await this.#answer();
    } catch (error) {
      this.reason = error.message;
      this.close();
      return { reason: this.reason };
    }
  }

  async #answer() {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${this.name} gave no answer`)), ANSWER_TIMEOUT_MS);
    });
    const { value, done } = await Promise.race([this.#answers.next(), late]).finally(() => clearTimeout(timer));
    if (done) throw new Error(`${this.name} ended`);
    return JSON.parse(value);
  }

  close() {
    this.#child?.kill("SIGKILL");
  }
}

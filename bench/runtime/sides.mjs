// Owns how each side of a line is started: its command, the variants it may run in, and why it cannot be had.
// Invariant: a peer that is missing is a reason that says how to get it, never an error and never an old figure.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const peersFolder = join(here, "../peers/runtime");
/** A side that takes longer than this hangs; Ray's start alone may take 20 s on a busy machine. */
const SIDE_TIMEOUT_MS = 120_000;

const js =
  (folder, file) =>
  (measure, ...args) => ({
    start: (seconds, variant) =>
      node([join(folder, file), measure, "--seconds", String(seconds), ...args, ...variant]),
  });
const peer =
  (name, title, file) =>
  (measure, variants = [[]], args = []) => ({
    name,
    title,
    variants,
    needs: "packages",
    start: (seconds, variant) =>
      node([join(peersFolder, file), measure, "--seconds", String(seconds), ...args, ...variant]),
  });

export const ours = { local: js(here, "local.mjs"), trace: js(here, "trace.mjs"), remote: js(here, "remote.mjs") };
/** Our own side in another configuration, as a peer of itself. */
export const oursAs = (name, title, side) => ({
  name,
  title,
  variants: [[]],
  start: (seconds) => side.start(seconds, []),
});
/** A peer that our own side measures in its own process, turn by turn, and reports beside itself. */
export const within = (name, title) => ({ name, title, variants: [[]], isWithin: true });

export const nact = peer("nact", "nact", "nact.mjs");
export const effect = peer("effect", "Effect", "effect.mjs");
export const comedy = peer("comedy", "comedy", "comedy.mjs");
export const moleculer = peer("moleculer", "Moleculer TCP", "moleculer.mjs");
export const zeromq = peer("zeromq", "raw zeromq.js", "raw-zeromq.mjs");
export const zeromqFresh = peer("zeromq-fresh", "raw zeromq.js, new buffer a tensor", "raw-zeromq.mjs");
export const socket = (measure, variants, args = []) => ({
  ...peer("socket", "node:net socket", "socket.mjs")(measure, variants, args),
  needs: undefined,
});
export const socketInPlace = (...all) => ({
  ...socket(...all),
  name: "socket-in-place",
  title: "node:net, onread in place",
});

/** All schedulers, or one: which is faster depends on the workload. */
const OTP_VARIANTS = [[], ["+S", "1"]];
export const otp = (measure, name = "otp") => ({
  name,
  title: measure === "spawnStopBare" ? "Erlang bare process" : "Erlang/OTP",
  variants: OTP_VARIANTS,
  needs: "erlang",
  start: (seconds, variant) =>
    erlang([...variant, "-run", "otp", "main", measure, String(Number(seconds).toFixed(3))]),
});
/** Two nodes over loopback, without the epmd daemon: its port is given. */
const DISTRIBUTION_PORT = 14_901;
const distribution = (name) => [
  "-start_epmd",
  "false",
  "-erl_epmd_port",
  String(DISTRIBUTION_PORT),
  "-name",
  `${name}@127.0.0.1`,
  "-setcookie",
  "bench",
  "-kernel",
  "inet_dist_use_interface",
  "{127,0,0,1}",
];
export const otpDistributed = (measure) => ({
  name: "otp",
  title: "distributed Erlang",
  variants: [[], ["+zdbbl", "65536"]],
  needs: "erlang",
  start: async (seconds, variant) => {
    const receiver = spawn(
      "erl",
      [...erlangArgs(), ...variant, ...distribution("receiver"), "-run", "otp", "receiver"],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    try {
      await new Promise((resolve, reject) => {
        receiver.stdout.once("data", resolve);
        receiver.once("exit", (code) =>
          reject(new Error(`the receiving Erlang node ended with ${code}; is port ${DISTRIBUTION_PORT} taken?`)),
        );
      });
      return await erlang([
        ...variant,
        ...distribution("sender"),
        "-dist_listen",
        "false",
        "-run",
        "otp",
        "main",
        measure,
        String(Number(seconds).toFixed(3)),
        "receiver@127.0.0.1",
      ]);
    } finally {
      receiver.removeAllListeners("exit");
      receiver.kill("SIGKILL");
    }
  },
});
const rayPython = process.env.TESRA_RAY_PYTHON ?? process.env.TESRA_PYTHON ?? "python3";
export const ray = () => ({
  name: "ray",
  title: "Ray",
  variants: [[]],
  needs: "ray",
  start: (seconds) => lastJson(rayPython, [join(peersFolder, "ray_actors.py"), "--seconds", String(seconds)]),
});

/** Finds out once what there is. @returns for each need: undefined when it is met, otherwise the reason. */
export function findPeers(needs, progress) {
  const reasons = {};
  for (const need of needs) reasons[need] = finders[need](progress);
  return reasons;
}

const finders = {
  packages(progress) {
    const wanted = JSON.parse(readFileSync(join(peersFolder, "package.json"), "utf8")).dependencies;
    const isThere = ([name, version]) => {
      const file = join(peersFolder, "node_modules", name, "package.json");
      return existsSync(file) && JSON.parse(readFileSync(file, "utf8")).version === version;
    };
    if (Object.entries(wanted).every(isThere)) return undefined;
    progress(
      `Installing the peers (${Object.entries(wanted)
        .map(([name, version]) => `${name} ${version}`)
        .join(", ")}) in bench/peers/runtime, once.`,
    );
    const result = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: peersFolder, encoding: "utf8" });
    if (result.status === 0) return undefined;
    return `npm ci in bench/peers/runtime failed: ${(result.error?.message ?? result.stderr.trim().split("\n").at(-1)).slice(0, 120)}`;
  },
  erlang() {
    const source = join(peersFolder, "otp.erl");
    const beam = join(beamFolder(), "otp.beam");
    if (existsSync(beam) && statSync(beam).mtimeMs > statSync(source).mtimeMs) return undefined;
    const result = spawnSync("erlc", ["-o", beamFolder(), source], { encoding: "utf8" });
    if (result.status === 0) return undefined;
    if (result.error?.code === "ENOENT") return "no Erlang: apt-get install -y --no-install-recommends erlang-base";
    return `erlc failed: ${(result.error?.message ?? result.stdout + result.stderr).trim().slice(0, 120)}`;
  },
  ray() {
    const result = spawnSync(rayPython, ["-c", "import ray, numpy; print(ray.__version__)"], {
      encoding: "utf8",
      timeout: SIDE_TIMEOUT_MS,
    });
    if (result.status === 0) return undefined;
    return `no Ray for ${rayPython}: python3 -m venv V && V/bin/pip install "ray==2.58.*" numpy, then TESRA_RAY_PYTHON=V/bin/python`;
  },
};

function beamFolder() {
  const folder = join(here, "../../.cache/bench");
  mkdirSync(folder, { recursive: true });
  return folder;
}
const erlangArgs = () => ["-noshell", "-noinput", "-pa", beamFolder()];
const erlang = (args) => lastJson("erl", [...erlangArgs(), ...args]);
const node = (args) => lastJson(process.execPath, args);

/** Runs a side in a folder of its own. @returns the JSON of its last line. */
async function lastJson(command, args) {
  const folder = mkdtempSync(join(tmpdir(), "bench-side-"));
  try {
    const child = spawn(command, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    const text = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"])
      child[stream].setEncoding("utf8").on("data", (data) => (text[stream] += data));
    const timer = setTimeout(() => child.kill("SIGKILL"), SIDE_TIMEOUT_MS);
    const code = await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (status, signal) => resolve(status ?? signal));
    }).finally(() => clearTimeout(timer));
    if (code !== 0)
      throw new Error(
        `${command} ended with ${code}: ${text.stderr.trim().split("\n").slice(-3).join(" | ").slice(0, 300)}`,
      );
    return JSON.parse(text.stdout.trim().split("\n").at(-1));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

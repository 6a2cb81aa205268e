// The CUDA kernels, compiled for the CPU over an emulated device (native/cuda/emulator), give the bits that the
// kernel headers define: tile geometry, fixed orders, barriers, copies, winners. Needs no nvcc and no GPU.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const cuda = join(root, "native/cuda");
const compiler = process.env.CXX ?? "g++";
const flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-DTESRA_CUDA_EMULATOR", "-I", join(cuda, "emulator")];
const COMPILERS_AT_ONCE = 2; // the smallest machine that runs these tests has two cores

const listed: string[] = JSON.parse(readFileSync(join(root, "native/sources.json"), "utf8")).cuda;
/** What kernels leave to the host, and what the check compares with. */
const host = ["portable", "finish", "keccak", "blake256", "groestl256", "jh256", "skein256"].map((name) => `native/cpu/cn2/${name}.cc`);
const sources = [
  ...listed.map((name) => join(root, "native", name)),
  join(cuda, "emulator/emulator.cc"),
  join(cuda, "emulator/check.cc"),
  ...host.map((name) => join(root, name)),
];

/** Compiles the check once for each state of its sources; the result stays in .cache/. */
async function build(): Promise<string> {
  const digest = createHash("sha256").update([compiler, ...flags].join(" "));
  for (const folder of ["native/kernels", "native/cuda", "native/cuda/emulator", "native/cpu/cn2"]) {
    for (const name of readdirSync(join(root, folder)).sort()) {
      if (/\.(h|cu|cc)$/.test(name)) digest.update(name).update(readFileSync(join(root, folder, name)));
    }
  }
  const folder = join(root, ".cache/cuda-emulator");
  const program = join(folder, `check-${digest.digest("hex").slice(0, 16)}`);
  if (existsSync(program)) return program;
  const work = `${program}.${process.pid}`;
  mkdirSync(work, { recursive: true });
  const waiting = sources.map((source, index) => ({ source, object: join(work, `${index}.o`) }));
  const objects = waiting.map(({ object }) => object);
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      await run(compiler, [...flags, "-x", "c++", "-c", next.source, "-o", next.object]);
    }
  };
  await Promise.all(Array.from({ length: COMPILERS_AT_ONCE }, worker));
  await run(compiler, ["-o", join(work, "check"), ...objects]);
  for (const name of readdirSync(folder)) {
    if (/^check-[0-9a-f]{16}$/.test(name)) rmSync(join(folder, name)); // of older sources
  }
  renameSync(join(work, "check"), program);
  rmSync(work, { recursive: true });
  return program;
}

const linux = process.platform === "linux"; // the emulator switches fibres by ucontext

describe.skipIf(!linux)("CUDA kernels on the emulated device", () => {
  let program: string;
  beforeAll(async () => {
    program = await build();
  }, 400_000); // two cores that do other things as well

  it("finds every CUDA source in the list", () => {
    const present = readdirSync(cuda).filter((name) => name.endsWith(".cu"));
    expect(listed.map((name) => relative("cuda", name)).sort()).toEqual(present.sort());
  });

  it("agree with the headers bit for bit", async () => {
    const { stdout } = await run(program, ["1", "4"]);
    expect(stdout).toMatch(/every bit agrees/);
  }, 120_000);

  it("agree bit for bit with Hopper's own scan", async () => {
    const { stdout } = await run(program, ["3", "1"], { env: { ...process.env, TESRA_HOPPER: "1" } });
    expect(stdout).toMatch(/TESRA_HOPPER=1 on sm_90[^]*every bit agrees/);
  }, 120_000);
});

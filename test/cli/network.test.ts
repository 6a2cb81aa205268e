// The commands that start processes: how they end when interrupted or killed, and what they say to bad input.
import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import blst from "@chainsafe/blst";
import { bytesToHex, type Hex } from "viem";
import { privateKeyToAddress } from "viem/accounts";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createDevnetGenesis } from "../../src/chain/index.js";
import { datasetCache } from "../../src/cli/dataset.js";
import { SYSTEM_DIRECTORY } from "../../src/data/fashion-mnist.js";
import { ShardStore } from "../../src/data/shard-store.js";
import { blake3 } from "@noble/hashes/blake3.js";
import { curveKeys } from "../../src/runtime/index.js";

const main = join(fileURLToPath(new URL("../../", import.meta.url)), "dist", "cli", "main.js");
const PATIENCE_MS = 60_000;
/** What a person at a terminal waits for after Ctrl-C. */
const END_MS = 5_000;
const dataset = [process.env.TESRA_DATA, datasetCache(), SYSTEM_DIRECTORY]
  .find((dir) => dir !== undefined && existsSync(dir) && readdirSync(dir).some((name) => name.startsWith("train-images")));
const isRoot = process.getuid?.() === 0;

/** Short: sockets lie below it, and a Unix socket's path may hold 107 bytes. */
let tmp: string;
const children: ChildProcess[] = [];
beforeAll(() => { tmp = mkdtempSync(join(tmpdir(), "st-")); });
afterEach(() => {
  for (const child of children.splice(0)) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
});
afterAll(() => rmSync(tmp, { recursive: true, force: true }));

const env = (): NodeJS.ProcessEnv => ({
  PATH: process.env.PATH, HOME: tmp, TMPDIR: tmp, XDG_CACHE_HOME: join(tmp, "no-cache"), ...(dataset ? { TESRA_DATA: dataset } : {}),
});

interface Run { code: number | null; out: string; err: string }

function run(args: string[], extra: NodeJS.ProcessEnv = {}): Promise<Run> {
  return new Promise((done) => {
    execFile(process.execPath, [main, ...args], { env: { ...env(), ...extra }, cwd: tmp, timeout: PATIENCE_MS },
      (error, out, err) => done({ code: error ? (typeof error.code === "number" ? error.code : null) : 0, out, err }));
  });
}

/** One sentence on stderr (after the lines of progress), nothing on stdout. */
async function refusal(args: string[], code: number, extra: NodeJS.ProcessEnv = {}): Promise<string> {
  const result = await run(args, extra);
  expect(result.err).toMatch(/^supernet: [^\n]+$/m);
  expect(result.err.match(/^supernet: /gm)).toHaveLength(1);
  expect(result.err).not.toMatch(/^\s+at /m);
  expect([result.code, result.out]).toEqual([code, ""]);
  return result.err.split("\n").find((line) => line.startsWith("supernet: "))!;
}

/** A command in a process group of its own, as a shell starts it. */
class Command {
  text = "";
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;

  constructor(args: string[]) {
    this.child = spawn(process.execPath, [main, ...args], { env: env(), cwd: tmp, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    children.push(this.child);
    for (const stream of [this.child.stdout!, this.child.stderr!]) stream.on("data", (data: Buffer) => { this.text += data.toString(); });
    this.ended = new Promise((resolve) => { this.child.once("exit", (code) => resolve(code)); });
  }

  /** Waits for a line; fails with what came instead when the command ends before. */
  async says(pattern: RegExp): Promise<void> {
    await until(`"${pattern.source}" in what it says`, () => {
      if (this.child.exitCode !== null && !pattern.test(this.text)) throw new Error(`it ended: ${this.text}`);
      return pattern.test(this.text);
    });
  }

  /** Ctrl-C: to the whole group. */
  interrupt(): void {
    process.kill(-this.child.pid!, "SIGINT");
  }

  /** Its folder of this run, by the owner written in it. */
  runDir(): string | undefined {
    return readdirSync(tmp).map((name) => join(tmp, name))
      .find((dir) => existsSync(join(dir, "owner.pid")) && readFileSync(join(dir, "owner.pid"), "utf8") === String(this.child.pid));
  }
}

async function until(what: string, check: () => boolean, timeoutMs = PATIENCE_MS): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!check()) {
    if (Date.now() > endMs) throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Live processes whose command line names a folder. */
function processesOf(dir: string): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(dir) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return false;
    }
  });
}

/** The network of a command is gone with all its processes and its folder. */
async function expectGone(runDir: string): Promise<void> {
  await until("all its processes end", () => processesOf(runDir).length === 0, END_MS);
}

describe.skipIf(process.platform !== "linux")("a network that is interrupted", () => {
  it("by Ctrl-C at start-up leaves no process and no folder", async () => {
    const command = new Command(["up", "--rpc-port", "0", "--data-dir", join(tmp, "up1")]);
    await until("a node process runs", () => command.runDir() !== undefined && processesOf(command.runDir()!).length > 0);
    const runDir = command.runDir()!;
    command.interrupt();
    const startMs = Date.now();
    expect(await command.ended).toBe(130);
    expect(Date.now() - startMs).toBeLessThan(END_MS);
    await expectGone(runDir);
    expect(existsSync(runDir)).toBe(false);
  }, 2 * PATIENCE_MS);

  it("by Ctrl-C when it runs, twice on one data folder, and goes on with its chain in between", async () => {
    const dataDir = join(tmp, "up2");
    for (const round of [1, 2]) {
      const command = new Command(["up", "--rpc-port", "0", "--data-dir", dataDir, "--block-time-ms", "500", "-o", "json"]);
      await command.says(/"rpc":/);
      const second = await run(["up", "--rpc-port", "0", "--data-dir", dataDir]);
      expect([round, second.code, second.out]).toEqual([round, 2, ""]);
      expect(second.err).toMatch(/^supernet: a network already runs on /);
      const runDir = command.runDir()!;
      command.interrupt();
      expect(await command.ended).toBe(130);
      await expectGone(runDir);
      expect(existsSync(runDir)).toBe(false);
    }
    const log = readFileSync(join(dataDir, "devnet", "logs", "pos-1.log"), "utf8");
    const opened = [...log.matchAll(/chain opened at block (\d+)/g)].map(([, number]) => Number(number));
    expect(opened).toHaveLength(2);
    expect(opened[1]).toBeGreaterThanOrEqual(opened[0]!);
  }, 3 * PATIENCE_MS);

  it("by kill -9 of its parent: the children end by themselves, and the next start sweeps the folder", async () => {
    const command = new Command(["up", "--rpc-port", "0", "--data-dir", join(tmp, "up3")]);
    await until("node processes run", () => command.runDir() !== undefined && processesOf(command.runDir()!).length === 7);
    const runDir = command.runDir()!;
    command.child.kill("SIGKILL");
    await command.ended;
    await until("the children end", () => processesOf(runDir).length === 0, PATIENCE_MS);
    const next = new Command(["up", "--rpc-port", "0", "--data-dir", join(tmp, "up3")]);
    await until("the next one starts", () => next.runDir() !== undefined);
    expect(existsSync(runDir)).toBe(false);
    const nextDir = next.runDir()!;
    next.interrupt();
    expect(await next.ended).toBe(130);
    await expectGone(nextDir);
  }, 3 * PATIENCE_MS);

  it.skipIf(!dataset)("by Ctrl-C while a demo trains", async () => {
    const command = new Command(["demo", "--model", "mlp", "--epochs", "50"]);
    await command.says(/samples\/s|images\/s|\d+\/\d+/);
    const runDir = command.runDir()!;
    command.interrupt();
    expect(await command.ended).toBe(130);
    await expectGone(runDir);
    expect(existsSync(runDir)).toBe(false);
    expect(command.text).toMatch(/supernet: interrupted/);
  }, 3 * PATIENCE_MS);
});

describe("bad input to demo", () => {
  it("no such data folder, a truncated file, impossible options: exit 2, nothing started", async () => {
    expect(await refusal(["demo", "--data", join(tmp, "nowhere")], 2)).toContain("there is no directory");
    const dir = join(tmp, "cut");
    mkdirSync(dir);
    writeFileSync(join(dir, "train-images-idx3-ubyte"), Buffer.alloc(1_000));
    expect(await refusal(["demo", "--data", dir], 2)).toContain("train-images-idx3-ubyte");
    if (dataset) {
      for (const name of readdirSync(dataset)) writeFileSync(join(dir, name), readFileSync(join(dataset, name)));
      rmSync(join(dir, "train-images-idx3-ubyte"));
      const [victim] = readdirSync(dir).filter((name) => name.startsWith("t10k-labels"));
      truncateSync(join(dir, victim!), statSync(join(dir, victim!)).size - 100);
      expect(await refusal(["demo", "--data", dir], 2)).toContain("t10k-labels");
    }
    expect(await refusal(["demo", "--epochs", "0"], 2)).toContain("--epochs");
    expect(await refusal(["demo", "--workers", "1", "--kill-worker"], 2)).toContain("--kill-worker");
    expect(await refusal(["demo", "--model", "gpt"], 2)).toContain("mlp, cnn, cnn-wide");
    expect(readdirSync(tmp).filter((name) => name.startsWith("supernet-"))).toEqual([]);
  }, 2 * PATIENCE_MS);
});

describe("a node", () => {
  let dir: string;
  let taken: Server;
  let takenPort: number;
  beforeAll(async () => {
    dir = join(tmp, "n");
    mkdirSync(dir);
    taken = createServer();
    await new Promise<void>((resolve) => { taken.listen(0, "127.0.0.1", resolve); });
    takenPort = (taken.address() as { port: number }).port;
  });
  afterAll(() => { taken.close(); });

  const blsSecret = blst.SecretKey.fromKeygen(new Uint8Array(32).fill(7));
  const privateKey = bytesToHex(new Uint8Array(32).fill(9));
  const keys = curveKeys();

  function genesisFile(name: string, timestampMs: number): string {
    const path = join(dir, name);
    writeFileSync(path, JSON.stringify(createDevnetGenesis({
      chainId: 7357, blockTimeMs: 500, timestampMs,
      validators: [{ address: privateKeyToAddress(privateKey), blsPublicKey: bytesToHex(blsSecret.toPublicKey().toBytes()) as Hex, stake: 10n ** 23n }],
      masters: [], allocations: [],
    })));
    return path;
  }

  function configFile(name: string, changes: Record<string, unknown> = {}): string {
    const path = join(dir, `${name}.json`);
    writeFileSync(path, JSON.stringify({
      role: "pos", name, dataDir: join(dir, name), listen: `ipc://${join(dir, name)}.sock`, curve: keys, privateKey,
      blsSecretKey: bytesToHex(blsSecret.toBytes()), genesis: join(dir, "genesis.json"), bootstrap: [], compute: { backend: "cpu", threads: 1 }, ...changes,
    }));
    return path;
  }
  const start = (path: string): Command => new Command(["node", "--config", path]);
  const node = (path: string, code: number): Promise<string> => refusal(["node", "--config", path], code);

  it("names what is wrong with its configuration", async () => {
    genesisFile("genesis.json", 1_750_000_000_000);
    expect(await node(join(dir, "absent.json"), 2)).toContain("does not exist");
    writeFileSync(join(dir, "garbled.json"), '{"role": "pos",');
    expect(await node(join(dir, "garbled.json"), 2)).toContain("cannot be parsed");
    expect(await node(configFile("unknown", { rolle: "pos" }), 2)).toContain("rolle");
    expect(await node(configFile("type", { privateKey: 5 }), 2)).toContain('"privateKey"');
    expect(await node(configFile("role", { role: "miner" }), 2)).toContain('"role"');
    expect(await node(configFile("nogenesis", { genesis: join(dir, "none.json") }), 2)).toContain("none.json");
    expect(await node(configFile("port", { rpc: { port: takenPort } }), 2)).toContain(String(takenPort));
    expect(await node(configFile("nobls", { blsSecretKey: undefined }), 2)).toContain("blsSecretKey");
    expect(await node(configFile("alone", { role: "worker" }), 2)).toContain("bootstrap");
    for (const name of ["unknown", "type", "role", "nogenesis"]) expect(existsSync(join(dir, name))).toBe(false);
  }, 2 * PATIENCE_MS);

  it("refuses a store in use and a store of another genesis, and leaves both as they were", async () => {
    genesisFile("genesis.json", 1_750_000_000_000);
    const first = start(configFile("a"));
    await first.says(/pos a is on/);
    expect(await node(configFile("b", { dataDir: join(dir, "a") }), 1)).toMatch(/in use by another process/);
    expect(first.child.exitCode).toBeNull();
    first.child.kill("SIGTERM");
    expect(await first.ended).toBe(0);
    const other = genesisFile("other.json", 1_750_000_001_000);
    expect(await node(configFile("c", { dataDir: join(dir, "a"), genesis: other }), 1)).toMatch(/genesis/);
    const again = start(configFile("a"));
    await again.says(/pos a is on/);
    again.child.kill("SIGTERM");
    expect(await again.ended).toBe(0);
  }, 2 * PATIENCE_MS);

  it.skipIf(!isRoot || !canMount())("says that the disk is full, and so does a shard store", async () => {
    genesisFile("genesis.json", 1_750_000_000_000);
    const small = join(tmp, "small");
    mkdirSync(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small]);
    try {
      const store = await ShardStore.open(join(small, "shards"));
      const shard = new Uint8Array(2 << 20).fill(3);
      await expect(store.put(Buffer.from(blake3(shard)).toString("hex"), shard)).rejects.toMatchObject({ message: expect.stringMatching(/full|no space/i) });
      expect(await store.list()).toEqual([]);
      expect(readdirSync(join(small, "shards"))).toEqual([]);
      writeFileSync(join(small, "filler"), Buffer.alloc((1 << 20) - 64 * 1024));
      expect(await node(configFile("full", { dataDir: small }), 1)).toMatch(/disk .* is full/);
    } finally {
      execFileSync("umount", ["-l", small]);
    }
  }, 2 * PATIENCE_MS);
});

/** A container may be root and yet not mount. */
function canMount(): boolean {
  const dir = mkdtempSync(join(tmpdir(), "st-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", dir], { stdio: "ignore" });
    execFileSync("umount", [dir], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

// Segments as the addon gives them: what they share, what opening refuses, and when their memory goes.
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { afterAll, describe, expect, test } from "vitest";
import type { NativeSharedSegment } from "../../src/device/addon.js";
import { addonPath, loadAddon } from "../../src/device/load-addon.js";
import { openSharedMemory } from "../../src/device/shared-memory.js";

const PAGE = 4096;
const directory = mkdtempSync(join(tmpdir(), "shared-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
async function until(test: () => boolean): Promise<void> {
  const end = performance.now() + 20_000;
  while (!test()) {
    if (performance.now() > end) throw new Error("condition not reached in time");
    await turn();
  }
}
const header = (fill = 7): Uint8Array => new Uint8Array(64).fill(fill);
const openFds = (): number => readdirSync("/proc/self/fd").length;
const mappings = (): number => readFileSync("/proc/self/maps", "utf8").split("memfd:tesra-supernet").length - 1;

describe.skipIf(process.platform !== "linux")("shared memory", () => {
  const memory = openSharedMemory({ budgetBytes: 64 * PAGE })!;

  test("two mappings of one segment see the same bytes; nothing is left of it afterwards", async () => {
    const [fds, maps] = [openFds(), mappings()];
    const own = memory.create(4 * PAGE, header())!;
    const theirs = memory.open(own.locator, 4 * PAGE)!;
    expect(theirs.header()).toEqual(header());
    own.write(8, new Uint8Array([1, 2, 3]));
    const buffer = theirs.lend(2 * PAGE, () => undefined);
    expect(buffer.byteLength).toBe(2 * PAGE);
    expect([...new Uint8Array(buffer, 7, 5)]).toEqual([0, 1, 2, 3, 0]);
    await own.prefault();
    own.closeFile();
    expect(openFds()).toBe(fds);
    expect(memory.open(own.locator, 4 * PAGE)).toBeUndefined();
    expect(() => own.locator && own.closeFile()).not.toThrow();
    theirs.detach(buffer);
    own.close();
    theirs.close();
    await until(() => mappings() <= maps);
    expect(memory.usedBytes).toBe(0);
  });

  test("one ArrayBuffer at a time; detaching empties every view and tells when the memory is free", async () => {
    const own = memory.create(PAGE, header())!;
    let freed = 0;
    const buffer = own.lend(PAGE, () => void (freed += 1));
    const view = new Float32Array(buffer, 64, 4);
    expect(() => own.lend(PAGE, () => undefined)).toThrow(/still alive/);
    own.detach(buffer);
    own.detach(buffer);
    expect([view.length, buffer.byteLength]).toEqual([0, 0]);
    expect(freed).toBe(1); // at once: its sender may be waiting for it
    const next = own.lend(16, () => void (freed += 1));
    global.gc?.();
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    // V8 frees the old buffer in a later turn, which tells nothing again and ends nobody else's.
    expect(freed).toBe(1);
    expect(() => own.lend(PAGE, () => undefined)).toThrow(/still alive/);
    own.detach(next);
    expect(freed).toBe(2);
    expect(() => own.detach(new ArrayBuffer(8))).toThrow(/not this segment's/);
    own.close();
  });

  test("what is dropped without being detached is freed by the garbage collector, a subarray keeps it", async () => {
    const own = memory.create(PAGE, header())!;
    let freed = 0;
    const part = ((): Uint8Array => new Uint8Array(own.lend(PAGE, () => void (freed += 1))).subarray(5, 6))();
    part[0] = 9;
    collect();
    await turn();
    expect([freed, part[0]]).toEqual([0, 9]);
    ((): void => void own.detach(part.buffer as ArrayBuffer))();
    await until(() => freed === 1);
    ((): void => void own.lend(PAGE, () => void (freed += 1)))();
    await until(() => (collect(), freed === 2));
    own.close();
  });

  test("memory stays readable after both ends have closed the segment", async () => {
    const maps = mappings();
    const own = memory.create(PAGE, header())!;
    const theirs = memory.open(own.locator, PAGE)!;
    own.write(0, new Uint8Array(PAGE).fill(5));
    let isFree = false;
    const buffer = theirs.lend(PAGE, () => void (isFree = true));
    own.close();
    theirs.close();
    expect(new Uint8Array(buffer).every((byte) => byte === 5)).toBe(true);
    theirs.detach(buffer);
    await until(() => isFree && mappings() <= maps);
  });

  test("opens nothing but a sealed segment of the size that was said", async () => {
    const own = memory.create(2 * PAGE, header())!;
    const [pid, fd] = own.locator.split("/") as [string, string];
    const file = join(directory, "file");
    writeFileSync(file, new Uint8Array(3 * PAGE));
    const regular = openSync(file, "r+");
    const zero = openSync("/dev/zero", "r+");
    const server = createServer().listen(join(directory, "socket"));
    await new Promise((resolve) => server.once("listening", resolve));
    const socket = (server as unknown as { _handle: { fd: number } })._handle.fd;
    const fds = openFds();
    const size = 2 * PAGE;
    for (const locator of [
      "", "/", "1", `${pid}/`, `/${fd}`, `-1/${fd}`, `0/${fd}`, `${pid}/-1`, `${pid}/${fd}/`, ` ${pid}/${fd}`, `${pid}/${fd}\n`,
      `${pid}/../fd/${fd}`, `self/${fd}`, `${pid}/99999999999`, `${pid}/2147483648`, `${pid}/999999`, `9999999/${fd}`, `4194304/3`,
      `0${pid}/${fd}`, `${pid}/0${fd}`, `1e3/${fd}`, `${pid}/0x3`, `${pid}/0`, `${pid}/1`, `${pid}/2`,
      `${pid}/${regular}`, `${pid}/${zero}`, `${pid}/${socket}`,
    ]) {
      expect([locator, memory.open(locator, size)]).toEqual([locator, undefined]);
    }
    for (const wrong of [0, PAGE, 3 * PAGE, size + 1, -PAGE, NaN, 2 ** 40]) expect(memory.open(own.locator, wrong)).toBeUndefined();
    expect(openFds()).toBe(fds);
    memory.open(own.locator, size)!.close();
    own.close();
    closeSync(regular);
    closeSync(zero);
    server.close();
  });

  test("what a process creates stays within its budget", () => {
    const first = memory.create(63 * PAGE, header())!;
    expect(memory.create(2 * PAGE, header())).toBeUndefined();
    const second = memory.create(PAGE, header())!;
    first.close();
    first.close();
    expect(memory.usedBytes).toBe(PAGE);
    second.close();
    expect(memory.usedBytes).toBe(0);
  });

  test("junk in every position ends as an error", () => {
    const Segment = loadAddon().NativeSharedSegment as new (options: unknown) => NativeSharedSegment;
    const junk: unknown[] = [
      undefined, null, 1, -1, NaN, 2 ** 53, "x", Symbol("s"), 1n, {}, [], () => 1, new Date(), new ArrayBuffer(8),
      new Float64Array(8), new Uint8Array(63), new Proxy({}, { get() { throw new Error("trap"); } }),
    ];
    for (const bad of junk) {
      expect(() => new Segment(bad)).toThrow();
      if (bad !== 0) expect(() => new Segment({ sizeBytes: bad, header: header() })).toThrow();
      if (bad !== undefined) expect(() => new Segment({ sizeBytes: PAGE, header: bad })).toThrow();
      expect(() => new Segment({ sizeBytes: PAGE, pid: bad, fd: 1 })).toThrow();
      expect(() => new Segment({ sizeBytes: PAGE, pid: process.pid, fd: bad })).toThrow();
    }
    const segment = new Segment({ sizeBytes: PAGE, header: header() }) as unknown as Record<string, (...args: unknown[]) => unknown>;
    for (const bad of junk) {
      if (!(bad instanceof Uint8Array)) expect(() => segment.write!(0, bad)).toThrow();
      if (bad !== 1) expect(() => segment.write!(bad, new Uint8Array(1))).toThrow();
      if (bad !== 1) expect(() => segment.lend!(bad, () => undefined)).toThrow();
      if (typeof bad !== "function") expect(() => segment.lend!(PAGE, bad)).toThrow();
      if (!(bad instanceof ArrayBuffer)) expect(() => segment.detach!(bad)).toThrow();
    }
    expect(() => segment.write!(PAGE - 1, new Uint8Array(2))).toThrow(/do not fit/);
    expect(() => segment.lend!(PAGE + 1, () => undefined)).toThrow();
    const lent = segment.lend!(PAGE, () => undefined) as ArrayBuffer;
    expect(() => segment.write!(0, new Uint8Array(lent, 0, 8))).toThrow(/segment itself/);
    segment.close!();
    for (const name of ["place", "header", "write", "lend", "prefault"]) expect(() => segment[name]!(0, new Uint8Array(1))).toThrow(/closed/);
    segment.close!();
    segment.detach!(lent);
  });

  test("a thread that ends with lent memory takes nothing down", async () => {
    const maps = mappings();
    const worker = new Worker(
      `const { NativeSharedSegment } = require(${JSON.stringify(addonPath())});
       const segment = new NativeSharedSegment({ sizeBytes: 4096, header: new Uint8Array(64) });
       globalThis.kept = [segment, segment.lend(4096, () => { throw new Error("too late"); })];
       segment.prefault();
       setInterval(() => undefined, 1000); // still there when it is ended
       require("node:worker_threads").parentPort.postMessage(1);`,
      { eval: true },
    );
    await new Promise((resolve) => worker.once("message", resolve));
    expect(await worker.terminate()).toBe(1);
    await until(() => mappings() <= maps);
  });
});

// Metrics on disk: the bytes of TensorBoard's event files against ones that TensorBoard 2.21 made, what other
// readers need (checksums, frames), a file that survives kill -9, JSON lines, and the names of a run's figures.
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { crc32c, maskedCrc32c } from "../../src/training/metrics/crc32c.js";
import {
  encodeHistogramEvent, encodeRecord, encodeScalarEvent, encodeTextEvent, encodeVersionEvent,
} from "../../src/training/metrics/event-encoding.js";
import { JsonLinesMetrics, TensorBoardMetrics } from "../../src/training/metrics/metrics-files.js";
import { combineMetrics, MemoryMetrics } from "../../src/training/metrics/sink.js";
import { recordTraining } from "../../src/training/metrics/training-metrics.js";

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "tesra-metrics-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const TIME_MS = 1_700_000_000_250;

/** The records of a file: each frame's checksums must hold; a torn last frame is told apart. */
function readRecords(bytes: Uint8Array): { records: Uint8Array[]; tornBytes: number } {
  const records: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at + 12 <= bytes.length) {
    const length = Number(view.getBigUint64(at, true));
    expect(view.getUint32(at + 8, true)).toBe(maskedCrc32c(bytes.subarray(at, at + 8)));
    if (at + 16 + length > bytes.length) break;
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(view.getUint32(at + 12 + length, true)).toBe(maskedCrc32c(data));
    records.push(data);
    at += 16 + length;
  }
  return { records, tornBytes: bytes.length - at };
}

describe("CRC-32C", () => {
  it("has the values of RFC 3720, appendix B.4", () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
  });
});

describe("TensorBoard events", () => {
  it("have the bytes that TensorBoard's own protobuf classes write", () => {
    expect(hex(encodeVersionEvent(TIME_MS))).toBe("0900001040fc54d9411a0d627261696e2e4576656e743a32");
    expect(hex(encodeScalarEvent("loss/train", 300, 0.625, TIME_MS)))
      .toBe("0900001040fc54d94110ac022a130a110a0a6c6f73732f747261696e150000203f");
    // a step beyond 32 bits; the two empty bins at the end are dropped
    expect(hex(encodeHistogramEvent("staleness/applied", 2 ** 40, { counts: [6, 2, 2, 0, 0] }, TIME_MS)))
      .toBe("0900001040fc54d941108080808080202a780a760a117374616c656e6573732f6170706c6965642a6109000000000000e0bf" +
        "1100000000000004401900000000000024402100000000000018402900000000000024403218000000000000e03f000000000000f83f" +
        "00000000000004403a18000000000000184000000000000000400000000000000040");
    expect(hex(encodeTextEvent("run", 1, "grüße", TIME_MS)))
      .toBe("0900001040fc54d94110012a240a220a0372756e4211080712041202080142076772c3bcc39f654a080a060a0474657874");
    expect(hex(encodeRecord(Uint8Array.of(1, 2, 3, 4, 5)))).toBe("0500000000000000eab2043e01020304057b91d9c1");
  });

  it("takes bins with edges, and a histogram of nothing", () => {
    const histogram = Buffer.from(encodeHistogramEvent("h", 0, { counts: [0, 3, 0], edges: [1, 2, 4, 8] }, 0));
    const doubles = [2, 4, 3, 9, 27].map((value) => { const b = Buffer.alloc(8); b.writeDoubleLE(value); return b; });
    // min 2, max 4, num 3, sum 3 * 3, squares 3 * 9, as fields 1 to 5
    expect(histogram.includes(Buffer.concat(doubles.flatMap((b, i) => [Buffer.of((i + 1) * 8 + 1), b])))).toBe(true);
    expect(() => encodeHistogramEvent("h", 0, { counts: [] }, 0)).not.toThrow();
  });
});

describe("files", () => {
  it("hold every kind of record, each whole", () => {
    const path = join(folder, "all");
    const board = new TensorBoardMetrics({ directory: path, wallTimeMs: TIME_MS });
    const lines = new JsonLinesMetrics(join(path, "metrics.jsonl"));
    const memory = new MemoryMetrics();
    const metrics = combineMetrics(board, lines, memory);
    metrics.scalar("loss/train", 1, Number.NaN, TIME_MS);
    metrics.histogram("staleness/applied", 1, { counts: [4, 1] }, TIME_MS);
    metrics.text("run", 0, "an MLP", TIME_MS);
    metrics.close();
    expect(readdirSync(path).sort()).toEqual(["events.out.tfevents.1700000000.supernet", "metrics.jsonl"]);
    const { records, tornBytes } = readRecords(readFileSync(board.path));
    expect([records.length, tornBytes]).toEqual([4, 0]);
    const read = readFileSync(join(path, "metrics.jsonl"), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as object);
    expect(read).toEqual([
      { kind: "scalar", name: "loss/train", step: 1, wallTimeMs: TIME_MS, value: "NaN" },
      { kind: "histogram", name: "staleness/applied", step: 1, wallTimeMs: TIME_MS, counts: [4, 1] },
      { kind: "text", name: "run", step: 0, wallTimeMs: TIME_MS, text: "an MLP" },
    ]);
    expect(memory.records).toHaveLength(3);
    expect(() => metrics.scalar("late", 2, 1, TIME_MS)).toThrow(/closed/);
  });

  it("refuse what no reader could show", () => {
    const memory = new MemoryMetrics();
    expect(() => memory.scalar("", 0, 1, 0)).toThrow(/1 to 256 characters/);
    expect(() => memory.scalar("a", -1, 1, 0)).toThrow(/whole number/);
    expect(() => memory.scalar("a", 1.5, 1, 0)).toThrow(/whole number/);
    expect(() => memory.scalar("a", 1, 1, Number.NaN)).toThrow(/milliseconds/);
    expect(() => memory.histogram("a", 1, { counts: [1], edges: [1] }, 0)).toThrow(/2 ascending edges/);
    expect(() => memory.histogram("a", 1, { counts: [1, 2], edges: [1, 3, 2] }, 0)).toThrow(/ascending/);
    expect(() => memory.histogram("a", 1, { counts: [-1] }, 0)).toThrow(/counts from 0/);
    expect(() => new TensorBoardMetrics({ directory: folder, wallTimeMs: 0, suffix: "../x" })).toThrow(/suffix/);
    expect(() => new TensorBoardMetrics({ directory: join(root, "package.json"), wallTimeMs: 0 })).toThrow(/EEXIST|ENOTDIR/);
    expect(memory.records).toEqual([]);
  });

  it("survive kill -9: all that was recorded is read again", { timeout: 30_000 }, async () => {
    const path = join(folder, "killed");
    const script = `import { JsonLinesMetrics, TensorBoardMetrics } from "tesra-supernet/training";
      const board = new TensorBoardMetrics({ directory: ${JSON.stringify(path)}, wallTimeMs: 0 });
      const lines = new JsonLinesMetrics(${JSON.stringify(join(path, "metrics.jsonl"))});
      for (let step = 1; ; step += 1) {
        board.scalar("loss", step, step, step);
        lines.scalar("loss", step, step, step);
        if (step % 500 === 0) process.stdout.write(step + "\\n");
      }`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
    const said = await new Promise<number>((settle, fail) => {
      child.on("error", fail);
      child.on("exit", (code) => fail(new Error(`the child ended by itself: ${code}`)));
      child.stdout.once("data", (text: Buffer) => settle(Number(text.toString().split("\n")[0])));
    });
    const ended = new Promise((settle) => child.removeAllListeners("exit").once("exit", settle));
    child.kill("SIGKILL");
    await ended;
    const file = readdirSync(path).find((name) => name.startsWith("events"))!;
    const { records } = readRecords(readFileSync(join(path, file)));
    expect(records.length).toBeGreaterThan(said); // the version event, and each step that was told
    records.slice(1).forEach((data, i) => {
      if (i < 3 || i === records.length - 2) expect(hex(data)).toBe(hex(encodeScalarEvent("loss", i + 1, i + 1, i + 1)));
    });
    const whole = readFileSync(join(path, "metrics.jsonl"), "utf8").split("\n").slice(0, -1);
    expect(whole.length).toBeGreaterThanOrEqual(said);
    expect(whole.every((line, i) => (JSON.parse(line) as { step: number }).step === i + 1)).toBe(true);
  });

  it("append to what is there", () => {
    const path = join(folder, "again.jsonl");
    writeFileSync(path, "{\"kind\":\"text\"}\n");
    const lines = new JsonLinesMetrics(path);
    lines.scalar("a", 1, 2, 3);
    lines.close();
    lines.close();
    expect(readFileSync(path, "utf8").split("\n")).toHaveLength(3);
  });
});

describe("a training run's figures", () => {
  it("have names, and none is made up", () => {
    const memory = new MemoryMetrics();
    recordTraining(memory, { step: 7, loss: null, stalenessCounts: [0, 0], samplesPerSecond: 50 }, 1);
    expect(memory.records.map(({ name }) => name)).toEqual(["speed/samples_per_second"]);
    recordTraining(memory, {
      step: 8, epoch: 0, loss: 0.5, trainAccuracy: 0.8, accuracy: 0.7, staleness: 2, stalenessCounts: [3, 1],
      samplesPerSecond: 60, cost: 1_500_000_000_000_000_000n, bytesPushed: 10, bytesPulled: 20, stepMs: 4,
    }, 2);
    expect(memory.series("cost/tsr")).toEqual([{ step: 8, value: 1.5, wallTimeMs: 2 }]);
    expect(memory.series("speed/samples_per_second").map(({ value }) => value)).toEqual([50, 60]);
    expect(memory.records.find(({ kind }) => kind === "histogram")).toMatchObject({ name: "staleness/applied", counts: [3, 1] });
  });
});

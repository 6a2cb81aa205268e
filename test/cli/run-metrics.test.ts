// What --metrics-dir writes of a task's events, and how it fails.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { ClientEvent } from "../../src/actors/client/task-client.js";
import { createRunMetrics } from "../../src/cli/run-metrics.js";

const folder = mkdtempSync(join(tmpdir(), "tesra-run-metrics-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const progress = (version: number): ClientEvent => ({
  type: "progress", samplesTotal: 100, epoch: 0, samplesPerSecond: 10, cost: 5n * 10n ** 17n,
  progress: {
    version, samples: version, loss: 0.5, trainAccuracy: 0.75, maxStaleness: 1, staleness: [version, 2], stalePushes: 0,
    duplicatePushes: 0, rejectedPushes: 0,
  },
});

describe("--metrics-dir", () => {
  it("records progress, evaluations and lost workers; a server that goes back repeats nothing", () => {
    const path = join(folder, "run");
    const metrics = createRunMetrics(path, "mlp", () => expect.unreachable());
    metrics.take(progress(8));
    metrics.take({ type: "evaluation", epoch: 1, accuracy: 0.9, loss: 0.25 });
    metrics.take(progress(4));
    metrics.take({ type: "task", event: { type: "worker-lost", worker: "0xab", samplesLeft: 40 } });
    metrics.close();
    metrics.take(progress(9));
    const records = readFileSync(join(path, "metrics.jsonl"), "utf8").trimEnd().split("\n")
      .map((line) => JSON.parse(line) as { name: string; step: number; value?: number; text?: string });
    const of = (name: string) => records.filter((record) => record.name === name);
    expect(of("loss/train").map(({ step, value }) => [step, value])).toEqual([[8, 0.5]]);
    expect(of("accuracy/test").map(({ step, value }) => [step, value])).toEqual([[8, 0.9]]);
    expect(of("staleness/applied")).toMatchObject([{ counts: [8, 2] }]);
    expect(of("cost/tsr")).toMatchObject([{ value: 0.5 }]);
    expect(of("events")[0]!.text).toMatch(/worker 0xab was lost, 40 samples/);
    expect(of("run")[0]!.text).toBe("mlp");
  });

  it("refuses a folder that cannot be written", () => {
    writeFileSync(join(folder, "file"), "");
    expect(() => createRunMetrics(join(folder, "file"), "mlp", () => undefined)).toThrow(/cannot write metrics to .*file/);
    const full = join(folder, "full");
    mkdirSync(full);
    symlinkSync("/dev/full", join(full, "metrics.jsonl"));
    if (process.platform === "linux") expect(() => createRunMetrics(full, "mlp", () => undefined)).toThrow(/the disk is full/);
  });
});

// Ten times more than an actor can handle, between two processes: where each message went, and how much may wait.
// Latency and memory curves are bench/runtime/overload.mjs's own affair; here only what must hold on any machine.
import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { MESSAGE_OUTBOX_BYTES_MAX } from "../../src/runtime/wire/limits.js";

const root = resolve(import.meta.dirname, "../..");

interface Result {
  readonly policy: string;
  readonly sent: number;
  readonly refused: number;
  readonly handled: number;
  readonly dropped: Readonly<Record<"overflow" | "conflated" | "undeliverable" | "malformed", number>>;
  readonly lost: number;
  readonly depthMax: number;
  readonly outboxBytesMax: number;
  readonly rssGrowthMiB: number;
}

describe("overload at 10x", () => {
  test("with each overflow policy every message is handled, refused or a counted dead letter, and the queues stay bounded",
    { timeout: 120_000 }, async () => {
      const { stdout } = await promisify(execFile)(process.execPath, ["bench/runtime/overload.mjs", "--seconds", "1"], { cwd: root, timeout: 110_000 });
      const { results } = JSON.parse(stdout) as { results: Result[] };
      expect(results.map((each) => each.policy)).toEqual(["reject", "drop-oldest", "drop-newest", "conflate", "wait"]);
      for (const each of results) {
        const dropped = Object.values(each.dropped).reduce((sum, count) => sum + count, 0);
        expect(each.lost, each.policy).toBe(0);
        // A mailbox that waits holds its senders by their credit: it drops nothing, and the sender refuses what is too much.
        if (each.policy === "wait") expect(dropped).toBe(0);
        else expect(each.refused + dropped, each.policy).toBeGreaterThan(0);
        expect(each.handled, each.policy).toBeGreaterThan(0);
        expect(each.depthMax, each.policy).toBeLessThanOrEqual(1000);
        expect(each.outboxBytesMax, each.policy).toBeLessThanOrEqual(MESSAGE_OUTBOX_BYTES_MAX);
        expect(each.rssGrowthMiB, each.policy).toBeLessThan(128);
        expect(each.dropped.malformed, each.policy).toBe(0);
      }
      const by = (policy: string): Result => results.find((each) => each.policy === policy)!;
      expect(by("reject").dropped).toMatchObject({ overflow: 0, conflated: 0 });
      expect(by("drop-oldest").dropped).toMatchObject({ undeliverable: 0, conflated: 0 });
      expect(by("drop-newest").dropped).toMatchObject({ undeliverable: 0, conflated: 0 });
      expect(by("conflate").dropped.conflated).toBeGreaterThan(0);
      expect(by("conflate").depthMax).toBeLessThanOrEqual(64); // as many as there are keys
    });
});

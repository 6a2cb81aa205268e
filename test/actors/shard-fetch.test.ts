// A worker's fetch of a shard outlives a restart of the master, and ends when there is no hope.
import { expect, it } from "vitest";
import { createShardFetch } from "../../src/actors/worker/fetch-shard.js";

type MasterRef = ReturnType<Parameters<typeof createShardFetch>[0]>;
const failing = (code: string): object => ({ ok: false, error: { code, message: `failed: ${code}` } });

/** Answers in order, the last one for ever; undefined: no link. Sleeping moves the clock. */
function fetchWith(answers: (object | undefined)[], isEnding = false) {
  const state = { nowMs: 0, calls: 0 };
  const masterRef = (): MasterRef => {
    const answer = answers[Math.min(state.calls++, answers.length - 1)];
    return answer && ({ call: () => Promise.resolve(answer) } as unknown as MasterRef);
  };
  const sleep = (ms: number): Promise<void> => {
    state.nowMs += ms;
    return Promise.resolve();
  };
  return { state, fetch: createShardFetch(masterRef, () => isEnding, { now: () => state.nowMs, sleep }) };
}

it("waits while the link is down and asks again", async () => {
  const bytes = Uint8Array.of(1, 2, 3);
  const { fetch, state } = fetchWith([failing("unreachable"), undefined, failing("timeout"), { ok: true, value: { bytes } }]);
  expect(await fetch("ab")).toBe(bytes);
  expect(state.calls).toBe(4);
});

it("ends at a refusal, at the end of its patience, and when the node shuts down", async () => {
  const refused = fetchWith([failing("refused")]);
  await expect(refused.fetch("ab")).rejects.toThrow("shard ab cannot be fetched: failed: refused");
  expect(refused.state.calls).toBe(1);
  const gone = fetchWith([undefined]);
  await expect(gone.fetch("ab")).rejects.toThrow("the master is not linked");
  expect(gone.state.nowMs).toBeGreaterThan(10_000);
  const ending = fetchWith([failing("unreachable")], true);
  await expect(ending.fetch("ab")).rejects.toThrow("failed: unreachable");
  expect(ending.state.calls).toBe(1);
});

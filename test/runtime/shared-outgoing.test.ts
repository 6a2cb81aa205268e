// Which segments the sending end prepares, and when, with memory that only counts.
import { expect, test } from "vitest";
import type { OwnSegment, SharedMemory } from "../../src/runtime/host/shared-memory.js";
import { silentLogger } from "../../src/runtime/index.js";
import { SharedOutgoing } from "../../src/runtime/remote/shared-outgoing.js";
import { SHARED_BYTES_MIN, SHARED_POOL_BYTES_MAX } from "../../src/runtime/wire/limits.js";

const CHALLENGE_BYTES = 16;

/** An end whose peer has been offered `offers`; `turn` lets pages that are being found be found. */
function end(): { outgoing: SharedOutgoing; offers: number[]; retired: number[]; answerAll(isVisible?: boolean): void; turn(): Promise<void> } {
  const offers: number[] = [];
  const retired: number[] = [];
  const memory: SharedMemory = {
    create: (sizeBytes): OwnSegment => ({
      sizeBytes,
      locator: "1/1",
      header: () => new Uint8Array(64),
      lend: (lengthBytes) => new ArrayBuffer(lengthBytes),
      detach: () => undefined,
      close: () => undefined,
      prefault: () => Promise.resolve(),
      write: () => undefined,
      closeFile: () => undefined,
    }),
    open: () => undefined,
  };
  const outgoing = new SharedOutgoing({ isDialer: true }, {
    memory,
    logger: silentLogger,
    random: (sizeBytes) => new Uint8Array(sizeBytes),
    sendOffer: (id) => void offers.push(id),
    sendRetire: (id) => void retired.push(id),
  });
  return {
    outgoing,
    offers,
    retired,
    answerAll: (isVisible = true) => {
      for (const id of offers.splice(0)) outgoing.onAnswer(id, isVisible, new Uint8Array(CHALLENGE_BYTES));
    },
    turn: () => new Promise((resolve) => setImmediate(resolve)),
  };
}

const tensor = (sizeBytes = SHARED_BYTES_MIN): [Uint8Array[], number] => [[new Uint8Array(sizeBytes)], sizeBytes];

test("messages sent before the peer is known to see this host's memory have their segments made once it is", async () => {
  const { outgoing, offers, answerAll, turn } = end();
  outgoing.probe();
  expect(outgoing.place(...tensor())).toBeUndefined();
  expect(outgoing.place(...tensor())).toBeUndefined();
  expect(outgoing.sizeBytes).toBe(0); // nothing for a peer that may be far away
  answerAll();
  await turn();
  expect(offers.length).toBe(2);
  answerAll();
  const [first, second] = [outgoing.place(...tensor()), outgoing.place(...tensor())];
  expect([first, second].every((each) => each !== undefined)).toBe(true);
  expect(outgoing.misses).toBe(0);
});

test("for a peer elsewhere none is made", async () => {
  const { outgoing, answerAll, turn } = end();
  outgoing.probe();
  outgoing.place(...tensor());
  answerAll(false);
  await turn();
  expect([outgoing.count, outgoing.sizeBytes]).toEqual([0, 0]);
});

test("while one is lent the next is made ready, so that sender and receiver that take turns never miss", async () => {
  const { outgoing, answerAll, turn } = end();
  outgoing.assumeVisible();
  expect(outgoing.place(...tensor())).toBeUndefined();
  expect(outgoing.misses).toBe(1);
  const lent: number[] = [];
  for (let i = 0; i < 10; i++) {
    await turn();
    answerAll();
    const placed = outgoing.place(...tensor());
    expect(placed).toBeDefined();
    placed!.commit();
    lent.push(placed!.placed[0]!.segment);
    if (lent.length > 1) outgoing.onRelease(lent.shift()!); // always one in the receiver's hands
  }
  expect(outgoing.misses).toBe(1);
  expect(outgoing.count).toBeLessThanOrEqual(3);
});

test("a spare never ends a segment that is there", async () => {
  const { outgoing, retired, answerAll, turn } = end();
  outgoing.assumeVisible();
  const large = Math.floor(SHARED_POOL_BYTES_MAX * 0.6); // of which there is room for one
  for (const sizeBytes of [SHARED_BYTES_MIN, large]) outgoing.place(...tensor(sizeBytes));
  await turn();
  answerAll();
  outgoing.place(...tensor(large))!.commit();
  await turn();
  expect([outgoing.count, retired]).toEqual([2, []]);
  expect(outgoing.place(...tensor())).toBeDefined();
});

// Owns Effect's side of the measures inside one process. An actor is a fiber that takes from its own Queue, a reply
// is a Deferred: the pattern of Effect's documentation (clusters of entities cost far more).
// `--batched` takes all that waits at once; otherwise one message a take.
import { createRequire } from "node:module";
import { Deferred, Effect, Fiber, Queue } from "effect";
import { perSecond, print, sideArguments } from "../../runtime/timing.mjs";
import { BURST, WINDOW } from "../../runtime/workload.mjs";

const { version } = createRequire(import.meta.url)("effect/package.json");

/** `handle` may return an Effect, which is then run before the next message. */
const actor = (queue, handle) =>
  Effect.gen(function* () {
    for (;;) {
      if (isBatched) {
        for (const message of yield* Queue.takeAll(queue)) {
          const effect = handle(message);
          if (effect !== undefined) yield* effect;
        }
      } else {
        const effect = handle(yield* Queue.take(queue));
        if (effect !== undefined) yield* effect;
      }
    }
  });
const newQueue = () => Effect.runSync(Queue.unbounded());

const measures = {
  cast() {
    const [sender, receiver] = [newQueue(), newQueue()];
    let left = 0;
    let finished = () => undefined;
    let handled = 0;
    Effect.runFork(
      actor(sender, () => {
        if (left <= 0) return void finished();
        for (let i = 0; i < BURST; i++) Queue.offerUnsafe(receiver, { i });
      }),
    );
    Effect.runFork(
      actor(receiver, () => {
        if (++handled % BURST !== 0) return;
        left -= BURST;
        Queue.offerUnsafe(sender, {});
      }),
    );
    return {
      first: BURST,
      go: (count) =>
        new Promise((resolve) => {
          left = count;
          finished = resolve;
          Queue.offerUnsafe(sender, {});
        }),
    };
  },
  pingPong() {
    const queues = [newQueue(), newQueue()];
    let left = 0;
    let finished = () => undefined;
    for (const [at, queue] of queues.entries()) {
      Effect.runFork(
        actor(queue, ({ i }) => {
          if (--left <= 0) return void finished();
          Queue.offerUnsafe(queues[1 - at], { i: i + 1 });
        }),
      );
    }
    return {
      go: (count) =>
        new Promise((resolve) => {
          left = count;
          finished = resolve;
          Queue.offerUnsafe(queues[0], { i: 0 });
        }),
    };
  },
  ask() {
    const queue = adder();
    return { go: (count) => Effect.runPromise(asks(queue, count)) };
  },
  askWindow() {
    const queue = adder();
    return {
      first: WINDOW,
      go: (count) =>
        Effect.runPromise(
          Effect.all(
            Array.from({ length: WINDOW }, () => asks(queue, count / WINDOW)),
            { concurrency: "unbounded", discard: true },
          ),
        ),
    };
  },
  spawnStop() {
    const one = Effect.gen(function* () {
      const queue = yield* Queue.unbounded();
      const fiber = yield* Effect.forkDetach(actor(queue, () => undefined));
      yield* Effect.yieldNow; // its loop has begun and waits for a message
      yield* Fiber.interrupt(fiber);
    });
    return {
      go: (count) =>
        Effect.runPromise(
          Effect.gen(function* () {
            for (let i = 0; i < count; i++) yield* one;
          }),
        ),
    };
  },
};
function adder() {
  const queue = newQueue();
  Effect.runFork(actor(queue, ({ i, reply }) => void Deferred.doneUnsafe(reply, Effect.succeed(i + 1))));
  return queue;
}
const asks = (queue, count) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      const reply = Deferred.makeUnsafe();
      Queue.offerUnsafe(queue, { i, reply });
      yield* Deferred.await(reply);
    }
  });

const { measure, seconds, has } = sideArguments(measures);
const isBatched = has("--batched");
const { go, first } = measures[measure]();
print(await perSecond(seconds, go, { first }), version);
process.exit(0);

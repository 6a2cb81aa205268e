// Owns our workloads inside one process: two actors and the messages between them. Each takes a system and returns
// `go(count)`, which does `count` operations.
import { z } from "zod";
import { BURST, WINDOW } from "./workload.mjs";

/** @param runtime the build of the runtime to use, so that two can stand side by side */
export function workloads({ behavior, defineProtocol }) {
  const Note = defineProtocol("note", 1, { cast: { note: z.object({ i: z.number() }) } });
  const Sender = defineProtocol("sender", 1, { cast: { burst: z.object({}), pong: z.object({ i: z.number() }) } });
  const Adder = defineProtocol("adder", 1, {
    call: { add: { request: z.object({ i: z.number() }), reply: z.number() } },
  });
  const Idle = defineProtocol("idle", 1, { cast: { nothing: z.null() } });
  const adder = () => behavior(Adder, () => ({ call: { add: ({ i }) => i + 1 } }));

  return {
    /** One actor casts bursts to another, which answers the last message of each. */
    cast(system) {
      let left = 0;
      let finished = () => undefined;
      let receiver;
      const sender = system.spawn(
        behavior(Sender, () => ({
          cast: {
            burst: () => {
              if (left <= 0) return finished();
              for (let i = 0; i < BURST; i++)
                if (receiver.cast("note", { i }) !== "accepted") throw new Error("not accepted");
            },
            pong: () => undefined,
          },
        })),
        { name: "sender" },
      );
      let handled = 0;
      receiver = system.spawn(
        behavior(Note, () => ({
          cast: {
            note: () => {
              if (++handled % BURST !== 0) return;
              left -= BURST;
              sender.cast("burst", {});
            },
          },
        })),
        { name: "receiver" },
      );
      return {
        first: BURST,
        go: (count) =>
          new Promise((resolve) => {
            left = count;
            finished = resolve;
            sender.cast("burst", {});
          }),
      };
    },

    /** One message between two actors; an operation is one message. */
    pingPong(system) {
      let left = 0;
      let finished = () => undefined;
      const refs = [];
      const half = (other) =>
        behavior(Sender, () => ({
          cast: {
            burst: () => undefined,
            pong: ({ i }) => {
              if (--left <= 0) return finished();
              refs[other].cast("pong", { i: i + 1 });
            },
          },
        }));
      refs.push(system.spawn(half(1), { name: "ping" }), system.spawn(half(0), { name: "pong" }));
      return {
        go: (count) =>
          new Promise((resolve) => {
            left = count;
            finished = resolve;
            refs[0].cast("pong", { i: 0 });
          }),
      };
    },

    ask(system) {
      const ref = system.spawn(adder(), { name: "adder" });
      return {
        go: async (count) => {
          for (let i = 0; i < count; i++) if (!(await ref.call("add", { i })).ok) throw new Error("not answered");
        },
      };
    },

    askWindow(system) {
      const ref = system.spawn(adder(), { name: "adder" });
      return {
        first: WINDOW,
        go: (count) =>
          Promise.all(
            Array.from({ length: WINDOW }, async () => {
              for (let i = 0; i < count / WINDOW; i++)
                if (!(await ref.call("add", { i })).ok) throw new Error("not answered");
            }),
          ),
      };
    },

    /** Starts an actor, has its factory run, and waits until it has ended again. */
    spawnStop(system) {
      let [starts, ends] = [0, 0];
      const idle = behavior(Idle, () => {
        starts += 1;
        return { cast: { nothing: () => undefined }, stopped: () => void (ends += 1) };
      });
      let stops = 0;
      return {
        go: async (count) => {
          for (let i = 0; i < count; i++) await system.stop(system.spawn(idle));
          stops += count;
          if (starts !== stops || ends !== stops)
            throw new Error(`${stops} stopped, ${starts} started, ${ends} ended`);
        },
      };
    },
  };
}

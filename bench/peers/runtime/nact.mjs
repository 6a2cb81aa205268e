// Owns nact's side of the measures inside one process.
import { createRequire } from "node:module";
import { perSecond, print, sideArguments } from "../../runtime/timing.mjs";
import { BURST, WINDOW } from "../../runtime/workload.mjs";

const require = createRequire(import.meta.url);
const { dispatch, query, spawn, start, stop } = require("nact");

const measures = {
  cast(system) {
    let left = 0;
    let finished = () => undefined;
    let receiver;
    const sender = spawn(
      system,
      () => {
        if (left <= 0) return finished();
        for (let i = 0; i < BURST; i++) dispatch(receiver, { i });
      },
      "sender",
    );
    let handled = 0;
    receiver = spawn(
      system,
      () => {
        if (++handled % BURST !== 0) return;
        left -= BURST;
        dispatch(sender, {});
      },
      "receiver",
    );
    return {
      first: BURST,
      go: (count) =>
        new Promise((resolve) => {
          left = count;
          finished = resolve;
          dispatch(sender, {});
        }),
    };
  },
  pingPong(system) {
    let left = 0;
    let finished = () => undefined;
    const refs = [];
    const half =
      (other) =>
      (_state, { i }) => {
        if (--left <= 0) return finished();
        dispatch(refs[other], { i: i + 1 });
      };
    refs.push(spawn(system, half(1), "ping"), spawn(system, half(0), "pong"));
    return {
      go: (count) =>
        new Promise((resolve) => {
          left = count;
          finished = resolve;
          dispatch(refs[0], { i: 0 });
        }),
    };
  },
  ask(system) {
    const actor = spawnAdder(system);
    return {
      go: async (count) => {
        for (let i = 0; i < count; i++) await ask(actor, i);
      },
    };
  },
  askWindow(system) {
    const actor = spawnAdder(system);
    return {
      first: WINDOW,
      go: (count) =>
        Promise.all(
          Array.from({ length: WINDOW }, async () => {
            for (let i = 0; i < count / WINDOW; i++) await ask(actor, i);
          }),
        ),
    };
  },
  spawnStop(system) {
    return {
      go: async (count) => {
        for (let i = 0; i < count; i++) {
          await new Promise((resolve) => stop(spawn(system, () => undefined, undefined, { afterStop: resolve })));
        }
      },
    };
  },
};
const spawnAdder = (system) => spawn(system, (_state, { i, sender }) => dispatch(sender, i + 1), "adder");
const ask = (actor, i) => query(actor, (sender) => ({ i, sender }), 5000);

const { measure, seconds } = sideArguments(measures);
const { go, first } = measures[measure](start());
print(await perSecond(seconds, go, { first }), require("nact/package.json").version);
process.exit(0);

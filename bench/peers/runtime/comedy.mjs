// Owns comedy's side of the measures inside one process: in-memory actors, logging off.
import { createRequire } from "node:module";
import { perSecond, print, sideArguments } from "../../runtime/timing.mjs";
import { BURST, WINDOW } from "../../runtime/workload.mjs";

const require = createRequire(import.meta.url);
const actors = require("comedy");

const measures = {
  async cast(root) {
    let left = 0;
    let finished = () => undefined;
    let handled = 0;
    let receiver;
    const sender = await root.createChild({
      burst: () => {
        if (left <= 0) return void finished();
        for (let i = 0; i < BURST; i++) receiver.send("note", { i });
      },
    });
    receiver = await root.createChild({
      note: () => {
        if (++handled % BURST !== 0) return;
        left -= BURST;
        sender.send("burst", {});
      },
    });
    return {
      first: BURST,
      go: (count) =>
        new Promise((resolve) => {
          left = count;
          finished = resolve;
          sender.send("burst", {});
        }),
    };
  },
  async pingPong(root) {
    let left = 0;
    let finished = () => undefined;
    const refs = [];
    const half = (other) => ({
      pong: ({ i }) => {
        if (--left <= 0) return void finished();
        refs[other].send("pong", { i: i + 1 });
      },
    });
    refs.push(await root.createChild(half(1)), await root.createChild(half(0)));
    return {
      go: (count) =>
        new Promise((resolve) => {
          left = count;
          finished = resolve;
          refs[0].send("pong", { i: 0 });
        }),
    };
  },
  async ask(root) {
    const adder = await root.createChild({ add: ({ i }) => i + 1 });
    return {
      go: async (count) => {
        for (let i = 0; i < count; i++) await adder.sendAndReceive("add", { i });
      },
    };
  },
  async askWindow(root) {
    const adder = await root.createChild({ add: ({ i }) => i + 1 });
    return {
      first: WINDOW,
      go: (count) =>
        Promise.all(
          Array.from({ length: WINDOW }, async () => {
            for (let i = 0; i < count / WINDOW; i++) await adder.sendAndReceive("add", { i });
          }),
        ),
    };
  },
  async spawnStop(root) {
    return {
      go: async (count) => {
        for (let i = 0; i < count; i++) await (await root.createChild({ nothing: () => undefined })).destroy();
      },
    };
  },
};

const { measure, seconds } = sideArguments(measures);
const quiet = Object.fromEntries(
  ["error", "warn", "info", "debug", "silly", "log", "setLevel"].map((name) => [name, () => undefined]),
);
const system = actors.createSystem({ log: quiet });
const { go, first } = await measures[measure](await system.rootActor());
print(await perSecond(seconds, go, { first }), require("comedy/package.json").version);
process.exit(0);

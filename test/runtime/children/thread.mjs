import { exposeThread } from "../../../dist/runtime/index.js";

let total = 0;
exposeThread({
  add: (n) => (total += n),
  fill: (shared, value) => void new Float32Array(shared).fill(value),
  fail: () => {
    throw new Error("failed inside");
  },
  hang: () => new Promise(() => undefined),
  die: () => {
    setImmediate(() => {
      throw new Error("thread dies");
    });
    return new Promise(() => undefined);
  },
});

// A counter that fails now and then, under supervision. Run: node examples/runtime/supervised-counter.mjs
import { z } from "zod";
import { behavior, createSystem, defineProtocol } from "tesra-supernet/runtime";

const Counter = defineProtocol("counter", 1, {
  call: { add: { request: z.object({ n: z.number() }), reply: z.number() } },
  cast: { reset: z.object({}) },
});

let starts = 0;
const counter = behavior(Counter, (ctx) => {
  starts += 1;
  let total = 0;
  return {
    call: {
      add: ({ n }) => {
        if (n === 13) throw new Error("thirteen brings bad luck");
        return (total += n);
      },
    },
    cast: { reset: () => void (total = 0) },
    stopped: (reason) => console.log(`${ctx.path}: ${reason.code} at total ${total}`),
  };
});

const system = createSystem({ name: "example" });
const ref = system.spawn(counter, {
  name: "counter",
  mailbox: { capacity: 100, overflow: "reject" },
  supervision: { maxRestarts: 3, withinMs: 10_000, backoff: { initialMs: 10 } },
});
console.log("1 + 2:", await ref.call("add", { n: 1 }), await ref.call("add", { n: 2 }));
console.log("unlucky:", await ref.call("add", { n: 13 }));
console.log("after the restart:", await ref.call("add", { n: 5 }), `(start ${starts})`);
console.log(system.tree());
console.log(await system.shutdown({ deadlineMs: 1000 }));

// Owns the list of what is measured, against whom, and the figures that are to be reached.
// `floor`: the ratio ours/peer that must be reached (for latencies: not passed). `goal`: where there is one beyond it.
// A line without a floor is there for information.
import {
  comedy,
  effect,
  moleculer,
  nact,
  otp,
  otpDistributed,
  ours,
  oursAs,
  ray,
  socket,
  socketInPlace,
  within,
  zeromq,
  zeromqFresh,
} from "./sides.mjs";

const TAKES = [[], ["--batched"]];
const CHUNKS = [
  ["--chunk", "262144"],
  ["--chunk", "1048576"],
  ["--chunk", "4194304"],
];
const WRITES = [[], ["--write", "1048576"]];
const FRAMES = [[], ["--hwm"], ["--dealer"]];
const ASKS = [[], ["--dealer"]];
const TRACES = [
  { side: within("untraced", "ours without trace branches"), floor: 0.97 },
  { side: within("traced", "ours with a span recorder") },
];
const perSecond = (unit) => [{ key: "perSecond", cpuKey: "perCpuSecond", unit }];
const latencies = [
  { key: "p50Us", title: "p50", unit: "us", isLower: true },
  { key: "p99Us", title: "p99", unit: "us", isLower: true },
];

/** @type {{ name, title, rows, ours, peers: { side, floor?, goal?, keys? }[] }[]} */
export const lines = [
  {
    name: "cast",
    title: "local cast",
    rows: perSecond("msg/s"),
    ours: ours.local("cast"),
    peers: [
      { side: nact("cast"), floor: 10 },
      { side: otp("cast"), floor: 2 },
      { side: effect("cast", TAKES) },
      { side: comedy("cast") },
    ],
  },
  {
    name: "ping-pong",
    title: "local ping-pong",
    rows: perSecond("msg/s"),
    ours: ours.local("pingPong"),
    peers: [
      { side: nact("pingPong"), floor: 3 },
      { side: otp("pingPong") },
      { side: effect("pingPong", TAKES) },
      { side: comedy("pingPong") },
    ],
  },
  {
    name: "ask",
    title: "local ask, one at a time",
    rows: perSecond("ask/s"),
    ours: ours.local("ask"),
    peers: [
      { side: nact("ask"), floor: 2.5 },
      { side: effect("ask", TAKES), floor: 2 },
      { side: otp("ask") },
      { side: comedy("ask") },
    ],
  },
  {
    name: "ask-window",
    title: "local ask, 100 at once",
    rows: perSecond("ask/s"),
    ours: ours.local("askWindow"),
    peers: [
      { side: nact("askWindow"), floor: 2.5 },
      { side: effect("askWindow", TAKES), floor: 2 },
      { side: otp("askWindow") },
      { side: comedy("askWindow") },
    ],
  },
  {
    name: "spawn-stop",
    title: "spawn + stop",
    rows: perSecond("actor/s"),
    ours: ours.local("spawnStop"),
    peers: [
      { side: otp("spawnStop"), floor: 0.8, goal: 1 },
      { side: otp("spawnStopBare", "otp-bare") },
      { side: nact("spawnStop") },
      { side: effect("spawnStop", TAKES) },
      { side: comedy("spawnStop") },
    ],
  },
  {
    name: "remote-cast",
    title: "cast 64 B, tcp",
    rows: perSecond("msg/s"),
    ours: ours.remote("cast"),
    peers: [
      { side: zeromq("cast", FRAMES), floor: 8 },
      { side: otpDistributed("remoteCast"), floor: 5 },
    ],
  },
  {
    name: "remote-cast-curve",
    title: "cast 64 B, tcp CURVE",
    rows: perSecond("msg/s"),
    ours: ours.remote("cast", "--curve"),
    peers: [{ side: zeromq("cast", FRAMES, ["--curve"]) }],
  },
  {
    name: "remote-cast-ipc",
    title: "cast 64 B, ipc",
    rows: perSecond("msg/s"),
    ours: ours.remote("cast", "--endpoint", "ipc"),
    peers: [{ side: zeromq("cast", FRAMES, ["--endpoint", "ipc"]) }],
  },
  {
    name: "remote-ask",
    title: "ask, tcp",
    rows: latencies,
    ours: ours.remote("ask"),
    peers: [
      { side: zeromq("ask", ASKS), floor: [1.25, undefined], goal: [1, undefined] },
      { side: moleculer("ask") },
    ],
  },
  {
    name: "remote-ask-ipc",
    title: "ask, ipc",
    rows: latencies,
    ours: ours.remote("ask", "--endpoint", "ipc"),
    peers: [{ side: zeromq("ask", ASKS, ["--endpoint", "ipc"]) }],
  },
  {
    name: "remote-ask-curve",
    title: "ask, tcp CURVE",
    rows: latencies,
    ours: ours.remote("ask", "--curve"),
    peers: [{ side: zeromq("ask", ASKS, ["--curve"]) }],
  },
  {
    name: "remote-ask-window",
    title: "ask, 100 at once, tcp",
    rows: perSecond("ask/s"),
    ours: ours.remote("askWindow"),
    peers: [{ side: moleculer("askWindow"), floor: 4 }],
  },
  {
    name: "bulk",
    title: "64 MiB tensors, tcp",
    rows: perSecond("GB/s"),
    ours: ours.remote("bulk"),
    peers: [
      { side: zeromq("bulk", CHUNKS), floor: 0.9, goal: 1 },
      { side: socket("bulk", WRITES), floor: 0.8, goal: 1 },
      { side: zeromqFresh("bulk", CHUNKS, ["--fresh"]) },
      { side: socketInPlace("bulk", WRITES, ["--onread"]) },
    ],
  },
  {
    name: "bulk-curve",
    title: "64 MiB tensors, tcp CURVE",
    rows: perSecond("GB/s"),
    ours: ours.remote("bulk", "--curve"),
    peers: [{ side: zeromq("bulk", CHUNKS, ["--curve"]), floor: 0.9, goal: 1 }],
  },
  {
    name: "bulk-ipc",
    title: "64 MiB tensors, ipc",
    rows: perSecond("GB/s"),
    ours: ours.remote("bulk", "--endpoint", "ipc"),
    peers: [
      { side: zeromq("bulk", CHUNKS, ["--endpoint", "ipc"]), floor: 0.9, goal: 1 },
      { side: socket("bulk", WRITES, ["--endpoint", "ipc"]), floor: 0.8, goal: 1 },
    ],
  },
  {
    name: "bulk-shared",
    title: "64 MiB tensors, shared memory",
    rows: perSecond("GB/s"),
    ours: ours.remote("bulk", "--endpoint", "ipc", "--shared"),
    peers: [
      { side: oursAs("ours-tcp", "ours over tcp", ours.remote("bulk")), floor: 3 },
      { side: zeromq("bulk", CHUNKS), floor: 3 },
    ],
  },
  {
    name: "ray-ask",
    title: "ask, tcp CURVE",
    rows: perSecond("ask/s"),
    ours: ours.remote("askSequence", "--curve"),
    peers: [{ side: ray(), floor: 10, keys: { perSecond: "askPerSecond" } }],
  },
  {
    name: "ray-ask-window",
    title: "ask, 100 at once, tcp CURVE",
    rows: perSecond("ask/s"),
    ours: ours.remote("askWindow", "--curve"),
    peers: [{ side: ray(), floor: 10, keys: { perSecond: "windowPerSecond" } }],
  },
  {
    name: "ray-tensor",
    title: "64 MiB tensors, shared memory",
    rows: perSecond("GB/s"),
    ours: ours.remote("bulk", "--endpoint", "ipc", "--shared"),
    peers: [{ side: ray(), floor: 10, keys: { perSecond: "gigabytesPerSecond" } }],
  },
  {
    name: "trace-cast",
    title: "local cast, tracing off",
    rows: perSecond("msg/s"),
    ours: ours.trace("cast"),
    peers: TRACES,
  },
  {
    name: "trace-ask",
    title: "local ask, tracing off",
    rows: perSecond("ask/s"),
    ours: ours.trace("ask"),
    peers: TRACES,
  },
  {
    name: "trace-ask-window",
    title: "local ask, 100 at once, tracing off",
    rows: perSecond("ask/s"),
    ours: ours.trace("askWindow"),
    peers: TRACES,
  },
];

// Owns the kernel suite: for each line ours, peers and the limit in turn, several rounds within seconds, and what is
// made of the figures.
// Invariant: a ratio is the median of the ratios of neighbours in time, so that a load that comes and goes hits both
// sides of it; the limit stands in the same rounds.
import { loadavg } from "node:os";
import { limits, lines, PEERS } from "./lines.mjs";
import { Side, titles } from "./sides.mjs";

/** One turn of one side: long enough for a 2048 product, short enough that neighbours see the same machine. */
const SECONDS = 0.1;
const SECONDS_QUICK = 0.03;

export const names = lines.map((line) => line.name);

const median = (xs) => {
  const sorted = [...xs].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

export async function run({ runs, quick, only, hasPeers, progress }) {
  const chosen =
    only === undefined ? lines : lines.filter(({ name }) => only.some((each) => name === each || name.startsWith(`${each}-`)));
  const seconds = quick ? SECONDS_QUICK : SECONDS;
  const wanted = new Set(["ours", "limits", ...(hasPeers ? chosen.flatMap((line) => line.peers) : [])]);
  const sides = Object.fromEntries(
    await Promise.all([...wanted].map(async (name) => [name, await new Side(name).start()])),
  );
  const loadBefore = loadavg()[0];
  try {
    if (sides.ours.reason !== undefined) throw new Error(`our side did not start: ${sides.ours.reason}`);
    for (const side of Object.values(sides))
      if (side.reason !== undefined) progress(`${side.name}: not measured (${side.reason})`);
    const results = [];
    for (const line of chosen) {
      const row = await measure({ line, sides, runs, seconds, hasPeers });
      results.push(row);
      progress(show(row));
    }
    const versions = Object.fromEntries(
      Object.values(sides)
        .filter(({ version, name }) => version !== undefined && !["ours", "limits"].includes(name))
        .map(({ name, version }) => [name, version]),
    );
    versions.loadAverage = `${loadBefore.toFixed(2)} to ${loadavg()[0].toFixed(2)}`;
    return { results, versions, failed: results.some((row) => row.ours === null) };
  } finally {
    for (const side of Object.values(sides)) side.close();
  }
}

async function measure({ line, sides, runs, seconds, hasPeers }) {
  const { request, work, scale, peers } = line;
  const valueOf = ({ seconds: each }) => (line.mostUs === undefined ? (work * scale) / each : each * scale);
  const ours = [];
  const others = Object.fromEntries((hasPeers ? peers : []).map((name) => [name, { values: [] }]));
  const bound = { values: [] };
  let failure;
  for (let i = 0; i < runs; i++) {
    const mine = await sides.ours.measure({ ...request, seconds });
    if (mine.reason !== undefined) {
      failure = mine.reason;
      break;
    }
    ours.push(valueOf(mine));
    for (const [name, other] of Object.entries(others)) {
      if (other.reason !== undefined) continue;
      const op = request.peerOp ?? request.op;
      const answer = await sides[name].measure({ ...request, op, seconds });
      if (answer.reason === undefined) other.values.push(valueOf(answer));
      else other.reason = answer.reason;
    }
    for (const limit of limitsOf(line)) {
      const answer = await sides.limits.measure({ ...limit.request, seconds: seconds / 2 });
      if (answer.reason === undefined)
        bound.values[i] = Math.max(bound.values[i] ?? 0, (((limit.work ?? answer.work) || 0) * limit.scale) / answer.seconds);
    }
  }
  const spread = (xs) => (xs.length === 0 ? null : { median: median(xs), min: Math.min(...xs), max: Math.max(...xs) });
  const against = ({ values }) => spread(values.map((value, i) => ours[i] / value));
  return {
    name: line.name,
    title: line.title,
    unit: line.unit,
    ours: spread(ours),
    ...(line.mostUs === undefined ? {} : { mostUs: line.mostUs }),
    ...(failure === undefined ? {} : { failure }),
    limit: line.limit === undefined ? null : { name: line.limit, ...spread(bound.values), ratio: against(bound) },
    peers: Object.fromEntries(
      Object.entries(others).map(([name, other]) => {
        const [floor = null, goal = null] = line.bounds[name] ?? [];
        return [name, { ...spread(other.values), ratio: against(other), floor, goal, reason: other.reason ?? null }];
      }),
    ),
  };
}

/** int8 is bounded by whichever unit of this processor is the faster. */
const limitsOf = ({ limit, request: { threads } }) =>
  limits.filter(
    ({ name, request }) =>
      request.threads === threads && (limit === "int8" ? ["vnni", "amx"].includes(name) : name === limit),
  );

const figure = (spread) => (spread?.median === undefined ? "-" : spread.median.toPrecision(4));
const ratio = (spread) => (spread === null || spread === undefined ? "-" : spread.median.toFixed(2));
const show = (row) =>
  row.ours === null
    ? `${row.title}: OUR SIDE FAILED: ${row.failure}`
    : `${row.title}: ours ${figure(row.ours)} ${row.unit}${Object.entries(row.peers)
        .map(([name, peer]) => `, ${titles[name]} ${figure(peer)} (${peer.reason ?? ratio(peer.ratio)})`)
        .join("")}`;

/** Each peer's cell: its figure, then ours over it with the spread. Where there are a floor and a goal, whether they are met. */
export function table(results) {
  const columns = PEERS.filter((name) => results.some(({ peers }) => peers[name] !== undefined));
  const isPlain = results.some(({ peers }) => peers.ours !== undefined);
  const cell = (peer) => {
    if (peer?.median === undefined) return "";
    const { median: middle, min, max } = peer.ratio;
    const { floor, goal } = peer;
    const verdict = floor === null ? "" : `; floor ${floor} ${middle < floor ? "MISSED" : "met"}, goal ${goal} ${middle < goal ? "missed" : "met"}`;
    return `${figure(peer)} (${middle.toFixed(2)}x, ${min.toFixed(2)} to ${max.toFixed(2)}${verdict})`;
  };
  const head = ["line", "unit", "ours", "of the limit", ...columns.map((name) => titles[name])];
  if (isPlain) head.push("our plain product");
  return [
    head,
    ...results.map((row) => [
      row.title,
      row.unit,
      row.ours === null ? "failed" : figure(row.ours),
      row.limit?.median === undefined ? (row.mostUs === undefined ? "-" : `to stay below ${row.mostUs}`) : `${ratio(row.limit.ratio)} of ${figure(row.limit)} (${row.limit.name})`,
      ...columns.map((name) => cell(row.peers[name])),
      ...(isPlain ? [cell(row.peers.ours)] : []),
    ]),
  ];
}

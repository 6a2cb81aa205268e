// Owns the runtime suite: for each line ours, peer, ours, peer … in turn, and what is made of the figures.
// Invariant: a ratio is the median of ratios of neighbours in time, so that a load that comes and goes hits both
// sides of it; minimum and maximum stand beside it.
import { loadavg } from "node:os";
import { lines } from "./lines.mjs";
import { findPeers } from "./sides.mjs";

/** Streams between processes still gain speed in their first second. */
const SECONDS = 2;
const SECONDS_QUICK = 0.4;
/** Of the measured stretch: enough to choose between the variants of a peer. */
const PILOT_SHARE = 0.5;

const median = (xs) => {
  const sorted = [...xs].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const load = () => Number(loadavg()[0].toFixed(2));

export const names = lines.map((line) => line.name);

export async function run({ runs, quick, only, hasPeers, progress }) {
  const chosen =
    only === undefined
      ? lines
      : lines.filter(({ name }) => only.some((each) => name === each || name.startsWith(`${each}-`)));
  const seconds = quick ? SECONDS_QUICK : SECONDS;
  const needs = new Set(
    hasPeers ? chosen.flatMap((line) => line.peers.map(({ side }) => side.needs)).filter(Boolean) : [],
  );
  const missing = findPeers(needs, progress);
  const results = [];
  const versions = {};
  for (const line of chosen) {
    const peers = hasPeers ? line.peers.map((peer) => ({ ...peer, reason: missing[peer.side.needs] })) : [];
    results.push(...(await measure({ line, peers, runs, seconds, versions, progress })));
  }
  return { results, versions, failed: results.some((row) => row.ours === null) };
}

async function measure({ line, peers, runs, seconds, versions, progress }) {
  const mine = [];
  let failure;
  const loadBefore = load();
  for (const peer of peers) await choose(peer, line, seconds);
  for (let i = 0; i < runs && failure === undefined; i++) {
    try {
      const { values, others } = await line.ours.start(seconds, []);
      mine.push(values);
      for (const peer of peers) if (peer.side.isWithin) (peer.values ??= []).push(others[peer.side.name]);
    } catch (error) {
      failure = error.message;
      break;
    }
    for (const peer of peers) {
      if (peer.reason !== undefined || peer.side.isWithin) continue;
      try {
        const { values, version } = await peer.side.start(seconds, peer.variant);
        (peer.values ??= []).push(renamed(values, peer.keys));
        versions[peer.side.name] = version;
        peer.version = version;
      } catch (error) {
        peer.reason = error.message;
      }
    }
    progress(
      `${line.name}, run ${i + 1}/${runs}: ours ${show(mine.at(-1), line)}${peers
        .map(
          (peer) =>
            `, ${peer.side.title} ${
              peer.reason === undefined ? show(peer.values.at(-1), line) : `not measured (${peer.reason})`
            }`,
        )
        .join("")}`,
    );
  }
  if (failure !== undefined) progress(`${line.name}: OUR SIDE FAILED: ${failure}`);
  const loads = [loadBefore, load()];
  const against = peers.length === 0 ? [undefined] : peers;
  return against.flatMap((peer) => line.rows.map((row, at) => rowOf({ line, row, at, mine, peer, failure, loads })));
}

/** The best of a peer's variants, by one short run each; that one is then measured. */
async function choose(peer, line, seconds) {
  if (peer.reason !== undefined) return;
  const { variants } = peer.side;
  peer.variant = variants[0];
  if (variants.length === 1) return;
  let best;
  for (const variant of variants) {
    try {
      const { values } = await peer.side.start(seconds * PILOT_SHARE, variant);
      const row = line.rows[0];
      const value = renamed(values, peer.keys)[row.key] * (row.isLower ? -1 : 1);
      if (best === undefined || value > best) [best, peer.variant] = [value, variant];
    } catch (error) {
      peer.reason = error.message;
      return;
    }
  }
}

const renamed = (values, keys) =>
  keys === undefined
    ? values
    : { ...values, ...Object.fromEntries(Object.entries(keys).map(([to, from]) => [to, values[from]])) };
const show = (values, { rows: [{ key, unit }] }) =>
  `${values[key] >= 100 ? Math.round(values[key]) : values[key].toFixed(2)} ${unit}`;

function rowOf({ line, row, at, mine, peer, failure, loads }) {
  const name = row.title === undefined ? line.title : `${line.title}, ${row.title}`;
  const each = mine.map((values) => values[row.key]);
  const theirs = (peer?.values ?? []).map((values) => values[row.key]);
  const pairs = theirs.map((value, i) => each[i] / value);
  const cpuPairs = (peer?.values ?? [])
    .map((values, i) => mine[i][row.cpuKey] / values[row.cpuKey])
    .filter(Number.isFinite);
  const [floor, goal] = [peer?.floor, peer?.goal].map((bound) => (Array.isArray(bound) ? bound[at] : bound) ?? null);
  const ratio = pairs.length > 0 ? median(pairs) : null;
  const spread = (prefix, xs, middle = median) =>
    xs.length === 0
      ? { [prefix]: null }
      : { [prefix]: middle(xs), [`${prefix}Min`]: Math.min(...xs), [`${prefix}Max`]: Math.max(...xs) };
  return {
    line: line.name,
    name,
    unit: row.unit,
    better: row.isLower ? "lower" : "higher",
    runs: each.length,
    ...spread("ours", each),
    ...spread("peer", theirs),
    ...spread("ratio", pairs),
    cpuRatio: cpuPairs.length > 0 ? median(cpuPairs) : null,
    peerName: peer === undefined ? null : `${peer.side.title}${peer.version === undefined ? "" : ` ${peer.version}`}`,
    peerVariant: peer?.variant?.join(" ") || null,
    floor,
    goal,
    isReached: ratio === null || floor === null ? null : row.isLower ? ratio <= floor : ratio >= floor,
    reason: failure ?? peer?.reason ?? (peer === undefined ? "peers left out" : null),
    load: loads,
  };
}

/** The table for people: one row a peer. */
export function table(results) {
  const number = (x) =>
    x === null || x === undefined
      ? "-"
      : x >= 1e6
        ? `${(x / 1e6).toFixed(2)} M`
        : x >= 1e4
          ? `${(x / 1e3).toFixed(0)} k`
          : x >= 100
            ? x.toFixed(0)
            : x.toFixed(2);
  const bound = (x, { better }) => (x === null ? "-" : `${better === "lower" ? "<=" : ">="}${x}`);
  return [
    ["line", "unit", "ours", "peer", "peer is", "ratio", "min", "max", "by CPU", "floor", "goal", "reached"],
    ...results.map((row) => [
      row.name,
      row.unit,
      number(row.ours),
      number(row.peer),
      row.peer === null
        ? (row.reason ?? "-")
        : `${row.peerName}${row.peerVariant === null ? "" : ` ${row.peerVariant}`}`,
      number(row.ratio),
      number(row.ratioMin),
      number(row.ratioMax),
      number(row.cpuRatio),
      bound(row.floor, row),
      bound(row.goal, row),
      row.isReached === null ? "-" : row.isReached ? "yes" : "NO",
    ]),
  ];
}

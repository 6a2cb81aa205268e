// Owns the convergence report: one HTML page out of the suite's JSON.
// Invariant: a page is its JSON shown; every figure on it is in the JSON, and it loads nothing.
import { COMPARED } from "./experiments.mjs";
import { barChart, escapeHtml, lineChart } from "./charts.mjs";

const percent = (x, digits = 2) => `${(x * 100).toFixed(digits)} %`;
const thousands = (x) => (x === 0 ? "0" : `${Number((x / 1000).toFixed(1))}k`);
const seconds = (x) => `${Number(x.toFixed(1))}`;
export const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

const losses = (run, x) => run.points.map((point) => [x(point), point.loss]);
const accuracies = (run, x) => run.evaluations.map((point) => [x(point), point.accuracy]);
const AXES = {
  samples: { of: (point) => point.samples, xLabel: "samples", format: thousands },
  time: { of: (point) => point.timeMs / 1000, xLabel: "simulated time (s)", format: seconds },
};
const YLABELS = { loss: "training loss, mean of the batches since the last point", accuracy: "test accuracy" };

function chart(title, results, what, axis) {
  const { of, xLabel, format } = AXES[axis];
  const series = results.map(({ name, runs }) => ({ name, points: (what === "loss" ? losses : accuracies)(runs[0], of) }));
  const ys = series.flatMap(({ points }) => points.map(([, y]) => y)).toSorted((a, b) => a - b);
  // the first points of a loss would press all that is of interest against the axis
  const yRange = what === "loss" ? [ys[0] * 0.95, ys[Math.floor(ys.length * 0.95)]] : [ys[Math.floor(ys.length * 0.05)], ys.at(-1)];
  return lineChart(title, series, {
    xLabel, yLabel: YLABELS[what], yRange: yRange[1] > yRange[0] ? yRange : undefined,
    format: { x: format, y: (y) => (what === "loss" ? y.toFixed(2) : percent(y, 0)) },
  });
}

function charts(results) {
  const named = (name) => results.filter((result) => result.name === name);
  const group = (name) => [...COMPARED[name].flatMap(named), ...results.filter((result) => result.group === name)];
  return [
    ["1, 2, 4 and 8 workers", group("workers")], ["Modes", group("modes")],
  ].filter(([, list]) => list.length > 0).map(([title, list]) => `<section><h2>${escapeHtml(title)}</h2><div class="charts">` +
    chart(`${title}: loss by samples`, list, "loss", "samples") + chart(`${title}: loss by time`, list, "loss", "time") +
    chart(`${title}: accuracy by samples`, list, "accuracy", "samples") + chart(`${title}: accuracy by time`, list, "accuracy", "time") +
    "</div></section>").join("");
}

function staleness(results) {
  const shown = results.filter(({ runs }) => runs[0].staleness.length > 2);
  if (shown.length === 0) return "";
  return `<section><h2>Staleness</h2><p>Share of gradients by the versions made between their pull and their push.</p><div class="charts">${
    shown.map(({ name, runs }) => {
      const counts = runs[0].staleness, all = counts.reduce((a, b) => a + b, 0);
      return barChart(name, counts.map((count, t) => ({ name: String(t), value: count / all })),
        { xLabel: "versions", yLabel: "share of gradients", format: (y) => percent(y, 0) });
    }).join("")}</div></section>`;
}

function table(results) {
  const rows = results.map((result) => {
    const [run] = result.runs;
    const verdict = result.withinGate === undefined ? "" : result.withinGate ? "<b class=\"yes\">yes</b>" : "<b class=\"no\">no</b>";
    return `<tr><th scope="row">${escapeHtml(result.name)}</th><td>${result.workers}</td><td>${percent(result.accuracy)}</td>` +
      `<td>${percent(result.accuracyMin)} - ${percent(result.accuracyMax)}</td><td>${result.points === null ? "" : result.points.toFixed(2)}</td><td>${verdict}</td>` +
      `<td>${seconds(run.timeMs / 1000)}</td><td>${result.speedup === null ? "" : `${result.speedup.toFixed(2)}x`}</td><td>${result.meanStaleness.toFixed(2)}</td>` +
      `<td>${run.dropped}</td><td>${(run.bytesPushed / run.samples).toFixed(0)}</td></tr>`;
  });
  const head = ["", "workers", "test accuracy", "of all seeds", "points to sequential", "within 0.5", "time (s)", "speed", "mean staleness", "dropped batches", "bytes pushed a sample"];
  return `<div class="scroll"><table><thead><tr>${head.map((title) => `<th scope="col">${title}</th>`).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table></div>`;
}

const STYLE = `
:root{color-scheme:light dark;--page:#fdfdfc;--ink:#1d2126;--soft:#666d75;--rule:#dfe2e5;--yes:#18794e;--no:#b42318;
--c0:#1d2126;--c1:#0b6bcb;--c2:#d1590a;--c3:#18794e;--c4:#a3389c;--c5:#b58a00;--c6:#c2255c;--c7:#0c8599}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--ink:#e6e8ea;--soft:#9aa2ab;--rule:#2d3238;--yes:#4cc38a;--no:#ff8a7a;
--c0:#e6e8ea;--c1:#5aa9f5;--c2:#f5934a;--c3:#4cc38a;--c4:#d58be0;--c5:#e5c04b;--c6:#f47ba3;--c7:#4fc3d9}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1240px;padding:2rem 1.25rem 4rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}p{max-width:75ch;margin:.4rem 0}
.soft,figcaption span{color:var(--soft)}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;margin:1rem 0}
th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}thead th{white-space:normal;color:var(--soft);font-weight:600;vertical-align:bottom}
th[scope=row]{text-align:left;font-weight:500}.yes{color:var(--yes)}.no{color:var(--no)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1.5rem}figure{margin:0}figcaption{font-size:.9rem}figure>svg{width:100%;height:auto;display:block}
.grid{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}.tick{fill:var(--soft);font-size:12px}.label{fill:var(--soft);font-size:12px}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.bar{fill:var(--c1)}.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.2rem 0 0;padding:0 0 0 .5rem;font-size:.85rem}
.key{width:24px;height:8px;margin-right:.45rem;vertical-align:middle}`;

/** `data`: what the suite's convergence part gives (see convergence/suite.mjs). */
export function renderReport(data) {
  const { setting, cluster, results } = data;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Convergence: many workers at equal samples</title><style>${STYLE}</style></head><body>
<header><h1>Convergence: many workers at equal samples</h1>
<p>${escapeHtml(setting.description)}. Every run sees each sample once an epoch: a gradient that a mode drops is computed again.
Accuracies are medians of ${setting.seeds.length} ${setting.seeds.length === 1 ? "seed" : "seeds"}; curves show seed ${setting.seeds[0]}.</p>
<p class="soft">Gradients, updates and rules are real. Time is simulated: every worker has a core of its own and a link of
${Number((cluster.bytesPerMs * 8 / 1e6).toFixed(2))} Gbit/s; a step takes ${cluster.stepMs} ms, varies by ${percent(cluster.deviation, 0)}, and ${percent(cluster.stragglerShare, 0)} of the steps
take ${cluster.stragglerFactor} times as long. Made on ${escapeHtml(data.date.slice(0, 10))}, ${escapeHtml(data.machine.cpu)}, ${escapeHtml(data.machine.isa)}, Node ${escapeHtml(data.machine.versions.node)}.</p></header>
<main>${table(results)}${charts(results)}${staleness(results)}</main></body></html>
`;
}

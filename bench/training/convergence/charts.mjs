// Owns charts as inline SVG: lines over a linear axis, bars. Invariant: no script, no network, colours by CSS
// variables alone (--c0 to --c7 and --ink, --soft), so that one page serves light and dark.
const WIDTH = 560, HEIGHT = 330;
const BOX = { left: 52, right: 14, top: 14, bottom: 44 };
export const COLORS = 8;
/** From the ninth series on, lines are dashed. */
const DASHES = ["", "6 4", "2 3"];

export const escapeHtml = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const round = (x) => Number(x.toFixed(2));

/** At most `count` round numbers from low to high. */
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(10)));
}

function frame(title, labels, [lowX, highX], [lowY, highY], format, body) {
  const { left, right, top, bottom } = BOX;
  const innerWidth = WIDTH - left - right, innerHeight = HEIGHT - top - bottom;
  const x = (value) => round(left + ((value - lowX) / (highX - lowX || 1)) * innerWidth);
  const y = (value) => round(top + innerHeight - ((value - lowY) / (highY - lowY || 1)) * innerHeight);
  const grid = ticks(lowY, highY, 6).map((value) =>
    `<line class="grid" x1="${left}" x2="${WIDTH - right}" y1="${y(value)}" y2="${y(value)}"/>` +
    `<text class="tick" x="${left - 8}" y="${y(value) + 4}" text-anchor="end">${format.y(value)}</text>`);
  const scale = ticks(lowX, highX, 6).map((value) =>
    `<line class="grid" x1="${x(value)}" x2="${x(value)}" y1="${top + innerHeight}" y2="${top + innerHeight + 5}"/>` +
    `<text class="tick" x="${x(value)}" y="${top + innerHeight + 19}" text-anchor="middle">${format.x(value)}</text>`);
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">${grid.join("")}${scale.join("")}` +
    `<line class="axis" x1="${left}" x2="${WIDTH - right}" y1="${top + innerHeight}" y2="${top + innerHeight}"/>` +
    `<text class="label" x="${left + innerWidth / 2}" y="${HEIGHT - 6}" text-anchor="middle">${escapeHtml(labels.x)}</text>` +
    `${body(x, y)}</svg>`;
}

/** `series`: {name, points: [[x, y], ...]}; figure with caption and legend. `y` may name a range to show. */
export function lineChart(title, series, { xLabel, yLabel, format, yRange }) {
  const all = series.flatMap(({ points }) => points);
  if (all.length === 0) return "";
  const xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  const range = yRange ?? [Math.min(...ys), Math.max(...ys)];
  const clip = `clip-${title.replace(/[^a-z0-9]/gi, "")}`;
  const style = (i) => `style="stroke:var(--c${i % COLORS})" stroke-dasharray="${DASHES[Math.floor(i / COLORS) % DASHES.length]}"`;
  const svg = frame(title, { x: xLabel }, [Math.min(0, ...xs), Math.max(...xs)], range, format, (x, y) =>
    `<clipPath id="${clip}"><rect x="${BOX.left}" y="${BOX.top}" width="${WIDTH - BOX.left - BOX.right}" height="${HEIGHT - BOX.top - BOX.bottom}"/></clipPath>` +
    `<g clip-path="url(#${clip})">${series.map(({ name, points }, i) =>
      `<polyline class="line" ${style(i)} points="${points.map(([px, py]) => `${x(px)},${y(py)}`).join(" ")}"><title>${escapeHtml(name)}</title></polyline>`).join("")}</g>`);
  const legend = series.map(({ name }, i) =>
    `<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><line class="line" ${style(i)} x1="0" x2="24" y1="4" y2="4"/></svg>${escapeHtml(name)}</li>`).join("");
  return `<figure><figcaption><b>${escapeHtml(title)}</b> <span>${escapeHtml(yLabel)}</span></figcaption>${svg}<ul class="legend">${legend}</ul></figure>`;
}

/** `bars`: {name, value}; one bar each, labelled below. */
export function barChart(title, bars, { xLabel, yLabel, format }) {
  const high = Math.max(...bars.map(({ value }) => value), 1e-9);
  const svg = frame(title, { x: xLabel }, [-0.6, bars.length - 0.4], [0, high], { y: format, x: (value) => bars[value]?.name ?? "" }, (x, y) => {
    const width = Math.min(40, (x(1) - x(0)) * 0.7);
    return bars.map(({ name, value }, i) => `<rect class="bar" x="${round(x(i) - width / 2)}" y="${y(value)}" width="${round(width)}" ` +
      `height="${round(y(0) - y(value))}"><title>${escapeHtml(`${name}: ${format(value)}`)}</title></rect>`).join("");
  });
  return `<figure><figcaption><b>${escapeHtml(title)}</b> <span>${escapeHtml(yLabel)}</span></figcaption>${svg}</figure>`;
}

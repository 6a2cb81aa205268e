// The convergence report in its quick form: every variant trains, the page is whole and loads nothing, its figures are
// those of its JSON and are plausible. Simulated time: what comes first, and what comes twice.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

interface Run {
  accuracy: number; batches: number; dropped: number; samples: number; updates: number; timeMs: number; bytesPushed: number;
  staleness: number[]; points: { samples: number; timeMs: number; loss: number }[]; evaluations: { samples: number; accuracy: number }[];
}
interface Result { name: string; group: string; workers: number; accuracy: number; speedup: number; meanStaleness: number; withinGate?: boolean; runs: Run[] }
interface Data { results: Result[]; setting: { seeds: number[] } }

const at = (name: string): string => new URL(`../../bench/training/convergence/${name}.mjs`, import.meta.url).href;
const folder = mkdtempSync(join(tmpdir(), "tesra-convergence-"));
const page = join(folder, "report.html");
let data: Data;

beforeAll(async () => {
  const { runConvergence } = await import(at("suite")) as { runConvergence: (options: object) => Promise<Data> };
  data = await runConvergence({ quick: true, progress: () => undefined, reportPath: page });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const run = (name: string): Run => data.results.find((result) => result.name === name)!.runs[0]!;

describe("every variant", () => {
  it("trains on each sample exactly once an epoch, whatever it drops", () => {
    expect(data.results.length).toBe(7);
    for (const { name, workers, runs } of data.results) {
      for (const each of runs) {
        expect([name, each.samples, each.batches]).toEqual([name, 4096, 64]);
        expect(each.points.every(({ loss }) => Number.isFinite(loss) && loss > 0)).toBe(true);
        expect(each.points.every(({ timeMs }, i) => i === 0 || timeMs >= each.points[i - 1]!.timeMs)).toBe(true);
        expect(each.evaluations.at(-1)!.samples).toBe(4096);
        // a core each: no more than `workers` times the steps of one fit into the time
        expect(each.timeMs * workers).toBeGreaterThan(64 * 25 * 0.7);
      }
    }
  });

  it("does what its mode says", () => {
    expect(run("sequential")).toMatchObject({ updates: 64, dropped: 0, staleness: [64] });
    expect(run("async, 4 workers").staleness.reduce((sum, count) => sum + count, 0)).toBe(64);
    expect(run("async, 8 workers").staleness.length).toBeGreaterThan(4);
    expect(run("async, 8 workers").staleness.length).toBeLessThanOrEqual(9);
    expect(run("async, 4 workers").timeMs).toBeLessThan(run("sequential").timeMs / 2);
  });

  it("learns, one worker better than chance by far", () => {
    expect(run("sequential").accuracy).toBeGreaterThan(0.6); // 0.97 measured; chance is 0.1
    expect(run("async, 1 worker").accuracy).toBeGreaterThan(0.6);
  });
});

describe("the page", () => {
  it("is whole, loads nothing, and shows the figures of its JSON", () => {
    const html = readFileSync(page, "utf8");
    expect(html.startsWith("<!doctype html>")).toBe(true);
    expect(html).not.toMatch(/<script|<link|<img|url\((?!#)|@import|\b(?:src|href)=|NaN|undefined|Infinity/);
    const open: string[] = [];
    for (const [, slash, name, rest] of html.slice(15).matchAll(/<(\/?)([a-zA-Z0-9]+)([^>]*)>/g)) {
      if (slash) expect(open.pop()).toBe(name);
      else if (!rest!.endsWith("/") && name !== "meta") open.push(name!);
    }
    expect(open).toEqual([]);
    const json = JSON.parse(readFileSync(page.replace(".html", ".json"), "utf8")) as Data;
    expect(json.results.map(({ name }) => name)).toEqual(data.results.map(({ name }) => name));
    for (const { name, accuracy } of json.results) {
      expect(html).toContain(`<th scope="row">${name}</th>`);
      expect(html).toContain(`<td>${(accuracy * 100).toFixed(2)} %</td>`);
    }
    expect(html.match(/<svg viewBox="0 0 560/g)!.length).toBeGreaterThanOrEqual(8);
  });

  it("shows names as text", async () => {
    const { lineChart } = await import(at("charts")) as { lineChart: (title: string, series: object[], options: object) => string };
    const chart = lineChart("<b>", [{ name: "<i>", points: [[0, 1], [1, 1]] }], { xLabel: "&", yLabel: "", format: { x: String, y: String } });
    expect(chart).toContain("&lt;i&gt;");
    expect(chart).not.toMatch(/<i>|<b><b>|NaN/);
  });
});

describe("simulated time", () => {
  it("wakes one sleeper at a time, in order, after all work before it", async () => {
    const { VirtualClock } = await import(at("virtual-clock")) as { VirtualClock: new () => {
      nowMs: number; sleep: (ms: number) => Promise<void>; busy: <T>(work: () => Promise<T>) => Promise<T>; run: () => Promise<void>;
    } };
    const clock = new VirtualClock();
    const log: string[] = [];
    const sleeper = async (name: string, ms: number): Promise<void> => {
      await clock.sleep(ms);
      log.push(`${name} ${clock.nowMs}`);
      await clock.busy(() => new Promise((done) => { setImmediate(() => setImmediate(done)); }));
      log.push(`${name} done`);
    };
    void sleeper("late", 20);
    void sleeper("first", 10);
    void sleeper("second", 10);
    await clock.run();
    expect(log).toEqual(["first 10", "first done", "second 10", "second done", "late 20", "late done"]);
  });
});

// Enforces the rules of docs/architecture.md: who may import whom, no cycles, no barrels, clean domains,
// public entries that do nothing at import.
import { execFile } from "node:child_process";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "..");
const src = join(root, "src");

function filesBelow(dir: string): string[] {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    if (statSync(path).isDirectory()) return filesBelow(path);
    return path.endsWith(".ts") ? [path] : [];
  });
}

interface Source { path: string; name: string; text: string; code: string; imports: { target: string; typeOnly: boolean }[]; packages: string[] }

const sources: Source[] = filesBelow(src).map((path) => {
  const text = readFileSync(path, "utf8");
  const imports: Source["imports"] = [];
  const packages: string[] = [];
  const pattern = /(?:^|\n)\s*(import|export)\s+(type\s+)?(?:[^"';]*?\sfrom\s+)?["']([^"']+)["']|import\(\s*["']([^"']+)["']\s*\)/g;
  for (const match of text.matchAll(pattern)) {
    const target = match[3] ?? match[4]!;
    if (target.startsWith(".")) {
      imports.push({ target: relative(src, resolve(dirname(path), target)).replace(/\.js$/, ".ts"), typeOnly: Boolean(match[2]) });
    } else packages.push(target);
  }
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:])\/\/.*$/gm, "$1");
  return { path, name: relative(src, path), text, code, imports, packages };
});

const areaOf = (name: string) => (name.includes("/") ? name.slice(0, name.indexOf("/")) : "index");

/** What each area may import besides itself. */
const MAY_IMPORT: Record<string, string[]> = {
  index: ["runtime", "chain", "training", "scheduler", "data", "device", "actors"],
  device: [],
  runtime: [],
  chain: ["device"],
  training: ["device"],
  scheduler: ["device"],
  data: ["device"],
  actors: ["device", "runtime", "chain", "training", "scheduler", "data"],
  cli: ["device", "runtime", "chain", "training", "scheduler", "data", "actors"],
};

describe("architecture", () => {
  it("finds the sources", () => {
    expect(sources.length).toBeGreaterThan(50);
    expect(new Set(sources.map((source) => areaOf(source.name)))).toEqual(new Set(Object.keys(MAY_IMPORT)));
  });

  it("imports only along the allowed arrows", () => {
    const wrong = sources.flatMap((source) => {
      const area = areaOf(source.name);
      return source.imports
        .filter(({ target }) => areaOf(target) !== area && !MAY_IMPORT[area]?.includes(areaOf(target)))
        .map(({ target }) => `${source.name} -> ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  it("keeps runtime/wire below everything else of the runtime", () => {
    const wrong = sources.filter((source) => source.name.startsWith("runtime/wire/"))
      .flatMap((source) => source.imports.filter(({ target }) => !target.startsWith("runtime/wire/"))
        .map(({ target }) => `${source.name} -> ${target}`));
    expect(wrong).toEqual([]);
  });

  it("keeps sockets, timers, clocks and chance out of the domains", () => {
    const banned = /\b(?:Date\.now|performance\.now|Math\.random|setTimeout|setInterval|setImmediate)\b/;
    const sockets = ["zeromq", "node:net", "node:http", "node:https", "node:dgram", "node:timers", "node:timers/promises", "ws", "hono"];
    const wrong = sources.filter((source) => ["chain", "training", "scheduler", "data"].includes(areaOf(source.name)))
      .flatMap((source) => [
        ...(banned.test(source.code) ? [`${source.name}: ${banned.exec(source.code)![0]}`] : []),
        ...source.packages.filter((name) => sockets.includes(name)).map((name) => `${source.name}: ${name}`),
      ]);
    expect(wrong).toEqual([]);
  });

  it("has no import cycle", () => {
    const graph = new Map(sources.map((source) => [source.name, source.imports.filter((i) => !i.typeOnly).map((i) => i.target)]));
    const state = new Map<string, "open" | "done">();
    const cycles: string[] = [];
    const visit = (name: string, trail: string[]): void => {
      if (state.get(name) === "done" || !graph.has(name)) return;
      if (state.get(name) === "open") { cycles.push([...trail.slice(trail.indexOf(name)), name].join(" -> ")); return; }
      state.set(name, "open");
      for (const next of graph.get(name)!) visit(next, [...trail, name]);
      state.set(name, "done");
    };
    for (const name of graph.keys()) visit(name, []);
    expect(cycles).toEqual([]);
  });

  it("has no barrel but the public entries and no utils folder", () => {
    const entries = new Set(["index.ts", "runtime/index.ts", "chain/index.ts", "training/index.ts", "scheduler/index.ts"]);
    const barrels = sources.filter((source) => !entries.has(source.name) &&
      (source.name.endsWith("/index.ts") || (/export \* from/.test(source.code)))).map((source) => source.name);
    expect(barrels).toEqual([]);
    expect(sources.filter((source) => /(^|\/)(utils?|helpers?|misc)\//.test(source.name)).map((s) => s.name)).toEqual([]);
  });

  it("names files in kebab-case and starts each with what it owns", () => {
    const wrong = sources.filter((source) => !/^[a-z0-9-]+(\.[a-z]+)*\.ts$/.test(source.name.split("/").pop()!) ||
      !/^(#!.*\n)?(\/\/|\/\*)/.test(source.text)).map((source) => source.name);
    expect(wrong).toEqual([]);
  });
});

describe("public entries", () => {
  const { exports: entries } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as
    { exports: Record<string, { types: string; default: string }> };

  it("are the documented seven", () => {
    expect(Object.keys(entries)).toEqual([".", "./runtime", "./shared-memory", "./chain", "./training", "./cluster", "./scheduler"]);
  });

  it.each(Object.entries(entries))("%s is built and does nothing when it is imported", { timeout: 40_000 }, async (name, { types, default: file }) => {
    expect([types, file].filter((path) => !existsSync(join(root, path)))).toEqual([]);
    const specifier = `tesra-supernet${name.slice(1)}`;
    // reads of the module loader, and stdio that was asked whether it is a terminal, are listed too: only what
    // would live on counts. zod keeps its registry in the global object
    const script = `const held = () => process.getActiveResourcesInfo()
        .filter((each) => /Timeout|Immediate|TCP|UDP|Server|Worker|Process|Watcher|FSEvent|Signal/.test(each));
      const before = held(), globals = new Set(Object.getOwnPropertyNames(globalThis));
      const names = Object.keys(await import(${JSON.stringify(specifier)}));
      const left = held().slice(before.length);
      const added = Object.getOwnPropertyNames(globalThis).filter((each) => !globals.has(each) && !each.startsWith("__zod_"));
      console.log(JSON.stringify({ names: names.length, left, added }));`;
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script],
      { cwd: root, timeout: 30_000, env: { ...process.env, NODE_OPTIONS: "" } });
    expect(stderr).toBe("");
    const seen = JSON.parse(stdout) as { names: number; left: string[]; added: string[] };
    expect(seen.names).toBeGreaterThan(0);
    expect({ left: seen.left, added: seen.added }).toEqual({ left: [], added: [] });
  });
});

// scripts/setup.mjs on a small tree whose tools are fakes that write down when they ran.
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
let clone: string;

/** A tool that runs for a while, writes its start and end to tools.log, and does `work` in between. */
const fake = (name: string, work = "") => `
  const fs = require("fs"), path = require("path"), root = ${JSON.stringify(clone)};
  const put = (file, text) => { fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true }); fs.writeFileSync(path.join(root, file), text); };
  fs.appendFileSync(path.join(root, "tools.log"), "${name} start\\n");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  ${work}
  fs.appendFileSync(path.join(root, "tools.log"), "${name} end\\n");`;
const asModule = (script: string) => `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);${script}`;

function write(file: string, text: string): void {
  mkdirSync(dirname(join(clone, file)), { recursive: true });
  writeFileSync(join(clone, file), text);
}

beforeEach(() => {
  clone = mkdtempSync(join(tmpdir(), "tesra-setup-"));
  mkdirSync(join(clone, "scripts"));
  copyFileSync(join(root, "scripts/setup.mjs"), join(clone, "scripts/setup.mjs"));
  write("package.json", "{}");
  write("package-lock.json", "{}");
  write("src/index.ts", "export {};");
  const tsc = fake("tsc", `
    put("dist/cli/main.js", ""); put("dist/index.js", "");
    put("dist/cli/dataset.js", "exports.prepareFashionMnist = async () => 'here';");
    for (const file of ["dist/cli/main.js", "dist/index.js", "dist/cli/dataset.js"]) console.log("TSFILE: " + path.join(root, file));`);
  write("fake-npm.js", fake("npm", `put("node_modules/typescript/lib/tsc.js", ${JSON.stringify(tsc)});`));
  write("scripts/build-native.mjs", asModule(fake("native")));
  write("scripts/build-contracts.mjs", asModule(fake("contracts", `put("src/chain/contracts/generated/artifacts.json", "{}");`)));
});
afterEach(() => rmSync(clone, { recursive: true, force: true }));

const env = () => ({ ...process.env, npm_execpath: join(clone, "fake-npm.js") });
const setup = (...flags: string[]) => spawnSync(process.execPath, ["scripts/setup.mjs", ...flags], { cwd: clone, env: env(), encoding: "utf8" });
const log = (): string[] => readFileSync(join(clone, "tools.log"), "utf8").trim().split("\n");
const runs = (name: string): number => log().filter((line) => line === `${name} start`).length;

describe("set-up", () => {
  it("does every step once, and none again while nothing has changed", () => {
    expect(setup()).toMatchObject({ status: 0 });
    expect(log().filter((line) => line.endsWith("start"))).toEqual(["npm start", "native start", "contracts start", "tsc start"]);
    const second = setup("--quiet");
    expect([second.status, second.stdout, second.stderr]).toEqual([0, "", ""]);
    expect([runs("npm"), runs("contracts"), runs("tsc")]).toEqual([1, 1, 1]);
    expect(existsSync(join(clone, "dist/chain/contracts/generated/artifacts.json"))).toBe(true);
  });

  it("compiles again after an edit, and removes what has no source any more", () => {
    setup();
    write("dist/gone/old.js", "");
    write("src/index.ts", "export const edited = 1;");
    expect(setup().status).toBe(0);
    expect([runs("npm"), runs("contracts"), runs("tsc")]).toEqual([1, 1, 2]);
    expect([existsSync(join(clone, "dist/gone")), existsSync(join(clone, "dist/index.js"))]).toEqual([false, true]);
  });

  it("a step that fails is told in one sentence, leaves no lock, and runs again", () => {
    write("fake-npm.js", "console.error('npm error the registry is away'); process.exit(1);");
    const failed = setup();
    expect(failed.status).toBe(1);
    expect(failed.stderr).toMatch(/npm error the registry is away\nsetup {2}failed: .*exit 1\. Check that the npm registry can be reached/);
    expect(existsSync(join(clone, ".cache/setup.lock"))).toBe(false);
    write("fake-npm.js", fake("npm", `put("node_modules/typescript/lib/tsc.js", "process.exit(3)");`));
    expect(setup().stderr).toMatch(/tsc\.js .*exit 3/);
    expect(runs("npm")).toBe(1);
  });

  it("two at once wait for each other", { timeout: 30_000 }, async () => {
    const both = [0, 1].map(() => new Promise<{ code: number | null; stderr: string }>((done) => {
      const child = spawn(process.execPath, ["scripts/setup.mjs"], { cwd: clone, env: env(), stdio: ["ignore", "ignore", "pipe"] });
      let stderr = "";
      child.stderr.on("data", (chunk: Buffer) => { stderr += chunk.toString(); });
      child.on("close", (code) => done({ code, stderr }));
    }));
    const ends = await Promise.all(both);
    expect(ends.map(({ code }) => code)).toEqual([0, 0]);
    expect(ends.filter(({ stderr }) => stderr.includes("waiting for another set-up")).length).toBeLessThanOrEqual(1);
    expect([runs("npm"), runs("contracts"), runs("tsc")]).toEqual([1, 1, 1]);
    log().forEach((line, i, all) => { if (i % 2 === 0) expect(all[i + 1]).toBe(line.replace("start", "end")); });
  });

  it("takes over the lock of an owner that died", () => {
    const dead = spawnSync(process.execPath, ["-e", ""]).pid;
    write(".cache/setup.lock/pid", String(dead));
    expect(setup().status).toBe(0);
  });
});

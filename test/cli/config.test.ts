import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadSettings, unknownVariables, type Flags } from "../../src/cli/config.js";
import { UserError } from "../../src/cli/errors.js";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "tesra-config-"));
  for (const folder of ["etc", "home/.config/tesra", "project"]) {
    mkdirSync(join(root, folder), { recursive: true });
  }
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const FILES = {
  system: "etc/config.toml", user: "home/.config/tesra/config.toml", project: "project/tesra.toml",
};
const put = (where: keyof typeof FILES, text: string) => writeFileSync(join(root, FILES[where]), text);
const load = (env: Record<string, string> = {}, flags: Flags = {}) => loadSettings({
  env, cwd: join(root, "project"), home: join(root, "home"), systemFile: join(root, FILES.system),
}, flags);
/** The one sentence of the failure. */
function fault(env: Record<string, string> = {}, flags: Flags = {}): string {
  try {
    load(env, flags);
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    expect((error as Error).message).not.toMatch(/\n/);
    return (error as Error).message;
  }
  throw new Error("nothing was refused");
}

describe("precedence", () => {
  it("is flags > environment > project > user > system > defaults, key by key", () => {
    expect(load().rpc).toBe("http://127.0.0.1:8545");
    const layers: [() => void, string][] = [
      [() => put("system", 'rpc = "http://system"\noutput = "json"'), "http://system"],
      [() => put("user", 'rpc = "http://user"'), "http://user"],
      [() => put("project", 'rpc = "http://project"'), "http://project"],
    ];
    for (const [write, rpc] of layers) {
      write();
      expect(load()).toMatchObject({ rpc, output: "json" });
    }
    expect(load({ TESRA_RPC: "http://env" }).rpc).toBe("http://env");
    expect(load({ TESRA_RPC: "http://env" }, { rpc: "http://flag" }).rpc).toBe("http://flag");
  });

  it("merges the keys of [device], and reads a number from the environment", () => {
    put("system", "[device]\nthreads = 3\nbackend = \"cuda\"");
    put("project", '[device]\nbackend = "cpu"');
    expect(load().device).toEqual({ backend: "cpu", threads: 3 });
    expect(load({ TESRA_DEVICE_THREADS: "7" }).device).toEqual({ backend: "cpu", threads: 7 });
  });

  it("--settings stands in for the project's file", () => {
    put("project", 'account = "project"');
    writeFileSync(join(root, "other.toml"), 'account = "other"');
    expect(load({}, { settings: join(root, "other.toml") }).account).toBe("other");
    expect(load({}, { settings: "../other.toml" }).account).toBe("other");
  });

  it("takes paths relative to where they are written", () => {
    put("project", 'dataDir = "run"');
    expect(load()).toMatchObject({
      dataDir: join(root, "project/run"), keystore: join(root, "project/run/keystore"),
    });
    put("user", 'keystore = "keys"');
    expect(load().keystore).toBe(join(root, "home/.config/tesra/keys"));
    expect(load({}, { dataDir: "flag" }).dataDir).toBe(join(root, "project/flag"));
    expect(load({ XDG_DATA_HOME: "/xdg" }).dataDir).toBe(join(root, "project/run"));
  });
});

describe("refusals are one sentence with file, key, expected and got", () => {
  it("unknown keys, at any depth", () => {
    put("project", 'rcp = "http://x"');
    expect(fault()).toMatch(/project\/tesra\.toml: key "rcp" is unknown: expected one of output, rpc/);
    put("project", "[device]\nthread = 2");
    expect(fault()).toMatch(/key "device\.thread" is unknown: expected one of backend, threads, gpu/);
  });

  it("wrong types and values", () => {
    const cases: [string, RegExp][] = [
      ["rpc = 8545", /key "rpc": expected a string, got 8545/],
      ['rpc = "localhost:8545"', /key "rpc": expected a URL such as .*, got "localhost:8545"/],
      ['output = "xml"', /key "output": expected one of table, json, ndjson, got "xml"/],
      ['dataDir = ""', /key "dataDir": expected a text that is not empty, got ""/],
      ['[device]\nthreads = "two"', /key "device\.threads": expected a number, got "two"/],
      ["[device]\nthreads = 1.5", /key "device\.threads": expected .*whole number, got 1\.5/],
      ["[device]\nthreads = 0", /key "device\.threads": expected at least 1, got 0/],
      ["device = 3", /key "device": expected an object, got 3/],
    ];
    for (const [text, sentence] of cases) {
      put("user", text);
      expect(fault()).toMatch(sentence);
      expect(fault()).toContain(FILES.user);
    }
  });

  it("broken TOML, by line and column", () => {
    put("system", 'rpc = "http://x"\noutput = ');
    expect(fault()).toMatch(/etc\/config\.toml, line 2, column \d+: not TOML/);
  });

  it("files that cannot be read", () => {
    expect(fault({}, { settings: "none.toml" })).toMatch(/cannot read the settings file .*none\.toml: it does not exist/);
    mkdirSync(join(root, FILES.project));
    expect(fault()).toMatch(/tesra\.toml: it is a folder/);
  });

  it("flags and variables, by their own names", () => {
    expect(fault({}, { output: "xml" })).toMatch(/^option --output: expected one of/);
    expect(fault({}, { dataDir: "" })).toMatch(/^option --data-dir: /);
    expect(fault({ TESRA_OUTPUT: "xml" })).toMatch(/^environment variable TESRA_OUTPUT: expected/);
    expect(fault({ TESRA_DEVICE_THREADS: "many" })).toMatch(/variable TESRA_DEVICE_THREADS: expected a number, got "many"/);
  });
});

it("points at variables that nothing reads", () => {
  expect(unknownVariables({ TESRA_RPC: "", TESRA_RCP: "", HOME: "", TESRA_X: "" }, ["TESRA_X"]))
    .toEqual(["TESRA_RCP"]);
});

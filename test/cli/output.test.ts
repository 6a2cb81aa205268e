import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { colorsFor } from "../../src/cli/colors.js";
import { Output, toJson, type OutputFormat } from "../../src/cli/output.js";

function open(format: OutputFormat, isTTY = false) {
  const stdout = new PassThrough();
  const stderr = Object.assign(new PassThrough(), { isTTY });
  const text = (stream: PassThrough) => String(stream.read() ?? "");
  return {
    output: new Output(format, { stdout, stderr }), out: () => text(stdout), err: () => text(stderr),
  };
}
const rows = [{ name: "a", value: 10n ** 30n }, { name: "b", value: 2n }];
const columns = [
  { title: "NAME", value: (row: (typeof rows)[0]) => row.name },
  { title: "VALUE", value: (row: (typeof rows)[0]) => row.value, align: "right" as const },
];

describe("output", () => {
  it("keeps every digit of a bigint and writes bytes as hex", () => {
    expect(toJson({ a: 10n ** 40n, b: Uint8Array.of(1, 255), c: [1n] }))
      .toBe(`{"a":"1${"0".repeat(40)}","b":"0x01ff","c":["1"]}`);
  });

  it("gives the same data as table, json and ndjson", () => {
    const json = open("json");
    json.output.list(rows, columns);
    expect(JSON.parse(json.out())).toEqual([{ name: "a", value: `1${"0".repeat(30)}` }, { name: "b", value: "2" }]);
    const lines = open("ndjson");
    lines.output.list(rows, columns);
    expect(lines.out().trim().split("\n").map((line) => JSON.parse(line).name)).toEqual(["a", "b"]);
    const table = open("table");
    table.output.list(rows, columns);
    expect(table.out()).toMatch(/NAME\s+VALUE\na\s+10{30}\nb\s+2\n/);
  });

  it("colours by the stream it writes to, not by the environment of a log", () => {
    const kept = { CI: process.env.CI, FORCE_COLOR: process.env.FORCE_COLOR };
    try {
      Object.assign(process.env, { CI: "true", FORCE_COLOR: "1" });
      expect(colorsFor(new PassThrough()).isColorSupported).toBe(false);
      expect(colorsFor(Object.assign(new PassThrough(), { isTTY: true })).isColorSupported).toBe(true);
    } finally {
      for (const [name, value] of Object.entries(kept)) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
  });

  it("sends data to stdout alone and the rest to stderr alone", () => {
    const { output, out, err } = open("json");
    output.note("note");
    const progress = output.progress("Work", 100);
    for (let i = 0; i <= 100; i += 1) progress.update(i);
    progress.stop("done");
    expect(out()).toBe("");
    const lines = err().trim().split("\n");
    expect(lines[0]).toBe("note");
    expect(lines.at(-1)).toBe("done");
    expect(lines.length).toBe(2 + 11); // a line at each tenth
    expect(lines.join("")).not.toMatch(/[\r\x1b]/);
  });

  it("animates only on a terminal", () => {
    const { output, err } = open("table", true);
    const progress = output.progress("Work", 3);
    progress.update(1);
    progress.stop();
    expect(err()).toContain("\r\x1b[2K");
  });

  it("never sends a control character from data to the terminal", () => {
    const { output, out } = open("table");
    output.record({ name: "evil\x1b[2J\u009b31m\r\nname" });
    expect(out()).toBe("name  evil\\x1b[2J\\x9b31m\\x0d\\x0aname\n");
  });
});

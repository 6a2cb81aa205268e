// docs/formats.md is true: it lists the operators that are read, and names only what the entry exports.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";
import * as entry from "../../src/training/index.js";

const text = readFileSync(resolve(import.meta.dirname, "../../docs/formats.md"), "utf8");

it("lists every ONNX operator", () => {
  expect(/<!-- operators -->\n(.*)\n<!-- end -->/.exec(text)![1]!.split(", ")).toEqual(entry.ONNX_OPERATORS);
});

it("names only what the entry exports", () => {
  const imported = [...text.matchAll(/import \{([^}]*)\} from "tesra-supernet\/training"/g)].flatMap((match) => match[1]!.split(",").map((name) => name.trim()));
  const named = [...text.matchAll(/`([a-z]\w+|[A-Z]\w+)(?:\(|\.|`)/g)].map((match) => match[1]!).filter((name) => /^(encode|decode|import|export|open|memory|gpt2|llama|byte|Bpe|Text|Token|Safetensors|safetensors[A-Z]|GPT2|LLAMA)/.test(name));
  expect(imported.length + named.length).toBeGreaterThan(20);
  expect([...imported, ...named].filter((name) => !(name in entry))).toEqual([]);
});

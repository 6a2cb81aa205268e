/** Text: tokens there and back, the choice among logits, and a model that says what it learned. */
import { afterAll, describe, expect, it } from "vitest";
import { openDevice } from "../../src/device/device.js";
import { compileLocalTraining } from "../../src/training/compile/compile.js";
import { compileFetches } from "../../src/training/compile/fetch.js";
import { initialParameters } from "../../src/training/compile/layout.js";
import { FetchPlan } from "../../src/training/fetch-plan.js";
import { PhiloxStream } from "../../src/training/graph/philox.js";
import { gpt2, llama } from "../../src/training/models.js";
import * as optim from "../../src/training/optimizer/optim.js";
import { sampleToken } from "../../src/training/text/sampling.js";
import { TextGenerator } from "../../src/training/text/text-generator.js";
import { BpeTokenizer, byteTokenizer } from "../../src/training/text/tokenizer.js";
import { LocalTrainStep } from "../../src/training/train-step.js";

const device = openDevice({ backend: "cpu" });
afterAll(() => device.close());

/** GPT-2's way to write a byte, from its definition: what prints is itself, the rest follow from 256. */
const shown: string[] = [];
{
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    shown.push(String.fromCodePoint(prints ? byte : next++));
  }
}
const MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "a a", "aa aa", "Ã ¤"];
const tokens = [...shown, ...MERGES.map((line) => line.replace(" ", "")), "<|endoftext|>"];
const vocabulary = JSON.stringify(Object.fromEntries(tokens.map((token, id) => [token, id])));
const bpe = BpeTokenizer.parse(vocabulary, `#version: 0.2\n${MERGES.join("\n")}\n`);
const names = (ids: Int32Array): string[] => Array.from(ids, (id) => tokens[id]!);

describe("byte pair encoding", () => {
  it("joins by rank, not across words, with the space before a word", () => {
    expect(names(bpe.encode("hello world"))).toEqual(["hello", "Ġworld"]);
    expect(names(bpe.encode("hell hello  world's"))).toEqual(["hell", "Ġ", "hello", "Ġ", "Ġworld", "'", "s"]);
    expect(names(bpe.encode("aaaaaaa"))).toEqual(["aaaa", "aa", "a"]);
    expect(names(bpe.encode("ä7 \n"))).toEqual(["Ã¤", "7", "Ġ", "Ċ"]);
    expect([bpe.vocabulary, bpe.idOf("<|endoftext|>"), bpe.idOf("none")]).toEqual([269, 268, undefined]);
    expect(bpe.encode("<|endoftext|>").includes(268)).toBe(false); // text makes no special tokens
    expect(bpe.decode([...bpe.encode("hello"), 268, 10])).toBe("hello<|endoftext|>\n");
  });

  it("gives every text back, and decodes any ids", () => {
    const random = new PhiloxStream(3n, 0), alphabet = ["a", "h", "e", "l", "o", " ", "  ", "\n", "ä", "日", "🙂", "'s", "9", "\u0000", "­", "!?", "\u0301"];
    for (let round = 0; round < 300; round++) {
      const text = Array.from({ length: random.below(40) }, () => alphabet[random.below(alphabet.length)]!).join("");
      expect(bpe.decode(bpe.encode(text))).toBe(text);
      expect(byteTokenizer.decode(byteTokenizer.encode(text))).toBe(text);
    }
    expect(() => bpe.decode([269])).toThrow(/no token 269 in 0..268/);
  });

  it("takes a word of 200,000 letters in a moment", () => {
    const start = process.cpuUsage().user, text = "a".repeat(200_000), ids = bpe.encode(text);
    expect([ids.length, bpe.decode(ids) === text]).toEqual([50_000, true]);
    expect((process.cpuUsage().user - start) / 1e6).toBeLessThan(10); // 0.5 s; by scanning for each join it takes minutes
  });

  it.each([
    ["no JSON", "{", "", /not JSON/],
    ["a list", "[]", "", /map tokens to ids/],
    ["a gap in the ids", '{"a":0,"b":2}', "", /"b" has the id 2; ids are 0 to 1/],
    ["an id twice", '{"a":0,"b":0}', "", /each once/],
    ["a missing byte", '{"a":0}', "", /no token for byte 0/],
    ["a merge of unknown tokens", vocabulary, "h e\nx yz", /line 2 of the merges, "x yz", names no two tokens/],
    ["a merge of three", vocabulary, "h e l", /line 1/],
  ])("refuses %s", (_, json, merges, message) => expect(() => BpeTokenizer.parse(json, merges)).toThrow(message));
});

describe("the choice of a token", () => {
  const logits = Float32Array.from([1, 3, 2, 3, -1]), weights = logits.map((x) => Math.exp(x));
  const shares = (options: Parameters<typeof sampleToken>[1], draws = 4000): number[] => {
    const random = new PhiloxStream(1n, 0), counts = [0, 0, 0, 0, 0];
    for (let i = 0; i < draws; i++) counts[sampleToken(logits, options, random)]! += 1 / draws;
    return counts;
  };
  const near = (got: number[], kept: number[], temperature = 1): void => {
    const total = kept.reduce((sum, id) => sum + weights[id]! ** (1 / temperature), 0);
    // 4,000 draws deviate by 0.008 at most: five of them
    got.forEach((share, id) => expect(Math.abs(share - (kept.includes(id) ? weights[id]! ** (1 / temperature) / total : 0)), `token ${id}`).toBeLessThan(0.04));
    for (let id = 0; id < 5; id++) if (!kept.includes(id)) expect(got[id]).toBe(0);
  };
  it("is by softmax, sharper when it is colder", () => {
    near(shares({}), [0, 1, 2, 3, 4]);
    near(shares({ temperature: 0.5 }), [0, 1, 2, 3, 4], 0.5);
    near(shares({ temperature: 3 }), [0, 1, 2, 3, 4], 3);
  });
  it("keeps the k likeliest, the lower id among equals, or those that make up p", () => {
    near(shares({ topK: 3 }), [1, 2, 3]);
    expect(shares({ topK: 1 })).toEqual([0, 1, 0, 0, 0].map((x) => (x ? expect.closeTo(1) : 0)));
    expect(shares({ temperature: 0 }, 10)[1]).toBeCloseTo(1);
    near(shares({ topP: 0.5 }), [1, 3]); // 0.41 each
    near(shares({ topP: 0.3 }), [1]);
    near(shares({ topP: 0.9 }), [1, 2, 3]);
    near(shares({ topK: 2, topP: 0.99 }), [1, 3]);
  });
  it("refuses what leaves nothing to choose", () => {
    const random = new PhiloxStream(1n, 0);
    expect(() => sampleToken(Float32Array.of(1, NaN), {}, random)).toThrow(/logit of token 1 is NaN/);
    expect(() => sampleToken(Float32Array.of(-Infinity, -Infinity), {}, random)).toThrow(/every token/);
    expect(sampleToken(Float32Array.of(-Infinity, 0, -Infinity), {}, random)).toBe(1);
    expect(sampleToken(Float32Array.of(0, Infinity), {}, random)).toBe(1);
  });
});

describe("generation", () => {
  const config = { vocabulary: 256, layers: 1, heads: 2, width: 32 }, context = 48;
  const model = (length: number): ReturnType<typeof gpt2> => gpt2({ ...config, length, context });
  const text = async (generator: TextGenerator, prompt: string, options: Parameters<TextGenerator["generate"]>[1]): Promise<string> => {
    const ids: number[] = [];
    for await (const id of generator.generate(byteTokenizer.encode(prompt), options)) ids.push(id);
    return byteTokenizer.decode(ids);
  };

  it("says what the model learned, past the context too; the same seed says the same", async () => {
    const song = "abcdefgh ".repeat(16), ids = byteTokenizer.encode(song), batch = 8, length = 32;
    const { graph, loss } = model(length);
    const step = new LocalTrainStep(device, compileLocalTraining(graph, { loss, batchSize: batch, optimizer: optim.adamW({ learningRate: 6e-3, beta1: 0.9, weightDecay: 0 }).descriptor }), initialParameters(graph, 1));
    for (let i = 0; i < 80; i++) {
      const starts = Array.from({ length: batch }, (_, row) => (i * 7 + row * 11) % (ids.length - length - 1));
      const rows = (shift: number): Int32Array => Int32Array.from(starts.flatMap((start) => [...ids.subarray(start + shift, start + shift + length)]));
      await step.run(rows(0), rows(1));
    }
    const parameters = step.parameters(), generator = new TextGenerator(device, { model, context, parameters });
    step.close();
    expect(await text(generator, "defg", { tokens: 12, temperature: 0 })).toBe("h abcdefgh a");
    expect(await text(generator, "defg", { tokens: 12, temperature: 0, stop: 32 })).toBe("h");
    const wild = { tokens: 24, temperature: 1.5, topK: 40, seed: 7 };
    const first = await text(generator, "cd", wild);
    expect(await text(generator, "cd", wild)).toBe(first);
    expect(await text(generator, "cd", { ...wild, seed: 8 })).not.toBe(first);
    expect(await text(generator, song.slice(0, 45), { tokens: 8, temperature: 0 })).toBe("abcdefgh"); // 45 + 8 > 48
    generator.close();
  });

  it.each([["GPT-2", model, 8], ["Llama", (length: number) => llama({ ...config, keyHeads: 1, hidden: 40, length }), 3]] as const)("%s: the next token's logits are the forward pass's last row", async (_, of, seed) => {
    const parameters = initialParameters(of(32).graph, seed), generator = new TextGenerator(device, { model: of, context, parameters });
    const tokens = Int32Array.from({ length: 40 }, (_, i) => (i * 37) % 256);
    for (const count of [1, 31, 32, 33, 40]) {
      const { graph, logits } = of(count), plan = new FetchPlan(device, compileFetches(graph, { fetches: [logits], batchSize: 1 }));
      const [all] = plan.runSync({ feeds: { tokens: tokens.slice(0, count) }, parameters });
      plan.close();
      const next = await generator.next(tokens.subarray(0, count)), last = (all as Float32Array).subarray(-256);
      next.forEach((logit, i) => expect(Math.abs(logit - last[i]!)).toBeLessThan(1e-6));
    }
    generator.close();
  });

  it("refuses an empty prompt, wrong options and tokens outside the vocabulary", async () => {
    const generator = new TextGenerator(device, { model, context, parameters: initialParameters(model(8).graph, 1) });
    await expect(generator.next([])).rejects.toThrow(/at least one token/);
    await expect(generator.next([256])).rejects.toThrow(/not in 0..255/);
    for (const options of [{ tokens: -1 }, { tokens: 1, temperature: -1 }, { tokens: 1, topK: 0 }, { tokens: 1, topP: 0 }, { tokens: 1, topP: 1.5 }]) {
      await expect(text(generator, "a", options)).rejects.toThrow(/must be/);
    }
    generator.close();
    const wrong = new TextGenerator(device, { model, context, parameters: new Float32Array(3) });
    await expect(wrong.next([1])).rejects.toThrow(/parameters, got 3/);
    wrong.close();
  });
});

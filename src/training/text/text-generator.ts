/**
 * Owns: text from a language model: the next token's logits by a forward plan that projects the last
 * position alone, and the loop that samples. Every token computes its whole context again, in plans
 * whose lengths double, so short texts do not pay for a long context; one plan is held at a time.
 * Invariant: the same parameters, prompt, options and seed give the same tokens on every CPU.
 */
import type { Device } from "../../device/device.js";
import { compileFetches } from "../compile/fetch.js";
import { TrainingError } from "../errors.js";
import { FetchPlan } from "../fetch-plan.js";
import { PhiloxStream } from "../graph/philox.js";
import type { LanguageModel } from "../models.js";
import { checkSampling, sampleToken, type SamplingOptions } from "./sampling.js";

export interface TextModel {
  /** The model on sequences of `length`; its parameters must not depend on it. */
  model(length: number): LanguageModel;
  /** The longest that it knows: of a longer text the last `context` tokens count. */
  context: number;
  /** The flat vector. */
  parameters: Float32Array;
}

export interface GenerateOptions extends SamplingOptions {
  /** At most so many. */
  tokens: number;
  /** Ends the text, and is not part of it. */
  stop?: number;
  /** Default 0. */
  seed?: number;
}

/** Below this a plan's fixed costs dominate. */
const LENGTH_MIN = 32;

export class TextGenerator {
  private plan?: FetchPlan;
  private length = 0;

  constructor(private readonly device: Device, private readonly options: TextModel) {}

  /** Logits of the token that follows `tokens` (at least one). */
  async next(tokens: ArrayLike<number>): Promise<Float32Array> {
    if (tokens.length === 0) throw new TrainingError("option", "a text begins with at least one token");
    const seen = Int32Array.from(tokens).subarray(-this.options.context), plan = this.planFor(seen.length);
    const padded = new Int32Array(this.length), last = new Float32Array(this.length);
    padded.set(seen); // what follows is not attended to
    last[seen.length - 1] = 1;
    const [logits] = await plan.run({ feeds: { tokens: padded, last } });
    return logits as Float32Array;
  }

  /** Yields token after token. */
  async *generate(prompt: ArrayLike<number>, options: GenerateOptions): AsyncGenerator<number, void> {
    checkSampling(options);
    if (!(Number.isInteger(options.tokens) && options.tokens >= 0)) {
      throw new TrainingError("option", `tokens must be a whole number, got ${options.tokens}`);
    }
    const random = new PhiloxStream(BigInt(options.seed ?? 0), 0), text = Array.from(prompt);
    for (let i = 0; i < options.tokens; i++) {
      const token = sampleToken(await this.next(text), options, random);
      if (token === options.stop) return;
      text.push(token);
      if (text.length > this.options.context) text.shift();
      yield token;
    }
  }

  close(): void {
    this.plan?.close();
    delete this.plan;
  }

  private planFor(tokens: number): FetchPlan {
    const { context, model, parameters } = this.options;
    let length = Math.min(LENGTH_MIN, context);
    while (length < tokens) length = Math.min(2 * length, context);
    if (this.plan !== undefined && this.length === length) return this.plan;
    this.close();
    const { graph, hidden, project } = model(length), width = hidden.shape[2]!;
    const last = graph.placeholder("last", [null, length, 1]);
    const logits = project(hidden.mul(last.expand([null, length, width])).sum([1]));
    const plan = new FetchPlan(this.device, compileFetches(graph, { fetches: [logits], batchSize: 1 }));
    try {
      plan.setParameters(parameters);
    } catch (error) {
      plan.close();
      throw error;
    }
    this.length = length;
    return (this.plan = plan);
  }
}

// Mutated canonical jobs: every one is parsed or refused with a JobError, in time. TESRA_FUZZ_CASES for a longer run.
import { expect, it } from "vitest";
import { canonicalJob, JobError, MODELS, optim, parseJob } from "../../../src/training/index.js";

const CASES = Number(process.env.TESRA_FUZZ_CASES ?? 1_500);
/** A job of these sizes parses in 2 ms; the rest is for a loaded machine, and still no hang. */
const CASE_MS_MAX = 5_000;
const VALUES: unknown[] = [
  null, -1, 0, 0.5, 1e308, 2 ** 31, 2 ** 53, "", "relu", "__proto__", "x".repeat(1_000), [], {}, [[]], [-1], [2 ** 31 - 1, 2 ** 31 - 1], true,
  { kind: "zeros" }, { kind: "constructor" },
];

it("parses or refuses every mutation of a job", () => {
  let state = 20_261_122;
  const random = (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  const { loss, correct } = MODELS.cnn();
  const text = canonicalJob({ operation: optim.adam({ learningRate: 1e-3 }).minimize(loss, { mode: "async", correct }), run: { batchSize: 16, epochs: 1, seed: 1 } });
  const mutate = (job: Record<string, unknown>): void => {
    // most of a job is its nodes
    let at = (random(4) === 0 ? job : job.nodes) as Record<string, unknown>;
    for (;;) {
      const keys = Object.keys(at);
      const key = keys[random(keys.length)];
      if (key === undefined) return;
      const value = at[key];
      if (typeof value === "object" && value !== null && random(8) !== 0) {
        at = value as Record<string, unknown>;
        continue;
      }
      if (random(8) === 0) delete at[key];
      else at[key] = VALUES[random(VALUES.length)];
      return;
    }
  };
  const outcomes = { parsed: 0, refused: 0 };
  for (let i = 0; i < CASES; i += 1) {
    const job = JSON.parse(text) as Record<string, unknown>;
    for (let left = random(3); left >= 0; left -= 1) if (typeof job.nodes === "object" && job.nodes !== null) mutate(job);
    const mutated = JSON.stringify(job), startMs = performance.now();
    try {
      parseJob(mutated);
      outcomes.parsed += 1;
    } catch (error) {
      expect(error, mutated).toBeInstanceOf(JobError);
      outcomes.refused += 1;
    }
    expect(performance.now() - startMs, mutated).toBeLessThan(CASE_MS_MAX);
  }
  // both kinds: a fuzz that only ever sees one tests little
  expect(outcomes.parsed).toBeGreaterThan(CASES / 100);
  expect(outcomes.refused).toBeGreaterThan(CASES / 2);
});

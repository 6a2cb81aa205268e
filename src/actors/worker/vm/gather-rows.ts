// Owns the copy of a batch's rows to where a plan reads them. Invariant: every index is checked before a byte moves.
import { TrainingError } from "../../../training/index.js";
import type { StepRows } from "./step-runner.js";

/**
 * Writes the picked rows one after another. Throws a TrainingError when the rows do not have the width, type or
 * number of labels that the plan reads.
 */
export function gatherRows(
  rows: StepRows, picked: Uint32Array, inputs: Uint8Array | Int32Array, labels: Uint8Array | Int32Array,
): void {
  const fail = (message: string): never => {
    throw new TrainingError("batch-size", message);
  };
  const { images, labels: all } = rows;
  const width = images.length / rows.rows, rowLabels = all.length / rows.rows;
  if (picked.length * width !== inputs.length || picked.length * rowLabels !== labels.length) {
    fail(`${picked.length} rows of ${width} elements and ${rowLabels} labels do not fill a batch of ` +
      `${inputs.length} elements and ${labels.length} labels`);
  }
  if (images instanceof Uint8Array !== inputs instanceof Uint8Array) fail("the rows' elements are not of the type that the job reads");
  const missing = picked.find((row) => row >= rows.rows);
  if (missing !== undefined) fail(`there is no row ${missing}: the shard has ${rows.rows}`);
  for (let i = 0; i < picked.length; i += 1) {
    const row = picked[i]!;
    inputs.set(images.subarray(row * width, (row + 1) * width), i * width);
    if (rowLabels === 1) labels[i] = all[row]!;
    else labels.set(all.subarray(row * rowLabels, (row + 1) * rowLabels), i * rowLabels);
  }
}

/**
 * Owns what `--metrics-dir` writes: a task's figures as TensorBoard events and JSON lines, in one folder.
 * Invariant: a folder that cannot be written is refused before anything is paid; a disk that fills up
 * later ends the recording with one note, and never the task.
 */
import { join } from "node:path";
import type { ClientEvent } from "../actors/client/task-client.js";
import { combineMetrics, JsonLinesMetrics, recordTraining, TensorBoardMetrics, type MetricsSink } from "../training/index.js";
import { fileFault, oneLine } from "./errors.js";

export interface RunMetrics {
  take(event: ClientEvent): void;
  close(): void;
}

/** `title` describes the run; `note` tells the person. Throws UserError when the folder cannot be written. */
export function createRunMetrics(directory: string, title: string, note: (text: string) => void): RunMetrics {
  let sink: MetricsSink | undefined;
  try {
    const board = new TensorBoardMetrics({ directory, wallTimeMs: Date.now(), suffix: `supernet.${process.pid}` });
    sink = combineMetrics(board, new JsonLinesMetrics(join(directory, "metrics.jsonl")));
    sink.text("run", 0, title, Date.now());
  } catch (error) {
    throw fileFault("write metrics to", directory, error);
  }
  const close = (): void => {
    sink?.close();
    sink = undefined;
  };
  let step = 0;
  return {
    close,
    take: (event) => {
      try {
        if (sink) step = record(sink, event, step);
      } catch (error) {
        note(`no more metrics are written to ${directory}: ${oneLine((error as Error).message)}`);
        close();
      }
    },
  };
}

/** @returns the newest step: an evaluation has none of its own. */
function record(sink: MetricsSink, event: ClientEvent, step: number): number {
  const nowMs = Date.now();
  if (event.type === "progress") {
    const { progress, cost, samplesPerSecond, epoch } = event;
    const { version, loss, trainAccuracy, staleness, samples, stalePushes, duplicatePushes, rejectedPushes } = progress;
    if (version < step) return step; // a parameter server that came back from its checkpoint repeats itself
    recordTraining(sink, {
      step: version, epoch, samples, samplesPerSecond, cost, loss, trainAccuracy, stalenessCounts: staleness,
      stalePushes, duplicatePushes, rejectedPushes,
    }, nowMs);
    return version;
  }
  if (event.type === "evaluation") recordTraining(sink, { step, accuracy: event.accuracy, testLoss: event.loss }, nowMs);
  if (event.type === "task" && event.event.type === "worker-lost") {
    sink.text("events", step, `worker ${event.event.worker} was lost, ${event.event.samplesLeft} samples are left for the others`, nowMs);
  }
  return step;
}

/**
 * Owns: metrics on disk: TensorBoard event files and JSON lines.
 * Invariant: a record reaches the file in one append and nothing is ever rewritten, so a process that
 * is killed at any moment leaves a file that its readers take, with all that was recorded before.
 */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { TrainingError } from "../errors.js";
import {
  encodeHistogramEvent, encodeRecord, encodeScalarEvent, encodeTextEvent, encodeVersionEvent,
} from "./event-encoding.js";
import { checkHistogram, checkMetric, type HistogramCounts, type MetricsSink } from "./sink.js";

class AppendFile {
  private descriptor: number | undefined;

  constructor(readonly path: string) {
    this.descriptor = openSync(path, "a");
  }

  append(bytes: Uint8Array): void {
    if (this.descriptor === undefined) throw new TrainingError("option", `${this.path} is closed`);
    const written = writeSync(this.descriptor, bytes);
    if (written !== bytes.length) throw new TrainingError("format", `${this.path} took ${written} of ${bytes.length} bytes`);
  }

  close(): void {
    if (this.descriptor !== undefined) closeSync(this.descriptor);
    this.descriptor = undefined;
  }
}

export interface TensorBoardOptions {
  /** Made when it is missing. Each run gets a folder of its own: `tensorboard --logdir` shows them side by side. */
  directory: string;
  /** Start of the run, in the file's name and its first event. */
  wallTimeMs: number;
  /** Tells apart the files of several processes that write into one folder. */
  suffix?: string;
}

/** Event files as TensorFlow writes them: `tensorboard --logdir DIRECTORY` shows them, also while they grow. */
export class TensorBoardMetrics implements MetricsSink {
  readonly path: string;
  private readonly file: AppendFile;

  /** Throws the file system's error when the folder cannot be made or written. */
  constructor(options: TensorBoardOptions) {
    const { directory, wallTimeMs, suffix = "supernet" } = options;
    if (!/^[\w.-]{1,100}$/.test(suffix)) {
      throw new TrainingError("option", `the suffix of an event file has 1 to 100 letters, digits, ".", "_" or "-", got ${JSON.stringify(suffix)}`);
    }
    mkdirSync(directory, { recursive: true });
    const seconds = String(Math.floor(wallTimeMs / 1000)).padStart(10, "0");
    this.path = join(directory, `events.out.tfevents.${seconds}.${suffix}`);
    this.file = new AppendFile(this.path);
    this.write(encodeVersionEvent(wallTimeMs));
  }

  scalar(name: string, step: number, value: number, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    this.write(encodeScalarEvent(name, step, value, wallTimeMs));
  }

  histogram(name: string, step: number, histogram: HistogramCounts, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    checkHistogram(name, histogram);
    this.write(encodeHistogramEvent(name, step, histogram, wallTimeMs));
  }

  text(name: string, step: number, text: string, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    this.write(encodeTextEvent(name, step, text, wallTimeMs));
  }

  close(): void { this.file.close(); }

  private write(data: Uint8Array): void { this.file.append(encodeRecord(data)); }
}

/** One JSON object a line: {kind, name, step, wallTimeMs, value | counts, edges? | text}. */
export class JsonLinesMetrics implements MetricsSink {
  private readonly file: AppendFile;

  /** Appends to a file that is there. Throws the file system's error when it cannot be written. */
  constructor(path: string) { this.file = new AppendFile(path); }

  /** JSON has no NaN and no infinity: they are the strings "NaN", "Infinity" and "-Infinity". */
  scalar(name: string, step: number, value: number, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    this.write({ kind: "scalar", name, step, wallTimeMs, value: Number.isFinite(value) ? value : String(value) });
  }

  histogram(name: string, step: number, histogram: HistogramCounts, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    checkHistogram(name, histogram);
    const { counts, edges } = histogram;
    this.write({ kind: "histogram", name, step, wallTimeMs, counts, ...(edges && { edges }) });
  }

  text(name: string, step: number, text: string, wallTimeMs: number): void {
    checkMetric(name, step, wallTimeMs);
    this.write({ kind: "text", name, step, wallTimeMs, text });
  }

  close(): void { this.file.close(); }

  private write(record: object): void { this.file.append(Buffer.from(`${JSON.stringify(record)}\n`)); }
}

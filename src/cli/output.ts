/**
 * Owns what a command prints: data on stdout as table, json or ndjson; notes and progress on stderr.
 * Invariant: stdout holds data alone, so `-o json | jq` always works, and nothing is animated
 * unless stderr is a terminal.
 */
import Table from "cli-table3";
import { colorsFor, type Colors } from "./colors.js";

export const OUTPUT_FORMATS = ["table", "json", "ndjson"] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

export interface OutputStreams {
  readonly stdout: NodeJS.WritableStream & { isTTY?: boolean };
  readonly stderr: NodeJS.WritableStream & { isTTY?: boolean };
}

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => unknown;
  readonly align?: "left" | "right";
  /** Colours the finished text on a terminal. */
  readonly color?: (text: string, row: Row) => string;
}

/** A count that moves on: see Output.progress. */
export interface Progress {
  /** Sets the absolute position. */
  update(done: number, note?: string): void;
  stop(note?: string): void;
}

/** Without a terminal a progress line is written each tenth of the way: enough for a log. */
const PLAIN_PROGRESS_STEPS = 10;
/** A terminal is redrawn when the bar or the percentage moves, that is at most 100 times. */
const BAR_WIDTH = 28;

export class Output {
  /** For what goes to stdout. */
  readonly colors: Colors;

  constructor(readonly format: OutputFormat, private readonly streams: OutputStreams) {
    this.colors = colorsFor(streams.stdout);
  }

  /** One object: two columns in a table, one object in json. */
  record(value: object): void {
    if (this.format !== "table") return this.json(value);
    const entries = Object.entries(value).filter(([, v]) => v !== undefined);
    const width = Math.max(0, ...entries.map(([key]) => key.length));
    for (const [key, v] of entries) {
      this.write(`${this.colors.dim(key.padEnd(width))}  ${cell(v)}`);
    }
  }

  /** A list: a table with the given columns; json an array, ndjson a line for each. */
  list<Row extends object>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    if (this.format === "json") return this.json(rows);
    if (this.format === "ndjson") return rows.forEach((row) => this.json(row));
    const table = new Table({
      head: columns.map((column) => this.colors.bold(column.title)),
      colAligns: columns.map((column) => column.align ?? "left"),
      style: { head: [], border: [], "padding-left": 0, "padding-right": 2 },
      chars: NO_BORDERS,
    });
    for (const row of rows) {
      table.push(columns.map(({ value, color }) => {
        const text = cell(value(row));
        return color ? color(text, row) : text;
      }));
    }
    this.write(table.toString().split("\n").map((line) => line.trimEnd()).join("\n"));
  }

  /** A line of text that is the data itself (an address, a script), whatever the format. */
  text(line: string): void {
    this.write(line);
  }

  /** One event of a stream: a JSON line in json and ndjson, `line` in a table. */
  event(value: object, line: string): void {
    if (this.format === "table") this.write(line);
    else this.write(toJson(value));
  }

  /** Something for the person, on stderr. */
  note(text: string): void {
    this.streams.stderr.write(`${text}\n`);
  }

  /** Progress on stderr: a bar on a terminal, else a line at each tenth. */
  progress(label: string, total: number): Progress {
    const { stderr } = this.streams;
    const animated = stderr.isTTY === true;
    const steps = animated ? 100 : PLAIN_PROGRESS_STEPS;
    let shown = -1;
    let lastNote = "";
    const draw = (done: number, note = "", force = false) => {
      const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : 1;
      const step = Math.floor(share * steps);
      if (!force && step === shown && (!animated || note === lastNote)) return;
      [shown, lastNote] = [step, note];
      const percent = `${Math.floor(share * 100)}%`.padStart(4);
      const tail = note ? `  ${note}` : "";
      if (!animated) {
        stderr.write(`${label}${percent}${tail}\n`);
        return;
      }
      const full = Math.round(share * BAR_WIDTH);
      const bar = `${"█".repeat(full)}${"░".repeat(BAR_WIDTH - full)}`;
      stderr.write(`\r\x1b[2K${label} ${bar}${percent}${tail}`);
    };
    return {
      update: (done, note) => draw(done, note),
      stop: (note) => {
        if (animated) stderr.write("\r\x1b[2K");
        if (note) stderr.write(`${note}\n`);
      },
    };
  }

  private json(value: unknown): void {
    this.write(this.format === "json" ? toJson(value, 2) : toJson(value));
  }

  private write(text: string): void {
    this.streams.stdout.write(`${text}\n`);
  }
}

/** JSON in which a bigint is a decimal string and bytes are 0x-hex. */
export function toJson(value: unknown, indent?: number): string {
  return JSON.stringify(plain(value), null, indent);
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array) return `0x${Buffer.from(value).toString("hex")}`;
  if (Array.isArray(value)) return value.map(plain);
  if (value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, plain(v)]));
  }
  return value;
}

/** A value as text for a person. Control characters are shown, never sent to the terminal. */
function cell(value: unknown): string {
  if (value === undefined || value === null) return "-";
  const text = typeof value === "string" ? value
    : typeof value === "object" ? toJson(value).replace(/^"|"$/g, "") : String(value);
  return text.replace(CONTROL, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** C0 and C1 controls. */
const CONTROL = /[\x00-\x1f\x7f-\x9f]/g;

const NO_BORDERS = {
  top: "", "top-mid": "", "top-left": "", "top-right": "", bottom: "", "bottom-mid": "",
  "bottom-left": "", "bottom-right": "", left: "", "left-mid": "", mid: "", "mid-mid": "",
  right: "", "right-mid": "", middle: "",
};

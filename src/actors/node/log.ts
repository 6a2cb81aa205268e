// Owns the log lines of a node process: one line an event, on stderr.
import type { LogFields, Logger } from "../../runtime/index.js";

export function createLogger(name: string): Logger {
  const write = (level: string) => (message: string, fields?: LogFields): void => {
    const extra = fields && Object.keys(fields).length > 0 ? ` ${JSON.stringify(fields, plain)}` : "";
    process.stderr.write(`${new Date().toISOString()} ${level} ${name}: ${message}${extra}\n`);
  };
  return { debug: () => undefined, info: write("info"), warn: write("warn"), error: write("error") };
}

function plain(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return value.stack ?? value.message;
  return value;
}

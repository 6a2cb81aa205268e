// Owns when text is coloured: per stream, so data that is piped or logged never holds an escape sequence
// (picocolors alone judges stdout once for all streams, and colours whenever CI is set).
import pc from "picocolors";

export type Colors = ReturnType<typeof pc.createColors>;

/** Colours on a terminal, none elsewhere; NO_COLOR and FORCE_COLOR (https://no-color.org) decide for the process's own streams. */
export function colorsFor(stream: NodeJS.WritableStream & { isTTY?: boolean }): Colors {
  const own = stream === process.stdout || stream === process.stderr;
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
  if (own && NO_COLOR) return pc.createColors(false);
  if (own && FORCE_COLOR && FORCE_COLOR !== "0") return pc.createColors(true);
  return pc.createColors(stream.isTTY === true && TERM !== "dumb");
}

// Owns the flags of the runtime's own measuring commands: numbers with defaults, --json, --help.
import { parseArgs } from "node:util";

/**
 * `numbers` holds each flag's default. `--help` prints `usage` and ends; a flag that is not known, or not a number
 * above 0, ends with one sentence and exit code 2.
 */
export function readOptions(usage, numbers) {
  const fail = (text) => {
    console.error(`${text}\n${usage}`);
    process.exit(2);
  };
  const flags = Object.fromEntries(Object.keys(numbers).map((name) => [name, { type: "string" }]));
  let values;
  try {
    ({ values } = parseArgs({ options: { ...flags, json: { type: "boolean" }, help: { type: "boolean", short: "h" } } }));
  } catch (error) {
    fail(error.message);
  }
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const read = Object.entries(numbers).map(([name, fallback]) => {
    const value = values[name] === undefined ? fallback : Number(values[name]);
    if (!(value > 0 && value < 1e12)) fail(`--${name} expects a number above 0, got "${values[name]}".`);
    return [name, value];
  });
  return { ...Object.fromEntries(read), json: values.json === true };
}

/**
 * Owns the settings of the command line: their schema, where they come from and who wins.
 * Precedence: flags > environment (TESRA_*) > project ./tesra.toml (or --settings FILE) > user
 * ($XDG_CONFIG_HOME/tesra/config.toml) > /etc/tesra/config.toml > defaults.
 * Invariant: an unknown key, a wrong type or an unreadable file stops the command with one sentence
 * that names the file, the key, what was expected and what came. Nothing is skipped silently.
 */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import { fileFault, oneLine, UserError } from "./errors.js";
import { OUTPUT_FORMATS } from "./output.js";

const text = z.string().min(1);

export const SettingsSchema = z.strictObject({
  /** How data is printed. */
  output: z.enum(OUTPUT_FORMATS),
  /** JSON-RPC address of a chain node. */
  rpc: z.url({ protocol: /^https?$/ }),
  /** Folder for keys, stores and runs. */
  dataDir: text,
  /** Folder of keystore files; default <dataDir>/keystore. */
  keystore: text,
  /** Name or address of the account that commands use when none is named. */
  account: text,
  device: z.strictObject({
    backend: z.enum(["auto", "cpu", "cuda"]),
    threads: z.number().int().min(1).max(1_024),
    /** Opaque id of the CUDA device. */
    gpu: text,
  }).partial(),
}).partial();

export type SettingsLayer = z.infer<typeof SettingsSchema>;

/** All settings after defaults. */
export interface Settings {
  readonly output: (typeof OUTPUT_FORMATS)[number];
  readonly rpc: string;
  readonly dataDir: string;
  readonly keystore: string;
  readonly account?: string | undefined;
  readonly device: {
    readonly backend: "auto" | "cpu" | "cuda"; readonly threads?: number; readonly gpu?: string;
  };
}

export interface SettingsWorld {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  /** For tests; /etc/tesra/config.toml. */
  readonly systemFile?: string;
}

export interface Flags {
  readonly settings?: string;
  readonly output?: string;
  readonly rpc?: string;
  readonly dataDir?: string;
}

/** Environment variable of each setting. */
export const ENVIRONMENT = {
  TESRA_OUTPUT: ["output"], TESRA_RPC: ["rpc"], TESRA_DATA_DIR: ["dataDir"],
  TESRA_KEYSTORE: ["keystore"], TESRA_ACCOUNT: ["account"],
  TESRA_DEVICE_BACKEND: ["device", "backend"], TESRA_DEVICE_THREADS: ["device", "threads"],
  TESRA_DEVICE_GPU: ["device", "gpu"],
} as const satisfies Record<string, readonly string[]>;

const SYSTEM_FILE = "/etc/tesra/config.toml";
const DEFAULT_RPC = "http://127.0.0.1:8545";

/** Reads, checks and merges every layer. Throws UserError. */
export function loadSettings(world: SettingsWorld, flags: Flags = {}): Settings {
  const { env, cwd, home } = world;
  const userHome = env.XDG_CONFIG_HOME || join(home, ".config");
  const files: [path: string, required: boolean][] = [
    [world.systemFile ?? SYSTEM_FILE, false],
    [join(userHome, "tesra", "config.toml"), false],
    flags.settings === undefined
      ? [join(cwd, "tesra.toml"), false] : [resolve(cwd, flags.settings), true],
  ];
  const layers: SettingsLayer[] = files.map(([path, required]) => readLayer(path, required));
  layers.push(environmentLayer(env));
  const { output, rpc, dataDir } = flags;
  layers.push(checkLayer(drop({ output, rpc, dataDir }), (key) => `option --${kebab(key)}`, cwd));

  const merged = layers.reduce((below, above) => ({
    ...below, ...above, device: { ...below.device, ...above.device },
  }), {});
  const base = env.XDG_DATA_HOME || join(home, ".local", "share");
  const folder = merged.dataDir ?? join(base, "tesra");
  return {
    output: merged.output ?? "table",
    rpc: merged.rpc ?? DEFAULT_RPC,
    dataDir: resolve(cwd, folder),
    keystore: resolve(cwd, merged.keystore ?? join(folder, "keystore")),
    account: merged.account,
    device: { backend: "auto", ...merged.device },
  };
}

/** TESRA_* variables that no setting has, for doctor to point at. */
export function unknownVariables(env: SettingsWorld["env"], others: readonly string[]): string[] {
  return Object.keys(env).filter((name) =>
    name.startsWith("TESRA_") && !(name in ENVIRONMENT) && !others.includes(name));
}

function readLayer(path: string, required: boolean): SettingsLayer {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    const absent = ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
    if (absent && !required) return {};
    throw fileFault("read the settings file", path, error);
  }
  return checkLayer(parseToml(source, path), (key) => `${path}: key "${key}"`, join(path, ".."));
}

/** Parses TOML; the error names file, line and column. For other TOML files of commands too. */
export function parseToml(source: string, path: string): Record<string, unknown> {
  try {
    return parse(source);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const what = oneLine(error.message.split("\n")[0]!.replace(/^Invalid TOML document: /, ""));
    throw new UserError(`${path}, line ${error.line}, column ${error.column}: not TOML: ${what}`);
  }
}

function environmentLayer(env: SettingsWorld["env"]): SettingsLayer {
  const layer: Record<string, unknown> = {};
  const names = new Map<string, string>();
  for (const [name, path] of Object.entries(ENVIRONMENT)) {
    const value = env[name];
    if (value === undefined || value === "") continue;
    const [first, second] = path as readonly [string, string?];
    names.set(path.join("."), name);
    if (second === undefined) layer[first] = value;
    else {
      // A number is the one type that a variable cannot hold as itself.
      const number = second === "threads" && /^\d+$/.test(value) ? Number(value) : value;
      layer[first] = { ...(layer[first] as object | undefined), [second]: number };
    }
  }
  return checkLayer(layer, (key) => `environment variable ${names.get(key) ?? key}`, undefined);
}

/** Checks one layer; paths in it are relative to `folder`. */
function checkLayer(
  value: unknown, where: (key: string) => string, folder: string | undefined,
): SettingsLayer {
  const layer = checkInput(SettingsSchema, value, where);
  if (folder === undefined) return layer;
  for (const key of ["dataDir", "keystore"] as const) {
    if (layer[key] !== undefined) layer[key] = resolve(folder, layer[key]);
  }
  return layer;
}

/**
 * Parses a value by a schema, or throws a UserError of one sentence about the first fault:
 * `where(key)`, what was expected, what came. For config files of commands too.
 */
export function checkInput<T>(
  schema: z.ZodType<T>, value: unknown, where: (key: string) => string,
): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    const key = [...path, issue.keys[0]!].join(".");
    const known = knownKeys(schema, path);
    const expected = known.length > 0 ? `expected one of ${known.join(", ")}` : "no such key";
    throw new UserError(`${where(key)} is unknown: ${expected}`);
  }
  const got = issue.path.reduce<unknown>(
    (inside, key) => (inside as Record<PropertyKey, unknown> | undefined)?.[key], value);
  throw new UserError(`${where(path.join("."))}: expected ${expectation(issue)}, got ${show(got)}`);
}

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value": return `one of ${issue.values.map(String).join(", ")}`;
    case "invalid_type": return article(issue.expected === "int" ? "whole number" : issue.expected);
    case "too_small": return issue.origin === "string" ? "a text that is not empty"
      : `at least ${issue.minimum}`;
    case "too_big": return `at most ${issue.maximum}`;
    case "invalid_format":
      return issue.format === "url" ? "a URL such as http://127.0.0.1:8545" : issue.message;
    default: return oneLine(issue.message);
  }
}

function knownKeys(schema: z.ZodType, path: readonly string[]): string[] {
  let at: unknown = schema;
  for (const key of [...path, undefined]) {
    while (at instanceof z.ZodOptional || at instanceof z.ZodDefault) at = at.unwrap();
    if (!(at instanceof z.ZodObject)) return [];
    if (key === undefined) return Object.keys(at.shape);
    at = at.shape[key];
  }
  return [];
}

const article = (noun: string) => `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
const kebab = (key: string) => key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);

/** A value for a message: quoted, one line, cut at 60 characters. */
function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const json = JSON.stringify(value, (_, v: unknown) => (typeof v === "bigint" ? `${v}` : v));
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}

function drop(value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined));
}

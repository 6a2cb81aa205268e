/**
 * Owns how secrets reach a command: a file, standard input, the environment or a prompt.
 * Invariant: never as an argument, which every process of the machine can read; never echoed.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { CliWorld } from "./context.js";
import { fileFault, UserError } from "./errors.js";

/** A secret is a line; more than this is the wrong file. */
const SECRET_CHARACTERS_MAX = 4_096;

/** First line of a file, or of standard input for "-". */
export async function readSecret(world: CliWorld, path: string, what: string): Promise<string> {
  let text: string;
  try {
    text = path === "-" ? await readAll(world.stdin) : readFileSync(resolve(world.cwd, path), "utf8");
  } catch (error) {
    throw fileFault(`read the ${what} from`, path, error);
  }
  const line = text.slice(0, SECRET_CHARACTERS_MAX + 1).split(/\r?\n/)[0]!;
  if (line.length === 0) throw new UserError(`the first line of ${path} is empty: no ${what}`);
  if (line.length > SECRET_CHARACTERS_MAX) throw new UserError(`${path} does not hold a ${what}`);
  return line;
}

/** The password: --password-file, then TESRA_PASSWORD, then a prompt on a terminal. */
export async function readPassword(
  world: CliWorld, file: string | undefined, options: { confirm: boolean },
): Promise<string> {
  if (file !== undefined) return readSecret(world, file, "password");
  const variable = world.env[PASSWORD_VARIABLE];
  if (variable) return variable;
  if (!world.stdin.isTTY) {
    throw new UserError("a password is needed and there is no terminal to ask on: "
      + `give --password-file FILE or set ${PASSWORD_VARIABLE}`);
  }
  const password = await prompt(world, "Password: ");
  if (password.length === 0) throw new UserError("the password must not be empty");
  if (options.confirm && await prompt(world, "Again: ") !== password) {
    throw new UserError("the two passwords differ; nothing was written");
  }
  return password;
}

export const PASSWORD_VARIABLE = "TESRA_PASSWORD";

async function readAll(stdin: NodeJS.ReadStream): Promise<string> {
  let text = "";
  stdin.setEncoding("utf8");
  for await (const chunk of stdin) {
    text += chunk as string;
    if (text.length > SECRET_CHARACTERS_MAX) break;
  }
  return text;
}

/** Asks on stderr and reads a line without echo. */
function prompt({ stdin, stderr }: CliWorld, question: string): Promise<string> {
  stderr.write(question);
  return new Promise((done, fail) => {
    let line = "";
    const end = (finish: () => void) => {
      stdin.off("data", read);
      stdin.setRawMode(false);
      stdin.pause();
      stderr.write("\n");
      finish();
    };
    const read = (chunk: string) => {
      for (const key of chunk) {
        if (key === "\r" || key === "\n") return end(() => done(line));
        if (key === "\x03" || key === "\x04") {
          return end(() => fail(new UserError("no password was given")));
        }
        if (key === "\x7f" || key === "\b") line = line.slice(0, -1);
        else if (key >= " ") line += key;
      }
    };
    stdin.setRawMode(true);
    stdin.setEncoding("utf8");
    stdin.on("data", read);
    stdin.resume();
  });
}

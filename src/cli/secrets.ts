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
  const hidden = new HiddenLines(world);
  try {
    const password = await hidden.ask("Password: ");
    if (password.length === 0) throw new UserError("the password must not be empty");
    if (options.confirm && await hidden.ask("Again: ") !== password) {
      throw new UserError("the two passwords differ; nothing was written");
    }
    return password;
  } finally {
    hidden.close();
  }
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

/**
 * Lines typed on a terminal without echo, from before the first question to close(): what is typed
 * ahead is not shown either, and answers the next question.
 */
class HiddenLines {
  private typed = "";
  private wake: () => void = () => {};
  private readonly read = (chunk: string) => {
    this.typed += chunk;
    this.wake();
  };

  constructor(private readonly world: CliWorld) {
    world.stdin.setRawMode(true);
    world.stdin.setEncoding("utf8");
    world.stdin.on("data", this.read);
  }

  /** Writes the question on stderr and waits for a line. Throws UserError on Ctrl-C or Ctrl-D. */
  async ask(question: string): Promise<string> {
    this.world.stderr.write(question);
    try {
      for (;;) {
        const end = this.typed.search(/[\r\n\x03\x04]/);
        if (end < 0) {
          await new Promise<void>((more) => { this.wake = more; });
          continue;
        }
        const line = this.typed.slice(0, end);
        const key = this.typed[end]!;
        this.typed = this.typed.slice(end + 1);
        if (key === "\x03" || key === "\x04") throw new UserError("no password was given");
        return edited(line);
      }
    } finally {
      this.world.stderr.write("\n");
    }
  }

  close(): void {
    this.world.stdin.off("data", this.read);
    this.world.stdin.setRawMode(false);
    this.world.stdin.pause();
  }
}

/** A typed line after its backspaces, without other control keys. */
function edited(line: string): string {
  const kept: string[] = [];
  for (const key of line) {
    if (key === "\x7f" || key === "\b") kept.pop();
    else if (key >= " ") kept.push(key);
  }
  return kept.join("");
}

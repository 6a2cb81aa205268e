/**
 * Owns `supernet completion`: a static script made from the commands as they are registered.
 */
import { Argument, type Command } from "commander";
import { COMMANDS } from "./commands.js";
import type { CliContext } from "./context.js";
import { createProgram, loadModule } from "./program.js";

const SHELLS = ["bash", "zsh", "fish"] as const;
type Shell = (typeof SHELLS)[number];

export function register(program: Command, context: CliContext): void {
  program.command("completion")
    .addArgument(new Argument("<shell>", "bash, zsh or fish").choices(SHELLS))
    .description("print a completion script for bash, zsh or fish")
    .addHelpText("after", `
Examples:
  $ supernet completion bash > ~/.local/share/bash-completion/completions/supernet
  $ supernet completion zsh > "\${fpath[1]}/_supernet"
  $ supernet completion fish > ~/.config/fish/completions/supernet.fish`)
    .action(async (shell: Shell) => {
      (await context.output()).text(script(shell, await wordsByPath(context)));
    });
}

/** For each command path ("" is the top), the words that can follow: subcommands and options. */
async function wordsByPath(context: CliContext): Promise<Map<string, string[]>> {
  const program = createProgram(context.world);
  for (const entry of COMMANDS) {
    try {
      (await loadModule(entry)).register(program, context);
    } catch {
      program.command(entry.name).description(entry.summary); // broken: complete its name alone
    }
  }
  const words = new Map<string, string[]>();
  const walk = (command: Command, path: string) => {
    const options = command.options.map((option) => option.long ?? option.short!);
    words.set(path, [...command.commands.map((child) => child.name()), ...options, "--help"]);
    for (const child of command.commands) walk(child, path ? `${path} ${child.name()}` : child.name());
  };
  walk(program, "");
  return words;
}

function script(shell: Shell, words: ReadonlyMap<string, string[]>): string {
  if (shell === "fish") return fish(words);
  const cases = [...words].map(([path, list]) => `    "${path}") words="${list.join(" ")}" ;;`).join("\n");
  // A path grows while the next word is one that we know as a command under it.
  const known = [...words.keys()].filter(Boolean).map((path) => `"${path}"`).join("|");
  const bash = `_supernet() {
  local path="" words="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "\${path:+$path }$word" in ${known}) path="\${path:+$path }$word" ;; esac
  done
  case "$path" in
${cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _supernet supernet`;
  if (shell === "bash") return bash;
  // zsh runs bash completions; in it "path" is special, so the variable has another name there.
  const renamed = bash.replaceAll("$path", "$line").replaceAll("${path", "${line")
    .replaceAll(" path=", " line=");
  return `#compdef supernet\nautoload -U +X bashcompinit && bashcompinit\n${renamed}`;
}

function fish(words: ReadonlyMap<string, string[]>): string {
  return [...words].map(([path, list]) => {
    const tops = [...words.keys()].filter((key) => key && !key.includes(" ")).join(" ");
    const parts = path.split(" ");
    const children = list.filter((word) => !word.startsWith("-"));
    const seen = parts.map((part) => `__fish_seen_subcommand_from ${part}`).join("; and ");
    const not = children.length > 0 && path
      ? `; and not __fish_seen_subcommand_from ${children.join(" ")}` : "";
    const condition = path ? `${seen}${not}` : `not __fish_seen_subcommand_from ${tops}`;
    const names = children.length > 0
      ? [`complete -c supernet -n '${condition}' -f -a '${children.join(" ")}'`] : [];
    const options = list.filter((word) => word.startsWith("--")).map((word) =>
      `complete -c supernet -n '${path ? seen : "true"}' -l ${word.slice(2)}`);
    return [...names, ...options].join("\n");
  }).join("\n");
}

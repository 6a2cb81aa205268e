// Owns loading the addon for the GPU scripts and opening both back ends; exits with a sentence where that fails.
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const EXIT_DIFFERENT = 1;
export const EXIT_USAGE = 2;
export const EXIT_NO_GPU = 3;

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

export function parseOptions(defaults) {
  const options = { addon: join(root, "build/Release/tesra_native.node"), ...defaults };
  for (const argument of process.argv.slice(2)) {
    const [, key, value] = /^--([a-z]+)(?:=(.*))?$/.exec(argument) ?? [];
    if (key === undefined || !(key in options)) {
      console.error(`unknown option ${argument}; known: ${Object.keys(options).map((name) => `--${name}`).join(" ")}`);
      process.exit(EXIT_USAGE);
    }
    options[key] = typeof options[key] === "number" ? Number(value) : typeof options[key] === "boolean" ? true : value;
  }
  return options;
}

/**
 * { cpu, cuda, probe }: both devices open. Exits 3 with the reason where there is no GPU. --dry has the CPU's plain
 * loops stand in for the GPU, so that the scripts themselves can be tested anywhere.
 */
export function openBoth(options) {
  let addon;
  try {
    addon = createRequire(import.meta.url)(resolve(options.addon));
  } catch (error) {
    console.error(`cannot load ${options.addon}: ${error.message}. Build it first: node scripts/build-native.mjs`);
    process.exit(EXIT_USAGE);
  }
  const probe = addon.probe();
  if (options.dry) return { cpu: new addon.NativeDevice({ backend: "cpu" }), cuda: new addon.NativeDevice({ backend: "cpu", isa: "scalar" }), probe };
  if (!probe.cuda.available) {
    console.error(probe.cuda.compiled ? probe.cuda.reason : `no GPU: this addon was built without CUDA (${probe.cuda.reason})`);
    process.exit(EXIT_NO_GPU);
  }
  return {
    cpu: new addon.NativeDevice({ backend: "cpu" }),
    cuda: new addon.NativeDevice({ backend: "cuda" }),
    probe,
  };
}

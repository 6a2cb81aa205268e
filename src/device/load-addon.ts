// Owns: finding and loading the addon, and explaining every way in which that fails.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ADDON_ABI, type Addon } from "./addon.js";
import { DeviceError } from "./device-error.js";

const BUILD_HINT = "Build it with: node scripts/build-native.mjs (needs g++ or clang++; CMake for the CUDA kernels).";

function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json"))) {
    const parent = dirname(directory);
    if (parent === directory) break;
    directory = parent;
  }
  return directory;
}

/** TESRA_NATIVE_ADDON names another file: a sanitizer build, or one kept elsewhere. */
export function addonPath(): string {
  return process.env.TESRA_NATIVE_ADDON || join(packageRoot(), "build/Release/tesra_native.node");
}

/** Turns the dynamic loader's words into a cause and a remedy. */
export function explainLoadFailure(path: string, message: string): DeviceError {
  const because = (reason: string, hint: string) =>
    new DeviceError("addon_load", `The native addon ${path} could not be loaded: ${reason}. The loader said: ${message}`, { hint });
  const library = /(lib[\w.+-]+\.so[\w.]*): cannot open shared object/.exec(message)?.[1];
  if (library) return because(`this system lacks ${library}`, `Install the package with ${library}, or build here: ${BUILD_HINT}`);
  const version = /version [`']((?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)'? not found/.exec(message)?.[1];
  if (version) return because(`it was built against a newer system library (${version})`, `It has to be built on this system. ${BUILD_HINT}`);
  if (/invalid ELF header|not a mach-o file|slice is not valid|not a valid Win32/i.test(message))
    return because(`it was built for another system, or the file is damaged (this is ${process.platform}-${process.arch})`, BUILD_HINT);
  if (/wrong ELF class|incompatible architecture/i.test(message))
    return because(`it was built for another processor (this is ${process.arch})`, BUILD_HINT);
  if (/NODE_MODULE_VERSION|did not self-register/.test(message))
    return because(`it was built for another version of Node (this is ${process.version})`, BUILD_HINT);
  if (/cannot allocate memory in static TLS/.test(message))
    return because("the process has no room left for its thread-local storage", "Load it earlier, before other addons.");
  if (/Permission denied|EACCES|failed to map segment/.test(message))
    return because("the file may not be read or executed", "Check its permissions, and that its file system is not mounted noexec.");
  return because("the loader refused it", BUILD_HINT);
}

let loaded: Addon | undefined;

export function loadAddon(): Addon {
  if (loaded) return loaded;
  const path = addonPath();
  if (!existsSync(path))
    throw new DeviceError("addon_missing", `The native addon is not built: there is no ${path}.`, { hint: BUILD_HINT });
  let addon: Addon;
  try {
    addon = createRequire(import.meta.url)(path) as Addon;
  } catch (error) {
    throw explainLoadFailure(path, error instanceof Error ? error.message : String(error));
  }
  if (addon.abi !== ADDON_ABI)
    throw new DeviceError("addon_version", `The native addon ${path} speaks version ${addon.abi}, this program version ${ADDON_ABI}.`, { hint: `It is left from another version. ${BUILD_HINT}` });
  loaded = addon;
  return addon;
}

/** What the build wrote beside the addon: which tool built it, and whether with CUDA. */
export function buildStamp(): { builder: string; cuda: boolean } | undefined {
  try {
    const stamp = JSON.parse(readFileSync(join(dirname(addonPath()), "../tesra-native.stamp.json"), "utf8"));
    return { builder: String(stamp.builder), cuda: stamp.cuda === true };
  } catch {
    return undefined;
  }
}

// Owns where the command line looks for Fashion-MNIST, and the programs it may run to get it.
import { execFile } from "node:child_process";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { DataError } from "../data/errors.js";
import { loadFashionMnist, type FashionMnist } from "../data/fashion-mnist.js";
import { OperationalError, UserError } from "./errors.js";

/** The package has 31 MB; a slower mirror than this is as good as none. */
const FETCH_TIMEOUT_MS = 120_000;

export function datasetCache(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "tesra-supernet", "fashion-mnist");
}

/**
 * Loads Fashion-MNIST from `path`, else TESRA_DATA, else cache, system folder, Debian package or its home.
 * Throws UserError when a folder that was named cannot be used, OperationalError when nothing has it.
 */
export async function loadDataset(path?: string): Promise<FashionMnist> {
  const named = path ?? process.env.TESRA_DATA;
  try {
    return await loadFashionMnist({ path: named, cacheDirectory: datasetCache() }, {
      exec: async (command, args, { cwd }) => {
        await promisify(execFile)(command, args, { cwd, timeout: FETCH_TIMEOUT_MS });
      },
      fetch: (url) => fetch(url, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) }),
    });
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const message = error.message.replace(/\s*\n\s*/g, "; ");
    if (named === undefined) throw new OperationalError(message, { cause: error });
    throw new UserError(`the data set in ${named} cannot be used: ${message}`, { cause: error });
  }
}

/** For set-up: finds (or fetches) the data set and says where it is. */
export async function prepareFashionMnist(): Promise<string> {
  const { source, train, test } = await loadDataset();
  return `Fashion-MNIST, ${train.rows} + ${test.rows} images, from ${source}`;
}

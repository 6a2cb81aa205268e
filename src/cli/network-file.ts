/**
 * Owns the file by which other commands find a network that runs on this machine.
 * Invariant: it names a live process or it is not believed.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { NodeAddress } from "../actors/node/config.js";

export interface NetworkFile {
  pid: number;
  rpcUrl: string;
  master: NodeAddress;
  chainId: number;
  /** Private key of the devnet's client account: a devnet's own, worth nothing elsewhere. */
  clientKey: `0x${string}`;
}

const pathOf = (dataDir: string): string => join(dataDir, "devnet", "running.json");

export function writeNetworkFile(dataDir: string, file: NetworkFile | undefined): void {
  if (file) writeFileSync(pathOf(dataDir), JSON.stringify(file, null, 2), { mode: 0o600 });
  else rmSync(pathOf(dataDir), { force: true });
}

/** The running network, or undefined. */
export function readNetworkFile(dataDir: string): NetworkFile | undefined {
  try {
    const file = JSON.parse(readFileSync(pathOf(dataDir), "utf8")) as NetworkFile;
    process.kill(file.pid, 0);
    return file;
  } catch {
    return undefined;
  }
}

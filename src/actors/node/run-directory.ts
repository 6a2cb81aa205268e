// Owns the temporary folder of a running network: sockets, configs, logs.
// Invariant: a folder belongs to one live process; folders of dead owners are removed at the next start.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync, chmodSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PREFIX = "supernet-";
const OWNER_FILE = "owner.pid";

/** Creates a folder of mode 0700 with a short path (a Unix socket's path may hold 107 bytes). */
export function createRunDirectory(): string {
  sweepRunDirectories();
  const dir = mkdtempSync(join(tmpdir(), PREFIX));
  chmodSync(dir, 0o700);
  writeFileSync(join(dir, OWNER_FILE), String(process.pid));
  return dir;
}

export function removeRunDirectory(dir: string): void {
  rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
}

/** Removes the folders whose owners are dead (after a kill -9 of the owner). */
export function sweepRunDirectories(): void {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue;
    const dir = join(tmpdir(), name);
    const owner = readOwner(dir);
    if (owner !== undefined && !isAlive(owner)) removeRunDirectory(dir);
  }
}

function readOwner(dir: string): number | undefined {
  try {
    const pid = Number(readFileSync(join(dir, OWNER_FILE), "utf8"));
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined; // not ours, or still being created
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Owns `supernet chain verify`: replays every block of a store from genesis on an empty state and
 * compares what comes out with what the store says.
 * Invariant: the store is only read; the replay has a store of its own, in memory.
 */
import { readFile } from "node:fs/promises";
import { fileFault, OperationalError, oneLine, UserError } from "./errors.js";
import type { Progress } from "./output.js";
export interface VerifyRequest {
  readonly folder: string;
  readonly genesisFile: string;
  readonly signal: AbortSignal;
  readonly progress: (total: number) => Progress;
}
export interface VerifyResult { readonly ok: boolean; readonly blocks: number; readonly reason?: string }
export async function verifyStore(request: VerifyRequest): Promise<VerifyResult> {
  try { await readFile(request.genesisFile); } catch (error) { throw fileFault("read the genesis file", request.genesisFile, error); }
  void OperationalError; void oneLine; void UserError;
  throw new OperationalError("not here yet");
}

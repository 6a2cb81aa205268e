/**
 * Owns: reading the compiled system contracts (`generated/artifacts.json`, written by
 * scripts/build-contracts.mjs). Invariant: callers get run-time bytecode that has no
 * immutables and no link references, so it can be placed in a genesis account as it is.
 */
import { readFileSync } from "node:fs";
import type { Abi, Hex } from "viem";

export interface ContractArtifact {
  readonly abi: Abi;
  readonly deployedBytecode: Hex;
}

export interface ContractArtifacts {
  readonly compiler: string;
  readonly evmVersion: string;
  readonly sourceHash: string;
  readonly contracts: Readonly<Record<string, ContractArtifact>>;
}

export class ContractArtifactError extends Error {
  constructor(
    readonly code: "artifacts-missing" | "artifacts-unreadable" | "contract-unknown",
    readonly file: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "ContractArtifactError";
  }
}

const artifactsUrl = new URL("./generated/artifacts.json", import.meta.url);
let loaded: ContractArtifacts | undefined;

/** The compiled contracts. Throws ContractArtifactError with what to do when they are not built. */
export function loadArtifacts(): ContractArtifacts {
  if (loaded !== undefined) return loaded;
  let text: string;
  try {
    text = readFileSync(artifactsUrl, "utf8");
  } catch (cause) {
    throw new ContractArtifactError(
      "artifacts-missing",
      artifactsUrl.pathname,
      `The system contracts are not compiled: ${artifactsUrl.pathname} cannot be read. `
        + `Run "npm run setup" in the repository root.`,
      { cause },
    );
  }
  try {
    loaded = JSON.parse(text) as ContractArtifacts;
  } catch (cause) {
    throw new ContractArtifactError(
      "artifacts-unreadable",
      artifactsUrl.pathname,
      `${artifactsUrl.pathname} is not valid JSON. Delete it and run "npm run setup".`,
      { cause },
    );
  }
  return loaded;
}

/** One compiled contract by its Solidity name. */
export function contractArtifact(name: string): ContractArtifact {
  const found = loadArtifacts().contracts[name];
  if (found === undefined) {
    throw new ContractArtifactError(
      "contract-unknown",
      artifactsUrl.pathname,
      `${artifactsUrl.pathname} holds no contract "${name}"; it is older than the sources. `
        + `Run "npm run setup".`,
    );
  }
  return found;
}

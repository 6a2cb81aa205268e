#!/usr/bin/env node
/**
 * Owns: compiling the system contracts, offline. Reads src/chain/contracts/solidity/*.sol and
 * OpenZeppelin out of node_modules; writes src/chain/contracts/generated/artifacts.json and, where
 * dist exists, the same file there. Invariant: skips only when compiler, settings and every source
 * it read last time are unchanged. Prints one line; exits 1 with the compiler's messages on an error.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const sourceFolder = join(root, "src/chain/contracts/solidity");
const artifactPath = "chain/contracts/generated/artifacts.json";
const sourceArtifact = join(root, "src", artifactPath);
/** EIP-170, kept although genesis placement would not enforce it: the contracts stay deployable. */
const CODE_SIZE_MAX_BYTES = 24_576;
/** Cancun: the chain's oldest rule set, and the first with transient storage (the reentrancy guard). */
const EVM_VERSION = "cancun";
const settings = {
  evmVersion: EVM_VERSION,
  // For size: TaskMarket must stay under EIP-170, and its calls are few next to its length.
  optimizer: { enabled: true, runs: 1 },
  // No metadata hash: the same sources give the same bytecode wherever they are compiled.
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.deployedBytecode"] } },
};
const require = createRequire(import.meta.url);

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

/** A source by its import name; OpenZeppelin resolves through node_modules, own files by name. */
function readSource(name) {
  return name.startsWith("@")
    ? readFileSync(require.resolve(name), "utf8")
    : readFileSync(join(sourceFolder, name), "utf8");
}

function hashOf(names) {
  const version = JSON.parse(readFileSync(require.resolve("solc/package.json"), "utf8")).version;
  const parts = names.map((name) => `${name}\n${sha256(readSource(name))}`);
  parts.push(sha256(readFileSync(fileURLToPath(import.meta.url), "utf8")));
  return { version, hash: sha256([version, JSON.stringify(settings), ...parts].join("\n")) };
}

function previous(ownNames) {
  try {
    const artifacts = JSON.parse(readFileSync(sourceArtifact, "utf8"));
    const imported = artifacts.sources.filter((name) => name.startsWith("@"));
    return hashOf([...ownNames, ...imported]).hash === artifacts.sourceHash ? artifacts : undefined;
  } catch {
    return undefined; // missing, unreadable or of older sources: all mean "compile"
  }
}

function writeAtomically(file, text) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.${process.pid}.tmp`, text);
  renameSync(`${file}.${process.pid}.tmp`, file);
}

/** Copies the artifacts beside the compiled JavaScript; does nothing before there is any. */
export function copyArtifactsToDist() {
  const dist = join(root, "dist");
  if (!existsSync(dist)) return false;
  writeAtomically(join(dist, artifactPath), readFileSync(sourceArtifact, "utf8"));
  return true;
}

function compile(ownNames) {
  const solc = require("solc");
  const read = new Set(ownNames);
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(ownNames.map((name) => [name, { content: readSource(name) }])),
    settings,
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input), {
    import: (name) => {
      try {
        read.add(name);
        return { contents: readSource(name) };
      } catch {
        return { error: `${name}: not found in ${sourceFolder} or node_modules; run "npm install"` };
      }
    },
  }));
  // Warnings inside OpenZeppelin are its maintainers' business; an error anywhere is ours.
  const messages = (output.errors ?? []).filter((each) =>
    each.severity === "error" || !each.sourceLocation?.file.startsWith("@"));
  for (const each of messages) process.stderr.write(`${each.formattedMessage}\n`);
  if (messages.some((each) => each.severity === "error")) {
    throw new Error("the system contracts do not compile (messages above)");
  }
  return { output, names: [...read] };
}

function collect(output, ownNames) {
  const contracts = {};
  for (const file of ownNames) {
    for (const [name, contract] of Object.entries(output.contracts[file] ?? {})) {
      const code = contract.evm.deployedBytecode;
      const isPlaced = code.object !== "" && contract.abi.some((each) => each.type === "function");
      if (!isPlaced) continue; // interfaces, abstract contracts, libraries of internal functions
      if (Object.keys(code.immutableReferences ?? {}).length + Object.keys(code.linkReferences).length > 0) {
        throw new Error(`${name}: genesis code cannot have immutables or linked libraries`);
      }
      if (code.object.length / 2 > CODE_SIZE_MAX_BYTES) {
        throw new Error(`${name}: ${code.object.length / 2} bytes of code, at most ${CODE_SIZE_MAX_BYTES}`);
      }
      contracts[name] = { abi: contract.abi, deployedBytecode: `0x${code.object}` };
    }
  }
  return contracts;
}

/** Builds what is out of date and returns the line to print. */
export function buildContracts() {
  const ownNames = readdirSync(sourceFolder).filter((name) => name.endsWith(".sol")).sort();
  const unchanged = previous(ownNames);
  if (unchanged !== undefined) {
    copyArtifactsToDist();
    return `contracts: unchanged (${Object.keys(unchanged.contracts).length}, solc ${unchanged.compiler})`;
  }
  const { output, names } = compile(ownNames);
  const contracts = collect(output, ownNames);
  const { version, hash } = hashOf([...ownNames, ...names.filter((name) => name.startsWith("@"))]);
  const artifacts = {
    compiler: version, evmVersion: EVM_VERSION, sourceHash: hash, sources: names, contracts,
  };
  writeAtomically(sourceArtifact, `${JSON.stringify(artifacts)}\n`);
  copyArtifactsToDist();
  const bytes = Object.values(contracts).reduce((sum, each) => sum + each.deployedBytecode.length / 2 - 1, 0);
  return `contracts: ${Object.keys(contracts).length} compiled (solc ${version}, ${bytes} bytes of code)`;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    process.stdout.write(`${buildContracts()}\n`);
  } catch (error) {
    process.stderr.write(`contracts: ${error.message}\n`);
    process.exitCode = 1;
  }
}

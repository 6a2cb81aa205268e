// Owns `npm run state-tests -- DIR`: Ethereum's official GeneralStateTests against this chain's state and machine.
// Invariant: every case that a file holds is counted once, as passed, failed or skipped with the reason.
import { fork } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const here = fileURLToPath(import.meta.url);
const load = (path) => import(pathToFileURL(join(dirname(here), "..", "dist", path)).href);

const HELP = `Usage: npm run state-tests -- DIRECTORY [options]

Runs GeneralStateTests (github.com/ethereum/tests, or a directory of such files) on the chain's own world state and
machine: each transaction on its prestate, the state root and the hash of the logs compared.

  --fork NAME      cases of this fork (default Cancun)
  --only TEXT      files whose path contains TEXT
  --chain-rules    this chain's rules instead of mainnet's: SELFDESTRUCT keeps balances, so cases that burn coins differ
  --jobs N         processes (default: one a core)
  --json           the last line of stdout is one JSON object
  --help

Cases of blob transactions are skipped: this chain has none.
Exit code: 0 all passed, 1 some failed, 2 a bad option.

Examples:
  npm run state-tests -- ~/tests/GeneralStateTests
  npm run state-tests -- ~/tests/GeneralStateTests --only stRevertTest --jobs 1`;

function readOptions() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        fork: { type: "string", default: "Cancun" }, only: { type: "string", default: "" }, jobs: { type: "string" },
        "chain-rules": { type: "boolean", default: false }, json: { type: "boolean", default: false },
        help: { type: "boolean", default: false }, share: { type: "string" },
      },
    });
    if (values.help) {
      console.log(HELP);
      process.exit(0);
    }
    const jobs = values.jobs === undefined ? availableParallelism() : Number(values.jobs);
    if (positionals.length !== 1) throw new Error("give one directory of tests");
    if (!existsSync(positionals[0])) throw new Error(`${positionals[0]} does not exist`);
    if (!Number.isInteger(jobs) || jobs < 1) throw new Error(`--jobs must be a whole number of at least 1, got ${values.jobs}`);
    return { ...values, jobs, directory: positionals[0] };
  } catch (error) {
    console.error(`${error.message}\n\n${HELP}`);
    process.exit(2);
  }
}

function filesOf(path) {
  if (!statSync(path).isDirectory()) return path.endsWith(".json") ? [path] : [];
  return readdirSync(path).sort().flatMap((name) => filesOf(join(path, name)));
}

/** Runs the cases of one file; `tell` hears of each. */
async function runFile(path, options, parts, tell) {
  for (const [name, test] of Object.entries(JSON.parse(readFileSync(path, "utf8")))) {
    for (const [i, expected] of (test.post?.[options.fork] ?? []).entries()) {
      const outcome = await runCase(test, expected, parts).catch((error) => ({ failed: error.message ?? String(error) }));
      tell({ ...outcome, case: `${relative(options.directory, path)} ${name} [${i}]` });
    }
  }
}

async function runCase(test, expected, parts) {
  const { WorldState, NodeCache, Machine, createMemoryStore, bytes, util, createTxFromRLP, RLP, common } = parts;
  const { fromHex, toHex, keccak, utf8, padTo } = bytes;
  if (test.transaction.blobVersionedHashes !== undefined || test.transaction.maxFeePerBlobGas !== undefined) return { skipped: "blob transaction" };
  const state = new WorldState({ root: undefined, common, isShortLived: true }, { store: createMemoryStore(), cache: new NodeCache() });
  const { manager } = state;
  const hex = (text) => fromHex(text.length % 2 ? `0x0${text.slice(2)}` : text);
  for (const [address, { balance, nonce, code, storage }] of Object.entries(test.pre)) {
    const owner = new util.Address(fromHex(address));
    await manager.putAccount(owner, util.createAccount({ balance: BigInt(balance), nonce: BigInt(nonce) }));
    if (code !== "0x") await manager.putCode(owner, fromHex(code));
    for (const [slot, value] of Object.entries(storage)) await manager.putStorage(owner, padTo(hex(slot), 32), util.unpadBytes(hex(value)));
  }
  const before = toHex(await state.root());
  const machine = await Machine.create(state, common);
  const { env } = test;
  machine.enter({
    number: Number(env.currentNumber), timestamp: Number(env.currentTimestamp), coinbase: fromHex(env.currentCoinbase),
    gasLimit: BigInt(env.currentGasLimit), baseFeePerGas: BigInt(env.currentBaseFee ?? 10), random: padTo(hex(env.currentRandom), 32),
  }, (number) => keccak(utf8(String(number))));
  let logs = [];
  let refusal;
  try {
    const transaction = createTxFromRLP(fromHex(expected.txbytes), { common });
    const { execResult } = await machine.transact(transaction, 0n);
    logs = execResult.logs ?? [];
  } catch (error) {
    refusal = error.message;
  }
  const root = toHex(await state.root());
  if (expected.expectException !== undefined) {
    if (refusal === undefined) return { failed: `was taken, but ${expected.expectException} was due` };
    return root === before ? { passed: true } : { failed: "a refused transaction changed the state" };
  }
  if (refusal !== undefined) return { failed: `refused: ${refusal}` };
  if (root !== expected.hash) return { failed: `state root ${root}, expected ${expected.hash}` };
  const logsHash = toHex(keccak(RLP.encode(logs)));
  return logsHash === expected.logs ? { passed: true } : { failed: `logs hash ${logsHash}, expected ${expected.logs}` };
}

async function loadParts(options) {
  const [state, machine, memory, bytes, rules, util, tx, rlp, common] = await Promise.all([
    load("chain/execution/state.js"), load("chain/execution/machine.js"), load("chain/store/memory-store.js"), load("chain/bytes.js"),
    load("chain/execution/rules.js"), import("@ethereumjs/util"), import("@ethereumjs/tx"), import("@ethereumjs/rlp"), import("@ethereumjs/common"),
  ]);
  return {
    ...state, ...machine, ...memory, bytes, util, createTxFromRLP: tx.createTxFromRLP, RLP: rlp.RLP,
    common: options["chain-rules"] ? rules.createRules(1)
      : new common.Common({ chain: common.Mainnet, hardfork: options.fork.toLowerCase() }),
  };
}

async function work(options) {
  const [index, of] = options.share.split("/").map(Number);
  const parts = await loadParts(options);
  const files = filesOf(options.directory).filter((path) => path.includes(options.only)).filter((_, i) => i % of === index);
  for (const path of files) {
    const results = [];
    await runFile(path, options, parts, (result) => results.push(result));
    process.send({ results });
  }
}

function drive(options) {
  const total = { passed: 0, failed: 0, skipped: 0 };
  const failures = [];
  const startedMs = Date.now();
  let files = 0;
  const children = Array.from({ length: options.jobs }, (_, i) => new Promise((resolve) => {
    const child = fork(here, [...process.argv.slice(2), "--share", `${i}/${options.jobs}`]);
    child.on("message", ({ results }) => {
      files += 1;
      for (const result of results) {
        total[result.passed ? "passed" : result.failed ? "failed" : "skipped"] += 1;
        if (result.failed) failures.push({ case: result.case, reason: result.failed });
      }
      if (process.stderr.isTTY) process.stderr.write(`\r${files} files, ${total.passed} passed, ${total.failed} failed`);
    });
    child.on("exit", resolve);
  }));
  return Promise.all(children).then((codes) => {
    const seconds = Math.round((Date.now() - startedMs) / 1000);
    for (const { case: name, reason } of failures.slice(0, 50)) console.log(`failed  ${name}: ${reason}`);
    const run = total.passed + total.failed;
    console.log(`${total.passed} of ${run} cases passed (${run ? (100 * total.passed / run).toFixed(2) : "0"} %), ${total.skipped} skipped, ${files} files, ${seconds} s`);
    if (options.json) console.log(JSON.stringify({ ...total, files, seconds, fork: options.fork, failures }));
    process.exitCode = run === 0 || total.failed > 0 || codes.some((code) => code !== 0) ? 1 : 0;
  });
}

const options = readOptions();
await (options.share ? work(options) : drive(options));

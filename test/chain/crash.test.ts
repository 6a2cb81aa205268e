// kill -9 at arbitrary moments under load: the store must reopen at the last committed block, whole.
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Chain } from "../../src/chain/chain.js";
import { SUPPLY_WEI } from "../../src/chain/genesis.js";
import { openRocksStore } from "../../src/chain/store/rocks-store.js";
import { keyOf, toHex } from "../../src/chain/bytes.js";
import { alice, genesisFor, openChain, party, produceNext } from "./devnet.js";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");
const build = join(root, ".cache/chain-crash-test"); // inside the package, so that its imports resolve
const folder = mkdtempSync(join(tmpdir(), "tesra-crash-"));
const v1 = party("v1");
const genesis = genesisFor([v1]);
const ROUNDS = 4;
const BLOCKS_BEFORE_KILL_MAX = 8;
const KILL_DELAY_MS_MAX = 40;

beforeAll(() => {
  mkdirSync(build, { recursive: true });
  try {
    execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", root, "--outDir", build, "--declaration",
      "false", "--sourceMap", "false", "--noCheck"], { stdio: "pipe" });
  } catch {
    // type errors are for the type check to report; the JavaScript is written all the same
  }
  writeFileSync(join(folder, "genesis.json"), JSON.stringify(genesis));
  writeFileSync(join(folder, "keys.json"), JSON.stringify({
    privateKey: toHex(v1.privateKey), blsSecretKey: toHex(v1.blsSecretKey), sender: toHex(alice.privateKey),
  }));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  rmSync(build, { recursive: true, force: true });
});

/** Lets the child work until `blocks` blocks were reported, kills it a little later; returns the last report. */
async function runAndKill(blocks: number, delayMs: number): Promise<{ number: number; hash: string }> {
  const child = spawn(process.execPath, [join(here, "crash-child.mjs"), build, join(folder, "store"),
    join(folder, "genesis.json"), join(folder, "keys.json")], { stdio: ["ignore", "pipe", "pipe"], cwd: root });
  let errors = "";
  child.stderr.on("data", (text) => { errors += text; });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  let seen = 0;
  let last = { number: 0, hash: "" };
  for await (const line of createInterface({ input: child.stdout })) {
    const [kind, number, hash] = line.split(" ");
    if (kind !== "block" || !hash || hash.length !== 64) continue;
    last = { number: Number(number), hash };
    seen += 1;
    if (seen === blocks) setTimeout(() => child.kill("SIGKILL"), delayMs);
  }
  await exited;
  if (seen === 0) throw new Error(`the child made no block: ${errors}`);
  return last;
}

it("reopens at the last committed block after each kill -9", async () => {
  const other = await openChain(genesis, { isDurable: false });
  for (let round = 0; round < ROUNDS; round++) {
    const reported = await runAndKill(1 + Math.floor(Math.random() * BLOCKS_BEFORE_KILL_MAX), Math.random() * KILL_DELAY_MS_MAX);
    const store = await openRocksStore(join(folder, "store"));
    const chain = await Chain.open({ store, genesis });
    // what the child told was committed before it told; it may have committed one more and not come to tell
    expect(chain.head.number).toBeGreaterThanOrEqual(reported.number);
    expect(keyOf(chain.index.canonicalHash(reported.number)!)).toBe(reported.hash);
    expect((await chain.ledger()).total).toBe(SUPPLY_WEI);
    // another node that replays the blocks gets the same states, so nothing is torn
    for (const encoded of chain.blocksAfter(other.ancestorsLocator(), 10_000)) {
      expect(await other.importBlock(encoded, chain.head.timestampMs)).toMatchObject({ status: "imported" });
    }
    expect(toHex(other.head.hash)).toBe(toHex(chain.head.hash));
    await produceNext(chain, v1); // and the chain goes on
    await store.close();
  }
}, 60_000);

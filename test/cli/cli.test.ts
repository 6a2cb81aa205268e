import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { keccak256, parseTransaction, recoverTransactionAddress } from "viem";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const main = join(root, "dist", "cli", "main.js");
/** Vector of BIP-39/44: the phrase that every test wallet uses, and its first two accounts. */
const PHRASE = "test test test test test test test test test test test junk";
const ACCOUNTS = [
  "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
] as const;
const PASSWORD = "pw";

let home: string;
beforeAll(() => {
  if (!existsSync(main)) {
    try {
      execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", root]);
    } catch { /* it writes what compiles; the tests below say what is missing */ }
  }
  home = mkdtempSync(join(tmpdir(), "tesra-cli-"));
}, 120_000);
afterAll(() => rmSync(home, { recursive: true, force: true }));

interface Run { code: number; out: string; err: string }

/** Runs the built command in an empty folder with an environment of its own. */
function run(args: string[], options: { env?: Record<string, string>; cwd?: string; input?: string } = {}): Promise<Run> {
  const { PATH = "" } = process.env;
  const env = { PATH, HOME: home, TESRA_PASSWORD: PASSWORD, ...options.env };
  return new Promise((done) => {
    const child = execFile(process.execPath, [main, ...args], { env, cwd: options.cwd ?? home },
      (error, out, err) => done({ code: error ? Number(error.code) : 0, out, err }));
    child.stdin!.end(options.input ?? "");
  });
}

/** A wrong use: exit 2, nothing on stdout, one sentence on stderr. */
async function refusal(args: string[], options: Parameters<typeof run>[1] = {}): Promise<string> {
  const { code, out, err } = await run(args, options);
  expect([code, out]).toEqual([2, ""]);
  expect(err.trimEnd()).toMatch(/^supernet: [^\n]+$/);
  return err;
}

describe("help", () => {
  it("lists the commands, and every command explains itself with examples", async () => {
    const top = await run(["--help"]);
    expect(top.code).toBe(0);
    for (const name of ["wallet", "chain", "pow", "doctor", "bench", "completion"]) {
      expect(top.out).toMatch(new RegExp(`^  ${name} `, "m"));
    }
    expect(top.out).toMatch(/Examples:/);
    const leaves = ["wallet create", "wallet import", "wallet list", "wallet address", "wallet balance",
      "wallet send", "chain status", "chain block", "chain tx", "chain account", "chain certificates",
      "chain supply", "chain verify", "pow challenge", "pow cn2", "pow verify", "profile", "doctor", "bench", "completion"];
    const helps = await Promise.all(leaves.map((path) => run([...path.split(" "), "--help"])));
    helps.forEach(({ code, out }, i) => {
      expect([leaves[i], code]).toEqual([leaves[i], 0]);
      expect(out).toMatch(new RegExp(`Usage: supernet ${leaves[i]}`));
      expect(out).toMatch(/Examples?:/);
    });
  });

  it("of one command works though another does not load", async () => {
    const { code, err } = await run(["wallet", "--help"]);
    expect([code, err]).toEqual([0, ""]);
  });
});

describe("wrong use", () => {
  it("unknown commands and options get one sentence and exit 2", async () => {
    expect(await refusal(["wallt"])).toMatch(/unknown command 'wallt' \(Did you mean wallet\?\)/);
    expect(await refusal(["wallet", "list", "--fast"])).toMatch(/unknown option '--fast'/);
    expect(await refusal(["chain", "tx"])).toMatch(/missing required argument 'hash'/);
    expect(await refusal(["wallet", "send", "--amount", "1"])).toMatch(/--to/);
    expect((await run(["wallet"])).code).toBe(2);
  });

  it("bad settings name file, key, expected and got", async () => {
    const folder = join(home, "bad");
    mkdirSync(folder);
    writeFileSync(join(folder, "tesra.toml"), "rpc = 5\n");
    expect(await refusal(["wallet", "list"], { cwd: folder }))
      .toMatch(/bad\/tesra\.toml: key "rpc": expected a string, got 5/);
    writeFileSync(join(folder, "tesra.toml"), "[device]\nspeed = 5\n");
    expect(await refusal(["doctor"], { cwd: folder })).toMatch(/key "device\.speed" is unknown/);
    expect(await refusal(["doctor", "--settings", "none.toml"])).toMatch(/none\.toml: it does not exist/);
    expect(await refusal(["doctor", "-o", "yaml"])).toMatch(/--output: expected one of table/);
  });

  it("bad values say what was expected, and leave nothing behind", async () => {
    const keystore = join(home, "untouched");
    const env = { TESRA_KEYSTORE: keystore };
    const cases: [string[], RegExp][] = [
      [["wallet", "create", "--words", "13"], /--words: expected 12, 15, 18, 21 or 24, got 13/],
      [["wallet", "create", "--index", "-1"], /--index/],
      [["wallet", "create", "--light", "--name", "../x"], /--name: expected/],
      [["wallet", "import"], /give one of --phrase-file, --key-file and --keystore-file, got 0/],
      [["wallet", "import", "--key-file", "none"], /cannot read the private key from none: it does not exist/],
      [["wallet", "balance", "0x12"], /"0x12" is no address/],
      [["wallet", "balance", ACCOUNTS[0].replace("f39F", "F39F")], /right checksum/],
      [["wallet", "send", "--to", ACCOUNTS[0], "--amount", "1e3"], /--amount: expected TSR as a decimal/],
      [["wallet", "send", "--to", ACCOUNTS[0], "--amount", "0"], /more than 0/],
      [["wallet", "send", "--to", ACCOUNTS[0], "--amount", "1"], /there is no key in .*wallet create/],
      [["chain", "block", "pending?"], /is no block: expected a number/],
      [["chain", "tx", "0x12"], /no transaction hash/],
      [["pow", "challenge", "--bits", "many"], /--bits: expected a whole number from 0 to 40, got "many"/],
      [["pow", "challenge", "--k", "1000"], /--k must be a multiple of 128/],
      [["pow", "cn2", "12f"], /<hex>: expected hex digits, got "12f"/],
      [["pow", "cn2", "0xzz"], /<hex>: expected hex digits, got "0xzz"/],
      [["pow", "verify", "none.json"], /cannot read the certificate none\.json/],
    ];
    const results = await Promise.all(cases.map(([args]) => refusal(args, { env })));
    results.forEach((err, i) => expect(err).toMatch(cases[i]![1]));
    expect(existsSync(keystore)).toBe(false);
  });

  it("a node that does not answer is exit 1, in one sentence; --debug adds the stack", async () => {
    const args = ["chain", "status", "--rpc", "http://127.0.0.1:1"];
    const plain = await run(args);
    expect(plain).toMatchObject({ code: 1, out: "" });
    expect(plain.err).toMatch(/^supernet: no node answers at http:\/\/127\.0\.0\.1:1[^\n]*\n$/);
    expect((await run([...args, "--debug"])).err).toMatch(/\n +at /);
  });
});

describe("doctor", () => {
  it("prints parseable lines, and its exit code follows them", async () => {
    const { code, out } = await run(["doctor", "-o", "json"]);
    const checks = JSON.parse(out) as { check: string; status: string; detail: string; mend?: string }[];
    const names = checks.map(({ check }) => check);
    for (const name of ["node", "cpu", "native kernels", "gpu", "chain store", "links", "data set",
      "compiler", "cmake", "nvcc", "rpc port"]) expect(names).toContain(name);
    for (const { status, detail, mend } of checks) {
      expect(["ok", "warn", "fail"]).toContain(status);
      expect(detail.length).toBeGreaterThan(0);
      if (status !== "ok") expect(mend).toBeTruthy();
    }
    expect(checks.find(({ check }) => check === "chain store")!.status).toBe("ok");
    expect(checks.find(({ check }) => check === "links")!.detail).toMatch(/CURVE yes/);
    expect(code).toBe(checks.some(({ status }) => status === "fail") ? 1 : 0);
  });
});

describe("proof of work", () => {
  it("prints CN2 hashes: the digits alone, or JSON", async () => {
    const input = "5468697320697320612074657374205468697320697320612074657374205468697320697320612074657374";
    const hash = "353fdc068fd47b03c04b9431e005e00b68c2168a3cc7335c8b9b308156591a4f";
    expect(await run(["pow", "cn2", input])).toEqual({ code: 0, out: `${hash}\n`, err: "" });
    expect(JSON.parse((await run(["pow", "cn2", `0x${input}`, "--json"])).out)).toEqual({ hash, bytes: 44 });
    expect(JSON.parse((await run(["pow", "cn2", "", "-o", "json"])).out)).toMatchObject({ bytes: 0 });
  });

  it("a mined challenge verifies from its JSON and from its hex, and not if it is changed", async () => {
    const mined = await run(["pow", "challenge", "--m", "64", "--n", "64", "--bits", "5", "-o", "json"]);
    expect(mined.code).toBe(0);
    const challenge = JSON.parse(mined.out) as { certificate: string; chainId: string };
    const file = join(home, "certificate.json");
    writeFileSync(file, mined.out);
    expect((await run(["pow", "verify", file])).out).toMatch(/^valid +true/);
    const hex = await run(["pow", "verify", challenge.certificate, "--bits", "5", "-o", "json"]);
    expect([hex.code, JSON.parse(hex.out).valid]).toEqual([0, true]);
    const last = challenge.certificate.slice(0, -4);
    const changed = await run(["pow", "verify", `${last}0000`, "-o", "json"]);
    expect(changed.code).toBe(1);
    expect(JSON.parse(changed.out)).toMatchObject({ valid: false });
    const other = await run(["pow", "verify", file, "--chain-id", "1", "-o", "json"]);
    expect([other.code, JSON.parse(other.out).reason]).toEqual([1, "chainId is 7357, this chain is 1"]);
  });
});

describe("profile", () => {
  it("times a step, prints a table that adds up and writes a Chrome trace", async () => {
    const { code, out, err } = await run(["profile", "mlp", "--batch", "8", "--steps", "2", "--threads", "1", "--backend", "cpu",
      "--trace", "step.json", "-o", "json"]);
    expect(code).toBe(0);
    expect(err).toMatch(/mlp, batch 8, cpu .*, 1 thread: [\d.]+ ms a step in its operations; trace in step.json/);
    const rows = JSON.parse(out) as { op: string; share: number; calls: number }[];
    expect(rows.find(({ op }) => op === "adam")!.calls).toBe(1);
    expect(rows.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 6);
    const { traceEvents } = JSON.parse(readFileSync(join(home, "step.json"), "utf8")) as { traceEvents: { cat?: string }[] };
    const perStep = rows.reduce((sum, { calls }) => sum + calls, 0);
    expect(traceEvents.filter(({ cat }) => cat === "operation")).toHaveLength(2 * perStep);
    expect(await refusal(["profile", "lenet"])).toMatch(/expected mlp, cnn, cnn-wide, gpt2, got "lenet"/);
    expect(await refusal(["profile", "mlp", "--steps", "0"])).toMatch(/--steps: expected a whole number/);
    expect(await refusal(["profile", "mlp", "--trace", "none/step.json", "--steps", "1", "--batch", "1"])).toMatch(/cannot write the trace/);
  });
});

describe("completion", () => {
  it("is a bash script that completes subcommands and options", async () => {
    const script = join(home, "completion.bash");
    writeFileSync(script, (await run(["completion", "bash"])).out);
    const complete = (...words: string[]) => execFileSync("bash", ["-c",
      'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _supernet; echo "${COMPREPLY[*]}"',
      "bash", script, ...words], { encoding: "utf8" }).trim().split(" ");
    expect(complete("supernet", "wal")).toEqual(["wallet"]);
    expect(complete("supernet", "wallet", "")).toContain("create");
    expect(complete("supernet", "wallet", "send", "--am")).toEqual(["--amount"]);
    expect(complete("supernet", "chain", "b")).toEqual(["block"]);
    expect((await run(["completion", "fish"])).out).toMatch(/^complete -c supernet /);
    expect((await run(["completion", "zsh"])).out).toMatch(/^#compdef supernet/);
  });
});

describe("the wallet", () => {
  const env = () => ({ TESRA_KEYSTORE: join(home, "keys") });

  it("makes, imports, lists and finds accounts of the standard path", async () => {
    const made = await run(["wallet", "create", "--light", "--words", "12", "--name", "new", "-o", "json"], { env: env() });
    const { phrase, address } = JSON.parse(made.out) as { phrase: string; address: string };
    expect(phrase.split(" ")).toHaveLength(12);
    // The phrase leads back to the same account, elsewhere.
    const back = await run(["wallet", "import", "--light", "--phrase-file", "-", "-o", "json"],
      { env: { TESRA_KEYSTORE: join(home, "back") }, input: `${phrase}\n` });
    expect(JSON.parse(back.out)).toMatchObject({ address });
    for (const [index, name] of ["me", "friend"].entries()) {
      const { code, out } = await run(["wallet", "import", "--light", "--phrase-file", "-",
        "--index", `${index}`, "--name", name], { env: env(), input: PHRASE });
      expect(code).toBe(0);
      expect(out).toContain(ACCOUNTS[index]);
      expect(out).not.toContain("junk");
    }
    const listed = JSON.parse((await run(["wallet", "list", "-o", "json"], { env: env() })).out);
    expect(listed.map((row: { name: string }) => row.name)).toEqual(["new", "me", "friend"]);
    expect((await run(["wallet", "address", "me"], { env: env() })).out).toBe(`${ACCOUNTS[0]}\n`);
    expect(await refusal(["wallet", "import", "--light", "--phrase-file", "-"], { env: env(), input: PHRASE }))
      .toMatch(/already in/);
    expect(await refusal(["wallet", "import", "--light", "--phrase-file", "-"], { env: env(), input: PHRASE.replace("junk", "test") }))
      .toMatch(/no BIP-39 phrase: .*got 12 words/);
    expect(readdirSync(join(home, "keys"))).toHaveLength(3);
  });

  it("passes a key file on with another password, and refuses a wrong one", async () => {
    const file = join(home, "keys", readdirSync(join(home, "keys")).find((f) => /f39fd6/i.test(f))!);
    const other = { TESRA_KEYSTORE: join(home, "copy") };
    expect(await refusal(["wallet", "import", "--keystore-file", file], { env: { ...other, TESRA_PASSWORD: "no" } }))
      .toMatch(/password does not open/);
    const { code, out } = await run(["wallet", "import", "--light", "--keystore-file", file], { env: other });
    expect([code, out]).toEqual([0, expect.stringContaining(ACCOUNTS[0])]);
    expect(await refusal(["wallet", "import", "--key-file", "-", "--password-file", "-"], { env: other }))
      .toMatch(/standard input cannot be both/);
    expect(await refusal(["wallet", "create"], { env: { ...other, TESRA_PASSWORD: "" } }))
      .toMatch(/give --password-file FILE or set TESRA_PASSWORD/);
  });

  it("signs a transfer that a node can check, and waits for it", async () => {
    const node = await fakeNode(10n ** 18n);
    try {
      const rpc = ["--rpc", node.url, "-o", "json"];
      const balance = JSON.parse((await run(["wallet", "balance", "me", ...rpc], { env: env() })).out);
      expect(balance).toMatchObject({ balance: "1", smallest: `1${"0".repeat(18)}`, address: ACCOUNTS[0].toLowerCase() });

      const poor = await run(["wallet", "send", "--from", "me", "--to", "friend", "--amount", "1", ...rpc], { env: env() });
      expect(poor.code).toBe(2);
      expect(poor.err).toMatch(/holds 1 TSR: not enough for 1 TSR and a fee/);
      expect(node.raw).toEqual([]);

      const sent = await run(["wallet", "send", "--from", "me", "--to", "friend", "--amount", "0.25", ...rpc], { env: env() });
      expect(sent.err).not.toMatch(/supernet:/);
      expect(JSON.parse(sent.out)).toMatchObject({ amount: "0.25", status: "success", from: ACCOUNTS[0] });
      expect(node.raw).toHaveLength(1);
      const raw = node.raw[0] as `0x02${string}`;
      expect(parseTransaction(raw)).toMatchObject({
        chainId: 7357, value: 25n * 10n ** 16n, to: expect.stringMatching(new RegExp(ACCOUNTS[1], "i")),
      });
      expect(await recoverTransactionAddress({ serializedTransaction: raw })).toBe(ACCOUNTS[0]);
    } finally {
      await node.close();
    }
  });
});

describe("the chain commands", () => {
  it("read a node", async () => {
    const node = await fakeNode(5n);
    try {
      const ask = async (...args: string[]) =>
        JSON.parse((await run(["chain", ...args, "--rpc", node.url, "-o", "json"])).out);
      expect(await ask("status")).toMatchObject({ chainId: 7357, height: 3, producer: ACCOUNTS[1] });
      expect(await ask("block", "3")).toMatchObject({ number: 3, transactions: [] });
      expect(await ask("account", ACCOUNTS[0])).toMatchObject({ smallest: "5", nonce: 0, codeBytes: 0 });
      const missing = await run(["chain", "tx", `0x${"00".repeat(32)}`, "--rpc", node.url]);
      expect(missing).toMatchObject({ code: 1, out: "" });
      expect(missing.err).toMatch(/does not know transaction/);
      const supply = await run(["chain", "supply", "--rpc", node.url]);
      expect(supply.code).toBe(1);
      expect(supply.err).toMatch(/does not know this method/);
    } finally {
      await node.close();
    }
  });
});

/** The few methods of a node that a wallet needs, over real HTTP. */
async function fakeNode(balance: bigint): Promise<{ url: string; raw: string[]; close(): Promise<void> }> {
  const raw: string[] = [];
  const hash = `0x${"11".repeat(32)}`;
  const block = {
    number: "0x3", hash, parentHash: hash, timestamp: "0x6553f100", miner: ACCOUNTS[1], stateRoot: hash,
    gasUsed: "0x0", gasLimit: "0x1c9c380", baseFeePerGas: "0x3b9aca00", transactions: [],
    nonce: "0x0000000000000000", difficulty: "0x0", extraData: "0x", logsBloom: `0x${"00".repeat(256)}`,
    uncles: [], size: "0x200", receiptsRoot: hash, transactionsRoot: hash, sha3Uncles: hash,
  };
  const answers: Record<string, (params: any[]) => unknown> = {
    eth_chainId: () => "0x1cbd",
    eth_blockNumber: () => "0x3",
    eth_getBlockByNumber: () => block,
    eth_getBalance: () => `0x${balance.toString(16)}`,
    eth_getTransactionCount: () => "0x0",
    eth_getCode: () => "0x",
    eth_maxPriorityFeePerGas: () => "0x3b9aca00",
    eth_gasPrice: () => "0x77359400",
    eth_estimateGas: () => "0x5208",
    eth_sendRawTransaction: ([tx]) => {
      raw.push(tx);
      return keccak256(tx);
    },
    eth_getTransactionByHash: () => null,
    eth_getTransactionReceipt: ([wanted]) => raw.some((tx) => keccak256(tx as `0x${string}`) === wanted) ? {
      transactionHash: wanted, transactionIndex: "0x0", blockHash: hash, blockNumber: "0x3", from: ACCOUNTS[0],
      to: ACCOUNTS[1], cumulativeGasUsed: "0x5208", gasUsed: "0x5208", effectiveGasPrice: "0x77359400",
      contractAddress: null, logs: [], logsBloom: block.logsBloom, status: "0x1", type: "0x2",
    } : null,
  };
  const server: Server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => { body += chunk; });
    request.on("end", () => {
      const { id, method, params } = JSON.parse(body);
      const answer = answers[method];
      const reply = answer ? { result: answer(params ?? []) }
        : { error: { code: -32601, message: `the method ${method} does not exist` } };
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ jsonrpc: "2.0", id, ...reply }));
    });
  });
  await new Promise<void>((listening) => { server.listen(0, "127.0.0.1", listening); });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`, raw,
    close: () => new Promise((closed) => {
      server.closeAllConnections();
      server.close(() => closed());
    }),
  };
}

/**
 * Owns `supernet pow`: mine one challenge here, judge a certificate from anywhere, hash by CN2.
 */
import type { Command } from "commander";
import type { Certificate } from "../chain/certificate/certificate.js";
import type { CertificateDevice } from "../chain/certificate/miner.js";
import type { CliContext } from "./context.js";
import { OperationalError, UserError } from "./errors.js";
import { hexBytes, wholeNumber } from "./options.js";

/** 2^40 expected products would take centuries: a larger number is a slip. */
const BITS_MAX = 40;
/** Nonces between two looks at the clock and the progress line. */
const NONCES_PER_ROUND = 4;
const FILE_BYTES_MAX = 64 * 1024;

interface ChallengeOptions {
  bits: string; m: string; n: string; k: string; chainId: string; height: string;
  tip?: string; keyFile?: string; reference?: boolean;
}

export function register(program: Command, context: CliContext): void {
  const pow = program.command("pow").description("mine and verify proof-of-work challenges");

  pow.command("challenge")
    .description("mine one challenge certificate and print it")
    .option("--bits <n>", "difficulty: one ticket in 2^n wins", "8")
    .option("--m <rows>", "rows of A", "256")
    .option("--n <columns>", "columns of B", "256")
    .option("--k <depth>", "columns of A = rows of B", "2048")
    .option("--chain-id <id>", "chain the certificate is for", "7357")
    .option("--height <h>", "height of the block that gives the challenge", "0")
    .option("--tip <hash>", "hash of that block; default: random")
    .option("--key-file <file>", "private key, 64 hex digits (\"-\": standard input); default: a new one")
    .option("--reference", "use the plain reference, not the device")
    .addHelpText("after", `
Examples:
  $ supernet pow challenge --bits 12 -o json > certificate.json
  $ supernet pow challenge --m 1024 --n 1024 --k 4096 --bits 16`)
    .action((options: ChallengeOptions) => challenge(context, options));

  pow.command("cn2").argument("<hex>", "the bytes to hash, as hex digits; \"\" for none")
    .description("print the CN2 (CryptoNight variant 2) hash of some bytes")
    .option("--json", "as JSON, like -o json")
    .addHelpText("after", `
Example:
  $ supernet pow cn2 5468697320697320612074657374205468697320697320612074657374205468697320697320612074657374
  353fdc068fd47b03c04b9431e005e00b68c2168a3cc7335c8b9b308156591a4f`)
    .action((text: string, options: { json?: boolean }) => cn2(context, text, options));

  pow.command("verify").argument("<certificate>", "JSON file of `pow challenge`, or hex of the encoding")
    .description("check a certificate: form, signature, Pell identity, tile and ticket")
    .option("--bits <n>", "difficulty to judge by; default: the file's, else report the ticket's own")
    .option("--chain-id <id>", "chain it must be for; default: its own")
    .option("--reference", "use the plain reference, not the device")
    .addHelpText("after", `
Exit code 0: valid; 1: not.

Examples:
  $ supernet pow verify certificate.json
  $ supernet pow verify 0xf8a3... --bits 12 -o json`)
    .action((source: string, options: VerifyOptions) => verify(context, source, options));
}

async function challenge(context: CliContext, options: ChallengeOptions): Promise<void> {
  const bits = wholeNumber("--bits", options.bits, 0, BITS_MAX);
  const { dimsFault } = await import("../chain/certificate/tile.js");
  const dims = {
    m: wholeNumber("--m", options.m, 0, 2 ** 20),
    n: wholeNumber("--n", options.n, 0, 2 ** 20),
    k: wholeNumber("--k", options.k, 0, 2 ** 20),
  };
  const fault = dimsFault(dims);
  if (fault) throw new UserError(`--${fault}`);
  const chainId = BigInt(wholeNumber("--chain-id", options.chainId, 1, Number.MAX_SAFE_INTEGER));
  const height = wholeNumber("--height", options.height, 0, Number.MAX_SAFE_INTEGER);
  const { randomBytes } = await import("node:crypto");
  const tip = options.tip === undefined ? randomBytes(32) : hexBytes("--tip", options.tip, 32);
  const privateKey = await minerKey(context, options.keyFile);
  const target = targetOfBits(bits, dims.k);

  const { createMiner } = await import("../chain/certificate/miner.js");
  const { certificateHash, certificateMiner, encodeCertificate } =
    await import("../chain/certificate/certificate.js");
  const { verifyCertificate } = await import("../chain/certificate/verify.js");
  const output = await context.output();
  const { signal } = context;
  const opened = options.reference ? undefined : await openMiningDevice(context);
  if (opened?.hint) output.note(opened.hint);
  const device = opened?.device;
  const pause = () => new Promise<void>((turn) => { setImmediate(turn); });
  const miner = createMiner({ chainId, privateKey, dims, pause, ...(device ? { device } : {}) });

  const started = performance.now();
  const ticketsPerNonce = (dims.m * dims.n) / 128;
  let multiplyAdds = 0n;
  let nonces = 0;
  let found: Certificate | undefined;
  const progress = output.progress("Mining", 2 ** bits / ticketsPerNonce);
  while (!found && !signal.aborted) {
    const result = await miner.mine({
      height, tip, target, nonceStart: BigInt(nonces + 1), maxNonces: NONCES_PER_ROUND,
      maxCertificates: 1, signal,
    });
    nonces += result.noncesTried;
    multiplyAdds += result.multiplyAdds;
    found = result.certificates[0];
    progress.update(nonces);
  }
  progress.stop();
  opened?.close();
  if (!found) {
    output.note(`${nonces} nonces tried, nothing found.`);
    signal.throwIfAborted();
    throw new OperationalError("every nonce was tried");
  }
  const seconds = (performance.now() - started) / 1_000;
  const verdict = verifyCertificate(found, { chainId, dims, target });
  if (!verdict.ok) throw new OperationalError(`the mined certificate is not valid: ${verdict.reason}`);
  const encoded = encodeCertificate(found);
  output.record({
    certificate: encoded, bytes: encoded.length, hash: certificateHash(found), target: hex(target),
    chainId, height, tip, miner: certificateMiner(found), nonce: found.nonce, tile: found.tile,
    ...dims, ticket: verdict.ticket, nonces, seconds: Number(seconds.toFixed(3)), multiplyAdds,
    multiplyAddsPerSecond: Math.round(Number(multiplyAdds) / seconds),
    backend: opened?.name ?? "reference",
  });
}

async function cn2(context: CliContext, text: string, options: { json?: boolean }): Promise<void> {
  const data = text === "" ? new Uint8Array(0) : hexText(text, "<hex>");
  const output = await context.output();
  const { openDevice } = await import("../device/device.js");
  const device = openDevice({ backend: "cpu", threads: 1 });
  const hash = Buffer.from(device.cn2Hash(data)).toString("hex");
  device.close();
  if (options.json) output.text(JSON.stringify({ hash, bytes: data.length }));
  else output.event({ hash, bytes: data.length }, hash);
}

interface VerifyOptions { bits?: string; chainId?: string; reference?: boolean }

async function verify(context: CliContext, source: string, options: VerifyOptions): Promise<void> {
  const { certificateHash, certificateMiner, CertificateError, decodeCertificate } =
    await import("../chain/certificate/certificate.js");
  const { dimsFault } = await import("../chain/certificate/tile.js");
  const { verifyCertificate } = await import("../chain/certificate/verify.js");
  const { encoded, target: fileTarget } = await readCertificate(context, source);
  const output = await context.output();
  let certificate: Certificate;
  try {
    certificate = decodeCertificate(encoded);
  } catch (error) {
    if (!(error instanceof CertificateError)) throw error;
    output.record({ valid: false, reason: error.message });
    context.setExitCode(1);
    return;
  }
  const { m, n, k } = certificate;
  const fault = dimsFault({ m, n, k }); // here the certificate names its own shape: bound it
  const bits = options.bits === undefined ? undefined
    : wholeNumber("--bits", options.bits, 0, BITS_MAX);
  const chainId = options.chainId === undefined ? certificate.chainId
    : BigInt(wholeNumber("--chain-id", options.chainId, 1, Number.MAX_SAFE_INTEGER));
  const target = bits === undefined ? fileTarget ?? 2n ** 256n - 1n : targetOfBits(bits, k);
  const opened = options.reference ? undefined : await openMiningDevice(context);
  const verdict = fault === undefined
    ? verifyCertificate(certificate, { chainId, dims: { m, n, k }, target }, opened?.device)
    : { ok: false as const, reason: fault };
  opened?.close();
  output.record({
    valid: verdict.ok, ...(verdict.ok ? {} : { reason: verdict.reason }),
    hash: certificateHash(certificate), chainId: certificate.chainId, height: certificate.height,
    tip: certificate.tip, miner: verdict.ok ? certificateMiner(certificate) : undefined,
    nonce: certificate.nonce, tile: certificate.tile, m, n, k,
    target: bits === undefined && fileTarget === undefined ? "none given" : hex(target),
    ...(verdict.ok ? { ticket: verdict.ticket, multiplyAdds: verdict.multiplyAdds } : {}),
    backend: opened?.name ?? "reference",
  });
  if (!verdict.ok) context.setExitCode(1);
}

async function readCertificate(
  context: CliContext, source: string,
): Promise<{ encoded: Uint8Array; target?: bigint }> {
  if (/^0x[0-9a-fA-F]*$/.test(source) || /^[0-9a-fA-F]{200,}$/.test(source)) {
    return { encoded: hexText(source, "the certificate") };
  }
  const { readFile } = await import("node:fs/promises");
  const { resolve } = await import("node:path");
  const { fileFault } = await import("./errors.js");
  let text: string;
  try {
    const bytes = await readFile(resolve(context.world.cwd, source));
    if (bytes.length > FILE_BYTES_MAX) throw new Error(`${bytes.length} bytes is no certificate`);
    text = bytes.toString("utf8").trim();
  } catch (error) {
    throw fileFault("read the certificate", source, error);
  }
  if (!text.startsWith("{")) return { encoded: hexText(text, source) };
  const { z } = await import("zod");
  const { checkInput } = await import("./config.js");
  const schema = z.object({ certificate: z.string(), target: z.string().regex(/^0x[0-9a-f]{1,64}$/).optional() });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new UserError(`${source} is neither JSON nor hex: expected the output of \`pow challenge -o json\``);
  }
  const { certificate, target } = checkInput(schema, json, (key) => `${source}: key "${key}"`);
  const encoded = hexText(certificate, `${source}: key "certificate"`);
  return target === undefined ? { encoded } : { encoded, target: BigInt(target) };
}

function hexText(text: string, where: string): Uint8Array {
  if (!/^(0x)?([0-9a-fA-F]{2})+$/.test(text)) {
    throw new UserError(`${where}: expected hex digits, got "${text.slice(0, 40)}"`);
  }
  return Uint8Array.from(Buffer.from(text.replace(/^0x/, ""), "hex"));
}

async function minerKey(context: CliContext, file: string | undefined): Promise<Uint8Array> {
  const { randomBytes } = await import("node:crypto");
  const { isPrivateKey } = await import("../chain/certificate/secp256k1.js");
  if (file === undefined) {
    for (;;) {
      const key = randomBytes(32);
      if (isPrivateKey(key)) return key; // all but one in 2^128
    }
  }
  const { readSecret } = await import("./secrets.js");
  const text = await readSecret(context.world, file, "private key");
  const key = Buffer.from(/^(0x)?[0-9a-fA-F]{64}$/.test(text) ? text.replace(/^0x/, "") : "", "hex");
  if (!isPrivateKey(key)) throw new UserError(`${file} holds no private key: expected 64 hex digits`);
  return key;
}

/** The target T at which one ticket in 2^bits wins: the bound is floor(T * k / 4096). */
function targetOfBits(bits: number, k: number): bigint {
  const target = (2n ** BigInt(256 - bits) * 4_096n) / BigInt(k);
  return target < 2n ** 256n ? target : 2n ** 256n - 1n;
}

/** The device, or why there is none: mining and checking go on without it. */
async function openMiningDevice(context: CliContext): Promise<
  { device?: CertificateDevice; name: string; hint?: string; close: () => void }
> {
  const { device: wanted } = await context.settings();
  const url = new URL("../device/device.js", import.meta.url).href;
  try {
    const { openDevice } = await import(url) as {
      openDevice(options: object): CertificateDevice
        & { backend: string; isa: string; threads: number; close(): void };
    };
    const device = openDevice({ ...wanted });
    const name = `${device.backend} ${device.isa}, ${device.threads} thread(s)`;
    return { device, name, close: () => device.close() };
  } catch (error) {
    if (wanted.backend === "cuda") throw new OperationalError((error as Error).message);
    return {
      name: "reference", close: () => {},
      hint: `No device (${(error as Error).message.split("\n")[0]}): the plain reference is used, `
        + "which is hundreds of times slower.",
    };
  }
}

const hex = (value: bigint) => `0x${value.toString(16)}`;

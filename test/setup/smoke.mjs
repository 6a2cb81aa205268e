// Smoke test of a built clone on this version of Node: the three native parts (chain store, CURVE link, compute
// addon) do their work, not only load. Run: node test/setup/smoke.mjs; exits 1 with the first failure.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { openDevice } from "tesra-supernet";
import { addressOfPrivateKey, Chain, createDevnetGenesis, openRocksStore, blsPublicKey, blsSecretKeyFromSeed } from "tesra-supernet/chain";
import { behavior, createSystem, curveKeys, defineProtocol } from "tesra-supernet/runtime";

const folder = mkdtempSync(join(tmpdir(), "tesra-smoke-"));

async function chainStore() {
  const address = `0x${Buffer.from(addressOfPrivateKey(new Uint8Array(32).fill(1))).toString("hex")}`;
  const secret = blsSecretKeyFromSeed(new Uint8Array(32).fill(2));
  const genesis = createDevnetGenesis({
    chainId: 7357, timestampMs: 1_700_000_000_000, allocations: [],
    validators: [{ address, blsPublicKey: blsPublicKey(secret), stake: 10n ** 18n }],
  });
  let root;
  for (const life of ["first", "second"]) {
    const store = await openRocksStore(join(folder, "chain"));
    const chain = await Chain.open({ store, genesis });
    const hash = Buffer.from(chain.head.hash).toString("hex");
    assert.equal(hash, root ??= hash, `the ${life} opening found another block 0`);
    const { total } = await chain.ledger();
    assert.equal(total, 10n ** 28n);
    await store.close();
  }
  return `block 0 ${root.slice(0, 12)} written and read again, ledger exact`;
}

async function curveLink() {
  const Echo = defineProtocol("smoke.echo", 1, {
    call: { twice: { request: z.object({ x: z.instanceof(Float32Array) }), reply: z.instanceof(Float32Array) } },
  });
  const [server, client] = [createSystem({ name: "server" }), createSystem({ name: "client" })];
  server.spawn(behavior(Echo, () => ({ call: { twice: ({ x }) => x.map((each) => 2 * each) } })), { name: "echo" });
  const [serverKeys, clientKeys] = [curveKeys(), curveKeys()];
  const listener = await server.listen({ endpoint: "tcp://127.0.0.1:0", keys: serverKeys, allow: (key) => key === clientKeys.publicKey });
  const peer = await client.connect({ endpoint: listener.endpoint, serverKey: serverKeys.publicKey, keys: clientKeys, timeoutMs: 5_000 });
  const reply = await peer.ref(Echo, "echo").call("twice", { x: new Float32Array([1, 2.5]) }, { timeoutMs: 5_000 });
  assert.deepEqual(reply, { ok: true, value: new Float32Array([2, 5]) });
  await client.shutdown({ deadlineMs: 2_000 });
  await server.shutdown({ deadlineMs: 2_000 });
  return "a tensor there and back over CURVE";
}

async function addon() {
  const device = openDevice({ backend: "cpu" });
  const product = device.int8Gemm(new Int8Array([1, 2, 3, 4]), new Int8Array([5, 6, 7, 8]), { m: 2, n: 2, k: 2 });
  assert.deepEqual([...product], [17, 23, 39, 53]);
  const digest = Buffer.from(device.blake3(new Uint8Array(0))).toString("hex");
  assert.equal(digest, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"); // official vector
  const { isa } = device;
  device.close();
  return `integer product and BLAKE3 right on ${isa}`;
}

try {
  for (const check of [addon, chainStore, curveLink]) console.log(`ok  ${check.name}: ${await check()}`);
  console.log(`Node ${process.versions.node} is fine`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

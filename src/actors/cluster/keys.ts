// Owns who is who in a direct cluster: every task's key pair follows from the cluster's secret, and whoever calls
// proves the secret over both node ids, which the links themselves have proven.
// Invariant: without a secret a cluster lives on loopback and ipc alone, where the host keeps others out.
import { createHmac, timingSafeEqual } from "node:crypto";
import { curveKeysFromSecret, type CurveKeys } from "../../runtime/index.js";
import { TrainingError, type ClusterSpec } from "../../training/index.js";

const SECRET_LENGTH_MIN = 16;
const NO_SECRET = "";

/** The ZeroMQ endpoint of an address of a ClusterSpec. */
export function endpointOf(address: string): string {
  return /^(tcp|ipc|inproc):\/\//.test(address) ? address : `tcp://${address}`;
}

/** Throws TrainingError where the cluster needs a secret and has none. */
export function checkSecret(cluster: ClusterSpec, secret: string | undefined): string {
  if (secret !== undefined) {
    if (typeof secret !== "string" || secret.length < SECRET_LENGTH_MIN) {
      throw new TrainingError("cluster", `the cluster's secret must be at least ${SECRET_LENGTH_MIN} characters`);
    }
    return secret;
  }
  const open = cluster.tasks().find(({ address }) => !/^(tcp:\/\/(127\.\d+\.\d+\.\d+|localhost|\[::1\]):|ipc:)/.test(endpointOf(address)));
  if (open === undefined) return NO_SECRET;
  throw new TrainingError("cluster", `${open.address} can be reached from other machines: give all servers and clients ` +
    "of the cluster one secret ({ secret })", { address: open.address });
}

export function taskKeys(secret: string, task: string): CurveKeys {
  return curveKeysFromSecret(createHmac("sha256", `tesra-cluster/1 ${secret}`).update(task).digest("hex"));
}

/** That `from` knows the secret; it is of no use to any other node, nor at any other. */
export function proofOf(secret: string, from: string, to: string): Uint8Array {
  return createHmac("sha256", `tesra-cluster-proof/1 ${secret}`).update(`${from}>${to}`).digest();
}

export function isProof(proof: Uint8Array, secret: string, from: string, to: string): boolean {
  const expected = proofOf(secret, from, to);
  return proof.length === expected.length && timingSafeEqual(proof, expected);
}

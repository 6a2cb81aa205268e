// Owns the thread of a PoW node in which the search runs: matrices and products of a nonce take milliseconds of a
// core, and the main thread serves links. Invariant: one search at a time; the private key stays in this process.
import { workerData } from "node:worker_threads";
import { encodeCertificate } from "../../chain/certificate/certificate.js";
import { createMiner } from "../../chain/certificate/miner.js";
import { openDevice } from "../../device/device.js";
import { exposeThread } from "../../runtime/host/threads.js";
import type { SearchThread, SearchThreadData } from "./search.js";

const { chainId, privateKey, dims, compute } = workerData as SearchThreadData;
const device = openDevice({ backend: compute.backend, threads: compute.threads, gpu: compute.gpu });
const miner = createMiner({ device, chainId, privateKey, dims });

const thread: SearchThread = {
  async search(request) {
    const startMs = performance.now();
    const { certificates, noncesTried, multiplyAdds } = await miner.mine(request);
    return { certificates: certificates.map(encodeCertificate), noncesTried, multiplyAdds, busyMs: performance.now() - startMs };
  },
};
exposeThread(thread);

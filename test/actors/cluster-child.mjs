// One server of a cluster in a process of its own: says that it serves, joins, and ends by itself.
// The files themselves: a server needs no chain, and four of them start.
import { createServer } from "../../dist/actors/cluster/cluster-server.js";
import { ClusterSpec } from "../../dist/training/index.js";

const { cluster, job, task } = JSON.parse(process.argv[2]);
const server = await createServer(new ClusterSpec(cluster), { job, task, device: { backend: "cpu", threads: 1 } });
console.log("serving");
await server.join();
console.log("joined");

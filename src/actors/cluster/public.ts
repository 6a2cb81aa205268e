// The subpath entry "tesra-supernet/cluster": servers and clients of a direct cluster, without chain or market, so
// that a server starts in a fraction of the time that the whole package takes to load.
import { ClusterSpec, train as description } from "../../training/index.js";
import { createServer } from "./cluster-server.js";
import { connectCluster } from "./connect-cluster.js";

export type { ClusterServerOptions } from "./cluster-server.js";
export type { ConnectClusterOptions } from "./connect-cluster.js";

/** The white paper's names, 2.8: `train.ClusterSpec`, `train.Server`. */
export const train = { ClusterSpec, Server: { create: createServer }, replicaDeviceSetter: description.replicaDeviceSetter } as const;
/** White paper, 2.6: `Session.connect("tesra://host:port", { graph, cluster })`. */
export const Session = { connect: connectCluster } as const;

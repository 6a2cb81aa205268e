// The subpath entry "tesra-supernet/cluster": servers and clients of a direct cluster, without chain or market, so
// that a server starts in a fraction of the time that the whole package takes to load.
export { createServer, type ClusterServerOptions } from "./cluster-server.js";
export { connectCluster, type ConnectClusterOptions } from "./connect-cluster.js";

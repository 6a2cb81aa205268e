// The public entry of `tesra-supernet`: everything that composes the libraries. The libraries themselves are the
// subpath entries /runtime, /chain, /training, /cluster and /scheduler.
export { LocalNetwork, type LocalNetworkEvent, type LocalNetworkOptions } from "./actors/local-network.js";
export { startNode, NodeStartError, type RunningNode } from "./actors/node/node.js";
export { NodeConfigSchema, type NodeAddress, type NodeConfig, type Role } from "./actors/node/config.js";
export { connectSession, type ConnectOptions, type DatasetFeeds } from "./actors/client/connect-session.js";
export { TaskClient, TaskFailed, type ClientEvent, type TrainOutcome, type TrainRequest } from "./actors/client/task-client.js";
export { readTaskAccount, type LedgerRow, type TaskAccount } from "./actors/market.js";
export { Transactor, TransactionFailed } from "./actors/chain-node/transactor.js";
export { openDevice, probe, type Device } from "./device/device.js";
export { openSharedMemory, type NativeSharedMemory, type SharedMemoryOptions } from "./device/shared-memory.js";

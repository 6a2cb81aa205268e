// Owns the shape of a node's configuration file: one role, its keys, where it listens, whom it joins.
// Invariant: a config that parses is complete; nothing is filled in later from the environment.
import { z } from "zod";

const hex = (bytes: number) => z.string().regex(new RegExp(`^0x[0-9a-fA-F]{${bytes * 2}}$`), `expected 0x and ${bytes * 2} hex digits`);
const curveKey = z.string().regex(/^[0-9a-f]{64}$/, "expected a CURVE key of 64 lower-case hex digits");

export const ROLES = ["master", "pos", "pow", "worker", "ps"] as const;
export type Role = (typeof ROLES)[number];

/** Where another node listens: a ZeroMQ endpoint and its CURVE public key, which is its node id. */
export const AddressSchema = z.strictObject({
  endpoint: z.string().min(1), serverKey: curveKey,
  /** The listener there speaks without CURVE (ipc and loopback alone; ids are proven all the same). */
  plain: z.boolean().optional(),
});
export type NodeAddress = z.infer<typeof AddressSchema>;

export const NodeConfigSchema = z.strictObject({
  role: z.enum(ROLES),
  name: z.string().min(1).max(64),
  /** Folder of this node alone: chain store, shard store, checkpoints. */
  dataDir: z.string().min(1),
  /** ZeroMQ endpoint to listen on (tcp://host:port or ipc://path). */
  listen: z.string().min(1),
  /** Listens without CURVE: taken on ipc and loopback alone, where the kernel keeps others out. */
  plain: z.boolean().default(false),
  curve: z.strictObject({ publicKey: curveKey, secretKey: curveKey }),
  /** Account that signs transactions, certificates and blocks. */
  privateKey: hex(32),
  /** BLS secret key of the leader proof; PoS nodes only. */
  blsSecretKey: hex(32).optional(),
  /** Genesis file (JSON). */
  genesis: z.string().min(1),
  /** Nodes to join through; empty for the first master. */
  bootstrap: z.array(AddressSchema).default([]),
  /** HTTP JSON-RPC; port 0 lets the system choose. Chain nodes only. */
  rpc: z.strictObject({ host: z.string().default("127.0.0.1"), port: z.number().int().min(0).max(65535) }).optional(),
  compute: z.strictObject({
    backend: z.enum(["auto", "cpu", "cuda"]).default("auto"),
    /** CPU threads of the training and mining kernels. */
    threads: z.number().int().min(1).max(1024).default(1),
    /** Opaque CUDA device id. */
    gpu: z.string().optional(),
  }).default({ backend: "auto", threads: 1 }),
  /** A worker's limits for one task; actors/worker/vm has the defaults. */
  task: z.strictObject({
    /** A plan and its optimizer's moments; a job that needs more is refused. Default 4096. */
    memoryMiB: z.number().int().min(1).max(65_536).optional(),
    /** A step that takes longer ends its process. Default 600. */
    stepSeconds: z.number().int().min(1).max(86_400).optional(),
  }).optional(),
  pow: z.strictObject({
    /** Share of one executor's time spent on challenges while the network has no paid work. */
    dutyCycle: z.number().gt(0).max(1).default(1),
    /** The same while paid work runs on the network (training products are the useful proof then). */
    dutyCycleWhilePaidWork: z.number().min(0).max(1).default(0.05),
  }).default({ dutyCycle: 1, dutyCycleWhilePaidWork: 0.05 }),
});
export type NodeConfig = z.infer<typeof NodeConfigSchema>;

/** The subpath entry "tesra-supernet/training": what users of the training library may import. */
export { Graph, Tensor, type GraphNode, type GraphOptions } from "./graph/graph.js";
export { formatDevice, mergeDevices, parseDevice, type DeviceChooser, type DeviceSpec } from "./graph/device-spec.js";
export { BATCH, type DType } from "./graph/ops.js";
export { partition, type Partition, type Transfer } from "./graph/partition.js";
export { gradients } from "./graph/autodiff.js";
export { glorotUniform, heUniform, type Initializer } from "./graph/initializer.js";
export { canonicalJob, jobId, JOB_FORMAT, type Job, type RunPlan } from "./graph/canonical.js";
export { DEFAULT_JOB_LIMITS, parseJob, type JobLimits, type ParsedJob } from "./graph/parse.js";
export * as nn from "./nn.js";
export {
  cnn, gpt2, GPT2_SMALL, llama, LLAMA_SMALL, mlp, MODELS, type GptOptions, type LanguageModel, type LlamaOptions, type ModelName,
} from "./models.js";
export * as optim from "./optimizer/optim.js";
export type { LinearDecay, OptimizerDescriptor } from "./optimizer/descriptor.js";
export type { AsyncRules, TrainOperation } from "./optimizer/optim.js";
export {
  compileEvaluation, compileLocalTraining, compileStep, type Compiled, type CompiledTensors, type CompileOptions,
} from "./compile/compile.js";
export { compileFetches, type CompiledFetches, type FetchOptions, type PlanEnd } from "./compile/fetch.js";
export { FetchPlan, type Feeds, type FetchRun } from "./fetch-plan.js";
export { initialParameters, initialParametersOn, parameterLayout, type ParameterLayout, type ParameterSlot } from "./compile/layout.js";
export {
  Evaluator, LocalTrainStep, TrainStep, type EvaluationResult, type Inputs, type StepResult,
} from "./train-step.js";
export { BatchSampler, epochOrder, type Batch } from "./sample-order.js";
export {
  ParameterStore, type ParameterStoreOptions, type Push, type PushResult, type RejectReason, type StoreSnapshot,
} from "./parameter-server/parameter-store.js";
export { CheckpointDirectory, type CheckpointOptions, type LoadedCheckpoint } from "./parameter-server/checkpoint.js";
export { createUpdateKernels } from "./parameter-server/device-kernels.js";
export type { UpdateKernels } from "./parameter-server/update-kernels.js";
export type { UpdateEntry } from "./parameter-server/update-log.js";
export { memorySource, openFileSource, type ByteSource } from "./format/byte-source.js";
export type { ElementArray, ElementType } from "./format/element-type.js";
export {
  exportWeights, gpt2WeightMap, importWeights, llamaWeightMap, type LlamaMapOptions, type WeightMap, type WeightMapping,
} from "./format/hugging-face.js";
export { exportOnnx, type OnnxExportOptions } from "./format/onnx/export.js";
export { importOnnx, ONNX_OPERATORS, type OnnxImportOptions, type OnnxModel } from "./format/onnx/import.js";
export type { ExternalData } from "./format/onnx/tensor.js";
export { decodeNpy, encodeNpy } from "./format/npy.js";
export {
  decodeSafetensors, encodeSafetensors, SafetensorsFile, safetensorsChunks, type NamedTensor, type StoredTensor, type TensorEntry,
} from "./format/safetensors.js";
export { sampleToken, type SamplingOptions } from "./text/sampling.js";
export { TextGenerator, type GenerateOptions, type TextModel } from "./text/text-generator.js";
export { BpeTokenizer, byteTokenizer, type Tokenizer } from "./text/tokenizer.js";
export { encodeTokenShard, TokenShards, type TokenBatch, type TokenShardOptions } from "./format/token-shard.js";
export { Session, type Progress, type RunOptions, type SessionLink, type SessionModules, type SessionOptions, type SubmittedJob } from "./cluster/session.js";
export { combineMetrics, MemoryMetrics, type HistogramCounts, type MetricRecord, type MetricsSink } from "./metrics/sink.js";
export { JsonLinesMetrics, TensorBoardMetrics, type TensorBoardOptions } from "./metrics/metrics-files.js";
export { recordTraining, type TrainingFigures } from "./metrics/training-metrics.js";
export { GraphError, JobError, SessionError, TrainingError } from "./errors.js";

import { ClusterSpec } from "./cluster/cluster-spec.js";
import { replicaDeviceSetter } from "./cluster/replica-device-setter.js";
import { Server } from "./cluster/server.js";
export type { ClusterDefinition, TaskPlace } from "./cluster/cluster-spec.js";
export type { ReplicaDeviceOptions } from "./cluster/replica-device-setter.js";
export type { RunningServer, ServerDescriptor, ServerHost, ServerOptions } from "./cluster/server.js";

/** The names of the white paper, 2.8: `train.ClusterSpec`, `train.Server`. */
export const train = { ClusterSpec, Server, replicaDeviceSetter } as const;
export { ClusterSpec, Server };

// Owns: the one error class of this area. Invariant: `code` is one of DeviceErrorCode whatever the
// native side threw, and the message is a whole sentence.

export type DeviceErrorCode =
  | "argument" | "shape" | "memory" | "unsupported" | "device" | "unavailable" | "capacity"
  | "busy" | "closed" | "addon_missing" | "addon_load" | "addon_version";

export class DeviceError extends Error {
  override readonly name = "DeviceError";
  readonly code: DeviceErrorCode;
  /** What to do about it; empty when the message says it all. */
  readonly hint: string;
  /** The plan operation at fault, when there is one. */
  readonly op: string | undefined;
  readonly opIndex: number | undefined;

  constructor(code: DeviceErrorCode, message: string, details: { hint?: string; op?: string; opIndex?: number; cause?: unknown } = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint ?? "";
    this.op = details.op;
    this.opIndex = details.opIndex;
  }
}

const HINTS: Partial<Record<string, string>> = {
  busy: "Await the promise of the run under way before starting another.",
  closed: "Open a new device.",
  memory: "Use smaller batches or matrices, or a machine with more memory.",
  device: "Check the GPU with nvidia-smi, or open the device with backend: \"cpu\".",
};

const CODES = new Set<string>(["argument", "shape", "memory", "unsupported", "device", "unavailable", "capacity", "busy", "closed"]);

/** Wraps whatever the addon threw; errors from elsewhere pass through unchanged. */
export function toDeviceError(error: unknown): unknown {
  if (error instanceof DeviceError || !(error instanceof Error)) return error;
  const { code, op, opIndex } = error as Error & { code?: unknown; op?: string; opIndex?: number };
  if (typeof code !== "string" || !CODES.has(code)) return error;
  const details: ConstructorParameters<typeof DeviceError>[2] = { hint: HINTS[code] ?? "", cause: error };
  if (op !== undefined) details.op = op;
  if (opIndex !== undefined) details.opIndex = opIndex;
  return new DeviceError(code as DeviceErrorCode, error.message, details);
}

export function guard<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw toDeviceError(error);
  }
}

export async function guardAsync<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw toDeviceError(error);
  }
}

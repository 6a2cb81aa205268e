// Owns: what a protocol is and the types read off it. Invariant: a protocol is plain immutable data; the schemas
// are run at the wire only, a local message is handed over by reference and unchecked.
import type { z } from "zod";

export interface CallSchema {
  readonly request: z.ZodType;
  readonly reply: z.ZodType;
}

export interface Protocol<
  C extends Record<string, CallSchema> = Record<string, CallSchema>,
  K extends Record<string, z.ZodType> = Record<string, z.ZodType>,
> {
  readonly name: string;
  readonly version: number;
  /** The oldest version whose messages this one understands: nodes may differ within that range. */
  readonly compatibleFrom: number;
  readonly call: C;
  readonly cast: K;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyProtocol = Protocol<any, any>;

export type CallName<P extends AnyProtocol> = keyof P["call"] & string;
export type CastName<P extends AnyProtocol> = keyof P["cast"] & string;
export type Request<P extends AnyProtocol, N extends CallName<P>> = z.output<P["call"][N]["request"]>;
export type Reply<P extends AnyProtocol, N extends CallName<P>> = z.output<P["call"][N]["reply"]>;
export type Message<P extends AnyProtocol, N extends CastName<P>> = z.output<P["cast"][N]>;

/** Protocol and message names share one form, so that they can stand in logs, metrics and frames unescaped. */
const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;

/**
 * Declares a protocol. `call` messages have a reply, `cast` messages have none.
 * @throws TypeError when a name or the version is not usable.
 */
export function defineProtocol<
  // eslint-disable-next-line @typescript-eslint/no-empty-object-type
  C extends Record<string, CallSchema> = {},
  // eslint-disable-next-line @typescript-eslint/no-empty-object-type
  K extends Record<string, z.ZodType> = {},
>(name: string, version: number, shape: { readonly call?: C; readonly cast?: K; readonly compatibleFrom?: number }): Protocol<C, K> {
  const call = { ...shape.call } as C;
  const cast = { ...shape.cast } as K;
  for (const each of [name, ...Object.keys(call), ...Object.keys(cast)]) {
    if (!NAME.test(each)) {
      throw new TypeError(`a protocol or message name must match ${NAME}, got ${JSON.stringify(each)}`);
    }
  }
  if (!Number.isSafeInteger(version) || version < 1) {
    throw new TypeError(`the version of protocol ${name} must be an integer from 1, got ${version}`);
  }
  const compatibleFrom = shape.compatibleFrom ?? version;
  if (!Number.isSafeInteger(compatibleFrom) || compatibleFrom < 1 || compatibleFrom > version) {
    throw new TypeError(`compatibleFrom of protocol ${name} must be an integer from 1 to ${version}, got ${compatibleFrom}`);
  }
  return Object.freeze({ name, version, compatibleFrom, call: Object.freeze(call), cast: Object.freeze(cast) });
}

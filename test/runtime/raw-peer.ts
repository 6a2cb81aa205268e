// A peer that speaks the link protocol over bare ZeroMQ sockets, and breaks it where a test says so.
import { randomBytes } from "node:crypto";
import * as zmq from "zeromq";
import { curveKeys, type CurveKeys } from "../../src/runtime/index.js";
import { bodyOf, encodeHello, Proofs, splitMac, type Hello } from "../../src/runtime/remote/handshake.js";
import { toZ85 } from "../../src/runtime/remote/keys.js";
import { Codec } from "../../src/runtime/wire/codec.js";
import { createFrame, FrameKind, readHeader, RECORD_PREFIX_BYTES } from "../../src/runtime/wire/frame.js";

export interface RawPeerOptions {
  readonly endpoint: string;
  readonly serverKey: string;
  readonly keys?: CurveKeys;
  readonly plain?: boolean;
  readonly ids?: readonly Buffer[];
  readonly incarnation?: string;
  /** Leave what the other side sends in the socket: the link stays open, nothing is read from it. */
  readonly isDeaf?: boolean;
}

export interface FrameFields {
  readonly count?: number;
  readonly value?: number;
  readonly body?: Uint8Array;
  readonly sequence?: number;
  readonly extra?: readonly Uint8Array[];
}

export class RawPeer {
  readonly keys: CurveKeys;
  readonly ids: readonly Buffer[];
  readonly dealers: readonly zmq.Dealer[];
  /** Kinds of frames received after the handshake, by lane. */
  readonly received: number[][] = [[], [], []];
  /** The handshake frames that were sent, for a replay. */
  readonly sentHandshake: { readonly lane: number; readonly frame: Buffer }[] = [];
  readonly #options: RawPeerOptions;
  readonly #sequences = [0, 0, 0];

  constructor(options: RawPeerOptions) {
    this.#options = options;
    this.keys = options.keys ?? curveKeys();
    this.ids = options.ids ?? [0, 1, 2].map(() => Buffer.concat([Buffer.from([1]), randomBytes(16)]));
    this.dealers = this.ids.map(
      (id) =>
        new zmq.Dealer({
          linger: 0,
          sendTimeout: 5000,
          reconnectInterval: -1,
          routingId: id as unknown as string,
          ...(options.plain === true
            ? {}
            : {
                curveServerKey: toZ85(options.serverKey),
                curvePublicKey: toZ85(this.keys.publicKey),
                curveSecretKey: toZ85(this.keys.secretKey),
              }),
        }),
    );
    for (const dealer of this.dealers) dealer.connect(options.endpoint);
  }

  static async open(options: RawPeerOptions): Promise<RawPeer> {
    const peer = new RawPeer(options);
    const answer = await peer.handshake();
    if (answer.kind !== FrameKind.ready) throw new Error(`refused: ${answer.text}`);
    return peer;
  }

  hello(): Uint8Array {
    const hello: Hello = {
      versionMin: 1, versionMax: 2, nodeId: this.keys.publicKey, serverId: this.#options.serverKey,
      incarnation: this.#options.incarnation ?? "ab".repeat(8), nonce: randomBytes(32), lanes: [this.ids[1]!, this.ids[2]!],
    };
    this.#hello = hello;
    return encodeHello(hello);
  }
  #hello: Hello | undefined;

  /** @returns the last word of the other side: ready, or a refusal with its text. */
  async handshake(): Promise<{ readonly kind: number; readonly text: string }> {
    await this.sendRaw(0, createFrame(FrameKind.hello, 0, 0, 0, this.hello()));
    const [challenge] = await this.dealers[0]!.receive();
    const { kind } = readHeader(challenge);
    if (kind !== FrameKind.challenge) return { kind, text: bodyOf(challenge!).toString() };
    const proofs = new Proofs(this.keys.secretKey, this.#options.serverKey, this.#hello!, splitMac(bodyOf(challenge!)).rest);
    await this.sendRaw(0, createFrame(FrameKind.proof, 0, 0, 0, proofs.make("client")));
    await this.sendRaw(1, createFrame(FrameKind.lane, 0, 0, 0, proofs.make("lane1")));
    await this.sendRaw(2, createFrame(FrameKind.lane, 0, 0, 0, proofs.make("lane2")));
    const [ready] = await this.dealers[0]!.receive();
    const header = readHeader(ready);
    if (this.#options.isDeaf !== true) for (let lane = 0; lane < 3; lane++) void this.#read(lane);
    return { kind: header.kind, text: Buffer.from(bodyOf(ready!)).toString("latin1") };
  }

  async sendRaw(lane: number, frame: Buffer): Promise<void> {
    if (frame[1]! < 16) this.sentHandshake.push({ lane, frame });
    await this.dealers[lane]!.send(frame);
  }

  async send(lane: number, kind: number, fields: FrameFields = {}): Promise<void> {
    const sequence = fields.sequence ?? this.#sequences[lane]!++;
    const frame = createFrame(kind as FrameKind, fields.count ?? 0, sequence, fields.value ?? 0, fields.body);
    await this.dealers[lane]!.send([frame, ...(fields.extra ?? [])] as Buffer[]);
  }

  /** Sends records as one batch on the message lane. */
  async sendRecords(...records: unknown[][]): Promise<void> {
    const codec = new Codec();
    const bodies = records.map((record) => Buffer.from(codec.encode(record).body));
    const prefixes = bodies.map((body) => {
      const prefix = Buffer.alloc(RECORD_PREFIX_BYTES);
      prefix.writeUInt32LE(body.length, 0);
      return prefix;
    });
    await this.send(1, FrameKind.records, { count: records.length, body: Buffer.concat(bodies.flatMap((body, i) => [prefixes[i]!, body])) });
  }

  async until(lane: number, kind: number): Promise<void> {
    while (!this.received[lane]!.includes(kind)) {
      if (this.dealers[lane]!.closed) throw new Error("closed while waiting");
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  close(): void {
    for (const dealer of this.dealers) if (!dealer.closed) dealer.close();
  }

  async #read(lane: number): Promise<void> {
    const dealer = this.dealers[lane]!;
    try {
      for (;;) this.received[lane]!.push(readHeader((await dealer.receive())[0]).kind);
    } catch {
      // closed
    }
  }
}

// Owns the child process that runs a stranger's job: opens the device, gives up its rights, then answers one request
// after another until the worker closes the channel.
// Invariant: nothing of a job is read before the process is confined.
import { readSync, writeSync } from "node:fs";
import { openDevice } from "../../../device/device.js";
import type { ChildOptions } from "./task-child.js";
import { CHANNEL_FD, confineChild, MEMORY_FD } from "./confinement.js";
import { encodeFrame, FrameReader } from "./frame.js";
import { checkRequest, errorReply, REQUEST_BYTES_MAX, type Ready, type Reply, type Request } from "./messages.js";
import { TaskEngine } from "./task-engine.js";

const { parent, compute, memoryBytes } = JSON.parse(process.argv[2]!) as ChildOptions & { parent: number };
const device = openDevice(compute);
const engine = new TaskEngine(device, MEMORY_FD);
const ready: Ready = { backend: device.backend, ...confineChild(parent, device.backend, memoryBytes) };

function send(message: unknown): void {
  for (let frame = encodeFrame(message); frame.length > 0;) frame = frame.subarray(writeSync(CHANNEL_FD, frame));
}

function answer(request: Request): Reply {
  try {
    return { ok: true, value: engine.answer(request) };
  } catch (error) {
    return errorReply(error);
  }
}

// Reads block: there is nothing else to do, and a step starts some 30 us sooner than through an event loop.
const reader = new FrameReader(REQUEST_BYTES_MAX);
const buffer = Buffer.alloc(64 << 10);
send(ready);
for (;;) {
  const count = readSync(CHANNEL_FD, buffer, 0, Math.min(buffer.length, reader.missingBytes), null);
  if (count === 0) process.exit(0);
  for (const message of reader.push(buffer.subarray(0, count))) {
    const request = checkRequest(message);
    send(answer(request));
    // memory of a plan that was replaced is given back between turns of the event loop
    if (request.type === "prepare") await new Promise((resolve) => setImmediate(resolve));
  }
}

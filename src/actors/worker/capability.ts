// Owns a worker's answer to a capability challenge: the product it was asked for, timed, and the speed of a
// training step on this device.
import { type Device } from "../../device/device.js";
import { cnn, compileStep, TrainStep } from "../../training/index.js";
export interface CapabilityProver { answer(request: never): Promise<never> }
void cnn; void compileStep; void TrainStep; export type { Device };

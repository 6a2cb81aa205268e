/** The scheduler: quotes, capability, matching, metering, settlement and the life of a task. */
export * from "./challenge.js";
export * from "./deadline.js";
export * from "./errors.js";
export * from "./grading.js";
export * from "./matching.js";
export * from "./metering.js";
export * from "./quote.js";
export * from "./settlement.js";
export * from "./shard-ledger.js";
export * from "./task-book.js";
export * from "./task-events.js";

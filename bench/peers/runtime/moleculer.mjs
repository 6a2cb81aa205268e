// Owns Moleculer's side of the measures between two processes: its own TCP transporter with static urls, no cacher,
// no metrics, no logger.
import { fork } from "node:child_process";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { ASK_WARM_UP_SHARE, latency, perSecond, print, sideArguments } from "../../runtime/timing.mjs";
import { WINDOW } from "../../runtime/workload.mjs";

const { ServiceBroker } = createRequire(import.meta.url)("moleculer");

if (process.argv[2] === "receiver") {
  const broker = brokerOf("receiver", process.argv[3].split(","));
  broker.createService({ name: "adder", actions: { add: (ctx) => ctx.params.i + 1 } });
  await broker.start();
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send({ cpuUs: user + system });
  });
  process.on("disconnect", () => process.exit(0));
  process.send("ready");
} else await send();

function brokerOf(nodeID, ports) {
  return new ServiceBroker({
    nodeID,
    logger: false,
    metrics: false,
    tracing: false,
    transporter: {
      type: "TCP",
      options: {
        udpDiscovery: false,
        port: Number(ports[nodeID === "sender" ? 0 : 1]),
        urls: [`127.0.0.1:${ports[0]}/sender`, `127.0.0.1:${ports[1]}/receiver`],
      },
    },
  });
}

async function send() {
  const measures = {
    ask: (broker) => latency(seconds, () => broker.call("adder.add", { i: 1 })),
    askWindow: (broker) =>
      perSecond(
        seconds,
        (count) =>
          Promise.all(
            Array.from({ length: WINDOW }, async () => {
              for (let i = 0; i < count / WINDOW; i++) await broker.call("adder.add", { i });
            }),
          ),
        { first: WINDOW, warmUpShare: ASK_WARM_UP_SHARE, otherCpuUs },
      ),
  };
  const { measure, seconds } = sideArguments(measures);
  const ports = [await freePort(), await freePort()];
  const child = fork(fileURLToPath(import.meta.url), ["receiver", ports.join(",")]);
  const message = () => new Promise((resolve) => child.once("message", resolve));
  await message();
  const otherCpuUs = async () => {
    child.send("cpu");
    return (await message()).cpuUs;
  };
  const broker = brokerOf("sender", ports);
  await broker.start();
  await broker.waitForServices("adder", 10_000);
  const values = await measures[measure](broker);
  print(values, ServiceBroker.MOLECULER_VERSION);
  child.disconnect();
  process.exit(0);
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

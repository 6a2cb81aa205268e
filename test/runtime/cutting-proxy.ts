// A TCP proxy for tests that cuts connections in the middle of their bytes.
import { connect, createServer, type Server, type Socket } from "node:net";

export interface CuttingProxy {
  readonly port: number;
  readonly cuts: number;
  /** Every connection is cut after a number of bytes that `nextCutBytes` gives; Infinity: never. */
  nextCutBytes: () => number;
  cutAll(): void;
  close(): Promise<void>;
}

export async function createCuttingProxy(targetPort: number): Promise<CuttingProxy> {
  const pairs = new Set<() => void>();
  let cuts = 0;
  const server: Server = createServer((inner: Socket) => {
    const outer = connect(targetPort, "127.0.0.1");
    let left = proxy.nextCutBytes();
    const cut = (): void => {
      if (!pairs.delete(cut)) return;
      cuts += 1;
      inner.destroy();
      outer.destroy();
    };
    pairs.add(cut);
    const pipe = (from: Socket, to: Socket): void => {
      from.on("data", (bytes: Buffer) => {
        if (bytes.length >= left) {
          to.write(bytes.subarray(0, left));
          cut();
          return;
        }
        left -= bytes.length;
        if (!to.write(bytes)) from.pause();
      });
      to.on("drain", () => from.resume());
      from.on("error", cut);
      from.on("close", cut);
    };
    pipe(inner, outer);
    pipe(outer, inner);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: CuttingProxy = {
    port: (server.address() as { port: number }).port,
    get cuts() {
      return cuts;
    },
    nextCutBytes: () => Number.POSITIVE_INFINITY,
    cutAll: () => {
      for (const cut of [...pairs]) cut();
    },
    close: async () => {
      proxy.cutAll();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}

// What a session's feeds and fetches are to the type checker; compiled by fetch.test.ts and never run.
import { Graph, nn, optim, type ClusterSession, type Fetched, type Tensor, type TrainReport } from "../../dist/training/index.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(..._: Same<A, B> extends true ? [] : ["these types differ"]): void => undefined;

export async function check(session: ClusterSession, g: Graph): Promise<void> {
  const x = g.placeholder("x", [null, 4]), pixels = g.placeholder("pixels", [null, 4], "u8"), labels = g.placeholder("labels", [null], "i32");
  const loss = nn.softmaxCrossEntropy(x.add(pixels.toFloat()).matmul(g.variable("w", [4, 3])), labels);
  same<typeof x, Tensor<"f32">>();
  same<typeof labels, Tensor<"i32">>();
  const view = pixels.reshape([null, 2, 2]);
  same<typeof view, Tensor<"u8">>();
  // @ts-expect-error a check that could not fail would check nothing
  same<typeof view, Tensor<"f32">>();

  x.feed(new Float32Array(4));
  // @ts-expect-error ids are no floats
  labels.feed(new Float32Array(1));
  // @ts-expect-error nor are bytes
  x.feed(new Uint8Array(4));

  const one = await session.run(loss), list = await session.run([loss, labels, pixels]), record = await session.run({ loss, labels });
  same<typeof one, Float32Array>();
  same<typeof list, [Float32Array, Int32Array, Uint8Array]>();
  same<typeof record, { loss: Float32Array; labels: Int32Array }>();
  same<Fetched<Tensor>, Float32Array | Uint8Array | Int32Array>();
  for await (const report of session.run(optim.sgd({ learningRate: 1 }).minimize(loss), { steps: 1 })) same<typeof report, TrainReport>();
  // @ts-expect-error training needs a number of steps
  session.run(optim.sgd({ learningRate: 1 }).minimize(loss), {});
}

/*
ONNX Runtime Web as the page in examples/web uses it: CPU seconds of one thread at 240x135, the least of 7.

    node benchmarks/web.mjs MODEL.onnx

prints a number for benchmarks/engines.py and needs examples/web/runtime (make web).  Node's engine is Chromium's.
*/
import { readFile } from "node:fs/promises";
import * as ort from "../examples/web/runtime/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await readFile(process.argv[2]));
const image = new ort.Tensor("float32", Float32Array.from({ length: 3 * 135 * 240 }, Math.random), [1, 3, 135, 240]);
await session.run({ image });
const seconds = [];
for (let i = 0; i < 7; i++) {
  const start = process.cpuUsage();
  await session.run({ image });
  const { user, system } = process.cpuUsage(start);
  seconds.push((user + system) / 1e6);
}
console.log(Math.min(...seconds));

/** Runs the model beside the page, which stays free to be used. */

import * as ort from "./ort.mjs";

/** @typedef {{id: number, samples: Float32Array, statistics: Float32Array}} Question */

/** @type {Promise<ort.InferenceSession>} */
const loaded = load();
/** @type {number[]} */
let shape = [];

async function load() {
  const settings = await (await fetch("model.json")).json();
  shape = settings.statistics_shape;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1; // more need headers that not every host sends
  ort.env.wasm.wasmBinary = await unpacked(await fetched("ort.wasm.gz"));
  const model = await unpacked(await fetched("model.onnx"));
  return ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

/** @param {string} name */
async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/**
 * Bytes of a file that is compressed, or was unpacked on its way.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** @param {Question} question */
async function answer({ samples, statistics }) {
  const session = await loaded;
  const output = await session.run({
    input_values: new ort.Tensor("float32", samples, [1, samples.length]),
    attention_mask: new ort.Tensor("int64", new BigInt64Array(samples.length).fill(1n), [1, samples.length]),
    statistics: new ort.Tensor("float32", statistics, shape),
  });
  return {
    logits: output.logits.data,
    highlights: output.highlights.data,
    features: output.features.data,
    cues: output.cues.data,
    group: Number(output.voice_group.data[0]),
  };
}

loaded.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ ready: false, error: String(error) }),
);

let last = Promise.resolve();
self.onmessage = (event) => {
  const question = /** @type {Question} */ (event.data);
  last = last.then(async () => {
    try {
      postMessage({ id: question.id, ...(await answer(question)) });
    } catch (error) {
      postMessage({ id: question.id, error: String(error) });
    }
  });
};

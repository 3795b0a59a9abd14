import assert from "node:assert/strict";
import { test } from "node:test";

import { csv, labelOf, momentOf, sorted } from "../page/table.js";
import { wav } from "../page/wav.js";

const labels = ["anger", "joy"];
const result = (scores, peak, voiceless = false) => {
  const highlights = new Float32Array(10);
  highlights[peak] = 1;
  return { scores, cues: null, silent: !scores, voiceless, highlights, windows: [], seconds: 0.2 };
};
const rows = [
  { file: "clip10.wav", result: result([0.2, 0.8], 3), error: null },
  { file: "clip2.wav", result: result([0.9, 0.1], 5), error: null },
  { file: "bad.wav", result: null, error: 'no "sound", none' },
  { file: "quiet.wav", result: result(null, 5), error: null },
  { file: "fan.wav", result: result([0.6, 0.4], 1, true), error: null },
];
const order = (column, descending) => sorted(rows, column, descending, labels).map(({ file }) => file.split(".")[0]);

test("sorted by each column, unusable clips last", () => {
  assert.deepEqual(order("file", false), ["clip2", "clip10", "fan", "quiet", "bad"]);
  assert.deepEqual(order("file", true), ["quiet", "fan", "clip10", "clip2", "bad"]);
  assert.deepEqual(order("score", true), ["quiet", "clip2", "clip10", "fan", "bad"]);
  assert.deepEqual(order("emotion", false), ["clip2", "clip10", "fan", "quiet", "bad"]);
  assert.deepEqual(order("strongest", false), ["fan", "clip10", "clip2", "quiet", "bad"]);
  assert.equal(rows[0].file, "clip10.wav");
});

test("predictions.csv", () => {
  assert.equal(
    csv(rows, labels),
    [
      "file,emotion,score,score_anger,score_joy,strongest,error",
      "clip10.wav,joy,0.8000,0.2000,0.8000,0.0700,",
      "clip2.wav,anger,0.9000,0.9000,0.1000,0.1100,",
      'bad.wav,,,,,,"no ""sound"", none"',
      "quiet.wav,silence,1.0000,0.0000,0.0000,0.1100,",
      "fan.wav,noise,0.6000,0.6000,0.4000,0.0300,",
      "",
    ].join("\n"),
  );
  assert.equal(labelOf(rows[3].result, labels), "silence");
  assert.ok(Math.abs(momentOf(rows[0].result.highlights) - 0.07) < 1e-9);
});

test("a recording as WAV", async () => {
  const bytes = new DataView(await wav(Float32Array.of(0, 1, -2)).arrayBuffer());
  assert.equal(bytes.byteLength, 50);
  assert.equal(bytes.getUint32(24, true), 16000);
  assert.deepEqual([44, 46, 48].map((at) => bytes.getInt16(at, true)), [0, 32767, -32767]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { WindowCutter, isSilent, joinedHighlights, loudnessOf, shares, softmax, weightedMean } from "../page/windows.js";
import { blocks, distance, golden, recording } from "./golden.js";

const { window, hop, windows: expected, ...whole } = golden.timeline;

for (const sizes of [[1e9], [160, 1, 4801], [123]]) {
  test(`windows, loudness and silence are Python's, in blocks of ${sizes}`, () => {
    const cutter = new WindowCutter(window, hop);
    const cut = [...blocks(recording(), sizes)].flatMap((block) => cutter.push(block)).concat(cutter.finish());
    assert.equal(cut.length, expected.length);
    cut.forEach(({ start, samples }, k) => {
      assert.equal(start, expected[k].start);
      assert.equal(start + samples.length, expected[k].end);
      assert.equal(isSilent(samples), expected[k].silent);
      assert.ok(Math.abs(loudnessOf(samples) - expected[k].loudness) < 1e-6);
    });
    assert.ok(cutter.end - cutter.offset <= window + hop + 320);
  });
}

test("the whole follows from the windows as in Python", () => {
  const weighted = expected.map((one) => {
    const weights = new Float32Array(one.frames).map((_, t) => t + 1);
    const sum = weights.reduce((a, b) => a + b, 0);
    return { ...one, highlights: weights.map((x) => x / sum) };
  });
  assert.ok(distance(shares(weighted), whole.shares) < 1e-6);
  assert.ok(distance(weightedMean(weighted, whole.scores), whole.mean) < 1e-6);
  assert.ok(distance(joinedHighlights(weighted), whole.highlights) < 1e-6);
});

test("silent windows have no mean", () => {
  const quiet = [{ silent: true, loudness: 1 }, { silent: true, loudness: 2 }];
  assert.equal(weightedMean(quiet, [null, null]), null);
  assert.deepEqual(shares(quiet), [0.5, 0.5]);
});

test("a recording that ends with a window has no other", () => {
  const cutter = new WindowCutter(960, 320);
  assert.equal(cutter.push(new Float32Array(960)).length, 1);
  assert.deepEqual(cutter.finish(), []);
});

test("an offset is silence, a click is not", () => {
  assert.ok(isSilent(new Float32Array(5000).fill(0.4)));
  const click = new Float32Array(5000);
  click[4990] = 0.5;
  assert.ok(!isSilent(click));
});

test("softmax of large numbers is finite", () => {
  assert.ok(distance(softmax([1000, 1000, -1000]), [0.5, 0.5, 0]) < 1e-12);
});

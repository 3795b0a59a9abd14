import assert from "node:assert/strict";
import { test } from "node:test";

import { Resampler } from "../page/resample.js";
import { joined } from "../page/windows.js";
import { blocks, chirp, distance, golden } from "./golden.js";

function converted(rate, samples, sizes) {
  const resampler = new Resampler(rate);
  return joined([...[...blocks(samples, sizes)].map((block) => resampler.push(block)), resampler.finish()]);
}

for (const [rate, expected] of Object.entries(golden.resampled)) {
  test(`${rate} Hz becomes what soxr makes of it`, () => {
    const limit = Math.min(16000, (16000 * (0.9 * rate)) / 2 / golden.chirp[1]); // above half the rate the chirp folds
    const whole = converted(Number(rate), chirp(Number(rate)), [1e9]);
    assert.equal(whole.length, 16000);
    const kept = expected.filter((_, k) => 800 + 97 * k < limit);
    assert.ok(kept.length > 50);
    assert.ok(distance(kept.map((_, k) => whole[800 + 97 * k]), kept) < 1e-3);
  });
}

test("blocks of any size give the same", () => {
  const samples = chirp(44100);
  assert.ok(distance(converted(44100, samples, [128]), converted(44100, samples, [1e9])) < 1e-7);
  assert.ok(distance(converted(44100, samples, [5000, 1, 17]), converted(44100, samples, [1e9])) < 1e-7);
});

test("nothing piles up", () => {
  const resampler = new Resampler(48000);
  for (let k = 0; k < 500; k++) resampler.push(new Float32Array(4800));
  assert.ok(resampler.held.length < 3 * resampler.half + 4800);
});

test("what lies above 8 kHz does not come back as something else", () => {
  const tone = new Float32Array(48000).map((_, n) => Math.sin((2 * Math.PI * 11000 * n) / 48000));
  const rest = converted(48000, tone, [1e9]).slice(1000, 15000);
  assert.ok(Math.max(...rest.map(Math.abs)) < 1e-3);
});

test("16 kHz passes as it is, and odd rates are refused", () => {
  const samples = chirp(16000);
  assert.equal(distance(converted(16000, samples, [777]), samples), 0);
  for (const rate of [0, 44100.5, NaN, 2e6]) assert.throws(() => new Resampler(rate), RangeError);
});

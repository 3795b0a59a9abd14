import { readFileSync } from "node:fs";

/** What Python says (tests/space/test_golden.py writes it). */
export const golden = JSON.parse(readFileSync(new URL("./golden.json", import.meta.url), "utf-8"));

export function recording() {
  const { tones } = golden;
  const samples = new Float32Array(Math.round(tones.at(-1)[3] * 16000));
  return samples.map((_, n) => {
    const time = n / 16000;
    return tones.reduce(
      (sum, [amplitude, hz, start, end]) =>
        sum + (time >= start && time < end ? amplitude * Math.sin(2 * Math.PI * hz * time) : 0),
      0,
    );
  });
}

export function chirp(rate) {
  const [low, high] = golden.chirp;
  return new Float32Array(rate).map((_, n) => {
    const time = n / rate;
    return 0.5 * Math.sin(2 * Math.PI * (low + ((high - low) * time) / 2) * time);
  });
}

/** The greatest difference of two rows of numbers. */
export function distance(values, others) {
  if (values.length !== others.length) return Infinity;
  return values.reduce((most, value, i) => Math.max(most, Math.abs(value - others[i])), 0);
}

/** Samples in blocks of these sizes, in turns. */
export function* blocks(samples, sizes) {
  for (let start = 0, k = 0; start < samples.length; k++) {
    const size = sizes[k % sizes.length];
    yield samples.slice(start, start + size);
    start += size;
  }
}

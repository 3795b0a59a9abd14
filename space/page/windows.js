/**
 * Recordings as overlapping windows, as modeling_sere/timeline_sere.py cuts and weighs them.
 * Both are held to the numbers in tests/golden.json.
 */

export const RATE = 16000;
export const FRAME = 320; // samples per highlight: 20 ms
const LONG = 960; // 60 ms, the longest frame of the dynamics stream
const SILENCE_RMS = 1e-3; // -60 dB of full scale

/**
 * One window as it is scored.
 * @typedef {object} Scored
 * @property {number} start first sample
 * @property {number} end sample after the last
 * @property {number} loudness
 * @property {boolean} silent
 * @property {boolean} voiceless whether no voice was heard in it, only noise
 * @property {number[] | null} scores of each emotion, sum 1; none of a silent window
 * @property {number[] | null} cues
 * @property {Float32Array} highlights weight of each frame, sum 1
 */

/** Samples that arrive in blocks, cut into windows; no more than one window is held. */
export class WindowCutter {
  /**
   * @param {number} window length in samples, whole frames
   * @param {number} hop distance in samples, whole frames, at most the length
   */
  constructor(window, hop) {
    this.window = window;
    this.hop = hop;
    /** @type {Float32Array[]} */
    this.held = [];
    this.offset = 0; // the first sample that is held
    this.end = 0;
    this.start = 0;
    this.covered = 0;
  }

  /**
   * The windows that end in this block.
   * @param {Float32Array} block
   * @returns {{start: number, samples: Float32Array}[]}
   */
  push(block) {
    this.held.push(block);
    this.end += block.length;
    if (this.start + this.window > this.end) return [];
    const held = joined(this.held);
    const windows = [];
    for (; this.start + this.window <= this.end; this.start += this.hop) {
      const first = this.start - this.offset;
      windows.push({ start: this.start, samples: held.slice(first, first + this.window) });
      this.covered = this.start + this.window;
    }
    const keep = Math.min(this.start, Math.max(0, this.end - this.window - FRAME));
    this.held = [held.slice(keep - this.offset)];
    this.offset = keep;
    return windows;
  }

  /** The last window, moved back to end with the recording, if something is left. */
  finish() {
    if (this.end <= this.covered) return [];
    const start = Math.floor(Math.max(0, this.end - this.window) / FRAME) * FRAME;
    return [{ start, samples: joined(this.held).slice(start - this.offset) }];
  }
}

/** @param {Float32Array[]} blocks */
export function joined(blocks) {
  const whole = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let past = 0;
  for (const block of blocks) {
    whole.set(block, past);
    past += block.length;
  }
  return whole;
}

/**
 * Mean square amplitude to the power 0.3: twice as loud every 10 dB.
 * @param {Float32Array} samples
 */
export function loudnessOf(samples) {
  let sum = 0;
  for (const x of samples) sum += x * x;
  return (sum / samples.length) ** 0.3;
}

/**
 * Whether no 60 ms rise above -60 dB of full scale, about their own mean.
 * @param {Float32Array} samples
 */
export function isSilent(samples) {
  const size = Math.min(LONG, samples.length);
  for (let start = 0; ; start += size) {
    const last = start + size > samples.length;
    const first = last ? samples.length - size : start;
    let sum = 0;
    for (let i = first; i < first + size; i++) sum += samples[i];
    const mean = sum / size;
    let power = 0;
    for (let i = first; i < first + size; i++) power += (samples[i] - mean) ** 2;
    if (power / size > SILENCE_RMS ** 2) return false;
    if (last) return true;
  }
}

/** @param {ArrayLike<number>} logits */
export function softmax(logits) {
  const values = Array.from(logits);
  const highest = Math.max(...values);
  const powers = values.map((x) => Math.exp(x - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

/**
 * Share of each window in the whole by loudness, sum 1; silent ones count only if all are.
 * @param {Pick<Scored, "silent" | "loudness">[]} windows
 */
export function shares(windows) {
  const loudness = windows.map((window) => (window.silent ? 0 : window.loudness));
  const sum = loudness.reduce((a, b) => a + b, 0);
  return sum > 0 ? loudness.map((x) => x / sum) : windows.map(() => 1 / windows.length);
}

/**
 * Mean of the windows' scores or cues by loudness; null if all windows are silent.
 * @param {Pick<Scored, "silent" | "loudness">[]} windows
 * @param {(number[] | null)[]} values
 */
export function weightedMean(windows, values) {
  /** @type {number[] | null} */
  let mean = null;
  shares(windows).forEach((share, k) => {
    const of = values[k];
    if (of) mean = of.map((x, i) => (mean ? mean[i] : 0) + share * x);
  });
  return mean;
}

/**
 * Highlights of the whole recording, sum 1, from those of its overlapping windows.
 * @param {Pick<Scored, "start" | "end" | "silent" | "loudness" | "highlights">[]} windows
 */
export function joinedHighlights(windows) {
  const frames = Math.max(1, Math.floor(windows[windows.length - 1].end / FRAME));
  const total = new Float32Array(frames);
  const count = new Float32Array(frames);
  shares(windows).forEach((share, k) => {
    const first = windows[k].start / FRAME;
    windows[k].highlights.forEach((weight, t) => {
      if (first + t >= frames) return;
      total[first + t] += share * weight;
      count[first + t] += 1;
    });
  });
  const mean = total.map((x, t) => x / Math.max(1, count[t]));
  const sum = mean.reduce((a, b) => a + b, 0);
  return mean.map((x) => x / sum);
}

/**
 * Index of the largest value.
 * @param {ArrayLike<number>} values
 */
export function strongest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

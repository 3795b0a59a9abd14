/** Sound of any rate to 16 kHz, while it arrives. */

import { RATE, joined } from "./windows.js";

const CROSSINGS = 64; // of the kernel with zero, on each side
const PASSBAND = 0.955; // of the lower of the two bandwidths; what lies above fades out
const KAISER = 8;

/** A stream of blocks at one rate, converted by a windowed sinc. */
export class Resampler {
  /** @param {number} rate of the blocks in Hz, a whole number */
  constructor(rate) {
    if (!Number.isInteger(rate) || rate < 1000 || rate > 1e6) throw new RangeError(`sampling rate of ${rate} Hz`);
    this.step = rate / gcd(rate, RATE); // input samples for `phases` output samples
    this.phases = RATE / gcd(rate, RATE);
    this.kernels = rate === RATE ? [] : kernels(rate, this.phases);
    this.half = this.kernels.length ? this.kernels[0].length / 2 : 0;
    this.held = new Float32Array(this.half); // silence before the first sample
    this.offset = -this.half; // held[0] is this input sample
    this.given = 0; // output samples
    this.total = 0; // input samples
  }

  /**
   * What can be told of 16 kHz after this block.
   * @param {Float32Array} block
   */
  push(block) {
    this.total += block.length;
    if (!this.half) return block;
    this.held = joined([this.held, block]);
    return this.#convert(Math.floor(((this.total - this.half) * this.phases) / this.step));
  }

  /** What was held back; the recording then has its length at 16 kHz. */
  finish() {
    if (!this.half) return new Float32Array(0);
    this.held = joined([this.held, new Float32Array(2 * this.half)]);
    return this.#convert(Math.ceil((this.total * this.phases) / this.step));
  }

  /** @param {number} until output samples in all */
  #convert(until) {
    const output = new Float32Array(Math.max(0, until - this.given));
    for (let i = 0; i < output.length; i++) {
      const position = (this.given + i) * this.step;
      const whole = Math.floor(position / this.phases);
      const kernel = this.kernels[position - whole * this.phases];
      const first = whole - this.half + 1 - this.offset;
      let sum = 0;
      for (let k = 0; k < kernel.length; k++) sum += kernel[k] * (this.held[first + k] ?? 0);
      output[i] = sum;
    }
    this.given += output.length;
    const keep = Math.floor((this.given * this.step) / this.phases) - this.half + 1 - this.offset;
    if (keep > 0) {
      this.held = this.held.slice(keep);
      this.offset += keep;
    }
    return output;
  }
}

/**
 * One kernel per position of an output sample between two input samples.
 * @param {number} rate
 * @param {number} phases
 */
function kernels(rate, phases) {
  const cutoff = PASSBAND * Math.min(1, RATE / rate); // of the input's bandwidth
  const half = Math.ceil(CROSSINGS / cutoff);
  return Array.from({ length: phases }, (_, phase) => {
    const kernel = new Float64Array(2 * half);
    for (let k = 0; k < 2 * half; k++) {
      const x = k - half + 1 - phase / phases;
      const window = Math.abs(x) < half ? bessel(KAISER * Math.sqrt(1 - (x / half) ** 2)) / bessel(KAISER) : 0;
      kernel[k] = window * cutoff * (x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x));
    }
    const sum = kernel.reduce((a, b) => a + b, 0); // a constant stays what it is
    return kernel.map((value) => value / sum);
  });
}

/**
 * Modified Bessel function of order 0.
 * @param {number} x
 */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

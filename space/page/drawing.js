/** What is seen of a recording: its waveform, weighted, and a colour for each emotion. */

import { FRAME, joined } from "./windows.js";

// Okabe and Ito (2008): told apart with every common kind of colour blindness; names stand beside them everywhere
const COLOURS = {
  anger: "#d55e00", happiness: "#f0e442", fear: "#cc79a7", sadness: "#0072b2", disgust: "#009e73", surprise: "#56b4e9",
  neutral: "#bbbbbb",
};
const OTHERS = ["#e69f00", "#7f7fd5", "#8c6d31", "#c7c7c7", "#393b79"];

/**
 * Background and text colour of a label.
 * @param {string} label
 * @param {string[]} labels
 * @returns {[string, string]}
 */
export function colourOf(label, labels) {
  if (label === "silence" || label === "noise") return ["transparent", "inherit"];
  const known = COLOURS[/** @type {keyof typeof COLOURS} */ (label)];
  const others = labels.filter((name) => !(name in COLOURS));
  const colour = known ?? OTHERS[others.indexOf(label) % OTHERS.length];
  return [colour, luminance(colour) > 0.18 ? "#000000" : "#ffffff"];
}

/** @param {string} colour as #rrggbb */
function luminance(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Largest amplitude of every frame, which is all that is kept of a long recording. */
export class Peaks {
  constructor() {
    /** @type {number[]} */
    this.values = [];
    this.rest = new Float32Array(0);
  }

  /** @param {Float32Array} block */
  push(block) {
    const samples = joined([this.rest, block]);
    let start = 0;
    for (; start + FRAME <= samples.length; start += FRAME) {
      let peak = 0;
      for (let i = start; i < start + FRAME; i++) peak = Math.max(peak, Math.abs(samples[i]));
      this.values.push(peak);
    }
    this.rest = samples.slice(start);
  }
}

/**
 * The waveform; what counts more is drawn darker.
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} peaks
 * @param {Float32Array | null} highlights
 */
export function drawWaveform(canvas, peaks, highlights) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  if (!context || !peaks.length) return;
  context.scale(scale, scale);
  context.fillStyle = getComputedStyle(canvas).color;
  const loudest = Math.max(1e-3, ...bins(peaks, width));
  const heaviest = highlights ? Math.max(...bins(Array.from(highlights), width)) : 1;
  const weights = highlights ? bins(Array.from(highlights), width) : null;
  bins(peaks, width).forEach((peak, x) => {
    context.globalAlpha = weights ? 0.2 + 0.8 * Math.sqrt(weights[x] / heaviest) : 0.5;
    const bar = Math.max(1, (peak / loudest) * height);
    context.fillRect(x, (height - bar) / 2, 1, bar);
  });
}

/**
 * The largest of the values that fall on each of the pixels.
 * @param {number[]} values
 * @param {number} width
 */
function bins(values, width) {
  return Array.from({ length: width }, (_, x) => {
    const first = Math.floor((x * values.length) / width);
    const last = Math.max(first + 1, Math.floor(((x + 1) * values.length) / width));
    let most = 0;
    for (let i = first; i < last; i++) most = Math.max(most, values[i]);
    return most;
  });
}

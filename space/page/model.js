/** The model as the page asks it: silence and noise told apart, windows weighed, voices enrolled. */

import { FRAME, RATE, WindowCutter, isSilent, joined, joinedHighlights, loudnessOf, softmax, weightedMean } from "./windows.js";
import { enrolled, flat } from "./voice.js";

/** @typedef {import("./windows.js").Scored} Scored */
/**
 * What model.json says.
 * @typedef {object} Settings
 * @property {string} name
 * @property {string | null} link address of the model
 * @property {string[]} labels
 * @property {Record<string, number[]>} prior how each emotion tends to sound, in cues
 * @property {number} window seconds
 * @property {number} hop seconds
 * @property {number} voiced index of the feature that is 0 where no voice is heard
 * @property {number[]} statistics_shape
 * @property {number[][][]} statistics of the domain: groups, mean and deviation, features
 * @property {{file: string, name: string}[]} samples
 * @property {string | null} samples_license
 */
/** @typedef {{logits: Float32Array, highlights: Float32Array, features: Float32Array, cues: Float32Array, group: number}} Answer */
/**
 * A whole recording.
 * @typedef {object} Result
 * @property {number[] | null} scores none if it is silent
 * @property {number[] | null} cues
 * @property {boolean} silent
 * @property {boolean} voiceless
 * @property {Float32Array} highlights
 * @property {Scored[]} windows
 * @property {number} seconds
 */

export const CLIP_SECONDS = 30; // up to here a recording is one clip
export const MIN_SECONDS = 0.1;

export class Model {
  /**
   * @param {Settings} settings
   * @param {Worker} worker
   */
  constructor(settings, worker) {
    this.settings = settings;
    this.domain = flat(settings.statistics);
    /** @type {Float32Array | null} statistics of the enrolled voice */
    this.voice = null;
    this.worker = worker;
    /** @type {Map<number, {resolve: (answer: Answer) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    this.asked = 0;
    /** @type {Promise<void>} */
    this.ready = new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => {
        if (data.ready === true) resolve();
        else if (data.ready === false) reject(new Error(data.error));
        else this.#settle(data);
      };
      worker.onerror = (event) => reject(new Error(event.message));
    });
  }

  /** @param {Answer & {id: number, error?: string}} data */
  #settle(data) {
    const waiting = this.waiting.get(data.id);
    this.waiting.delete(data.id);
    if (data.error) waiting?.reject(new Error(data.error));
    else waiting?.resolve(data);
  }

  /**
   * @param {Float32Array} samples at 16 kHz
   * @param {Float32Array} statistics
   * @returns {Promise<Answer>}
   */
  #ask(samples, statistics) {
    return new Promise((resolve, reject) => {
      const id = this.asked++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, samples, statistics });
    });
  }

  /**
   * One forward pass, unless nothing is to be heard.
   * @param {number} start
   * @param {Float32Array} samples
   * @returns {Promise<Scored>}
   */
  async scored(start, samples) {
    const window = { start, end: start + samples.length, loudness: loudnessOf(samples) };
    if (isSilent(samples)) {
      const frames = Math.max(1, Math.floor(samples.length / FRAME));
      const highlights = new Float32Array(frames).fill(1 / frames);
      return { ...window, silent: true, voiceless: false, scores: null, cues: null, highlights };
    }
    const answer = await this.#ask(samples, this.voice ?? this.domain);
    return {
      ...window,
      silent: false,
      voiceless: answer.features[this.settings.voiced] === 0,
      scores: softmax(answer.logits),
      cues: Array.from(answer.cues),
      highlights: answer.highlights,
    };
  }

  /** A new recording, to be pushed bit by bit. */
  listen() {
    return new Listening(this);
  }

  /**
   * Everything from now on is relative to the voice in these clips.
   * @param {Float32Array[]} clips
   */
  async enrol(clips) {
    const answers = [];
    for (const clip of clips) answers.push(await this.#ask(clip, this.domain));
    this.voice = enrolled(answers, this.settings.statistics);
  }

  forget() {
    this.voice = null;
  }
}

/** One recording: windows while it is spoken, the whole at its end. */
class Listening {
  /** @param {Model} model */
  constructor(model) {
    const frames = (/** @type {number} */ seconds) => Math.round((seconds * RATE) / FRAME) * FRAME;
    this.model = model;
    this.cutter = new WindowCutter(frames(model.settings.window), frames(model.settings.hop));
    /** @type {Scored[]} */
    this.windows = [];
    /** @type {Float32Array[] | null} all samples, as long as they are one clip */
    this.samples = [];
    this.length = 0;
  }

  /**
   * @param {Float32Array} block at 16 kHz
   * @returns {Promise<Scored[]>} the windows that it completes
   */
  async push(block) {
    this.length += block.length;
    if (this.length > CLIP_SECONDS * RATE) this.samples = null;
    this.samples?.push(block);
    return this.#score(this.cutter.push(block));
  }

  /** @param {{start: number, samples: Float32Array}[]} windows */
  async #score(windows) {
    const scored = [];
    for (const { start, samples } of windows) scored.push(await this.model.scored(start, samples));
    this.windows.push(...scored);
    return scored;
  }

  /**
   * The whole recording: one pass up to 30 s, else the mean of its windows by loudness.
   * @returns {Promise<Result>}
   */
  async finish() {
    await this.#score(this.cutter.finish());
    const { windows, length } = this;
    if (this.samples) {
      return { ...(await this.model.scored(0, joined(this.samples))), windows, seconds: length / RATE };
    }
    return this.soFar();
  }

  /**
   * The mean of the windows by loudness.
   * @returns {Result}
   */
  soFar() {
    const { windows } = this;
    const heard = windows.filter((window) => !window.silent);
    return {
      scores: weightedMean(windows, windows.map((window) => window.scores)),
      cues: weightedMean(windows, windows.map((window) => window.cues)),
      silent: heard.length === 0,
      voiceless: heard.length > 0 && heard.every((window) => window.voiceless),
      highlights: joinedHighlights(windows),
      windows,
      seconds: windows[windows.length - 1].end / RATE,
    };
  }
}

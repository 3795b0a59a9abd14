/** Where sound comes from: files that the browser decodes, and the microphone. */

import { Resampler } from "./resample.js";
import { RATE } from "./windows.js";

/**
 * A file as mono samples at 16 kHz.
 * @param {Blob} file
 */
export async function decoded(file) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const buffer = await context.decodeAudioData(await file.arrayBuffer());
  const mono = new Float32Array(buffer.length);
  for (let k = 0; k < buffer.numberOfChannels; k++) {
    const channel = buffer.getChannelData(k);
    for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / buffer.numberOfChannels;
  }
  return mono;
}

/** The microphone, from a click to the next. */
export class Microphone {
  /**
   * @param {MediaStream} stream
   * @param {AudioContext} context
   * @param {(block: Float32Array) => void} heard gets blocks at 16 kHz
   */
  constructor(stream, context, heard) {
    this.stream = stream;
    this.context = context;
    this.heard = heard;
    this.resampler = new Resampler(context.sampleRate);
  }

  /** @param {(block: Float32Array) => void} heard */
  static async open(heard) {
    // what a telephone call would smooth away is what is listened for
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const context = new AudioContext();
    const microphone = new Microphone(stream, context, heard);
    await context.audioWorklet.addModule("recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => microphone.heard(microphone.resampler.push(data));
    context.createMediaStreamSource(stream).connect(node);
    return microphone;
  }

  async close() {
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
    this.heard(this.resampler.finish());
  }
}

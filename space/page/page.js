/** The page itself: what is clicked, and what is shown. */

import { Peaks, colourOf, drawWaveform } from "./drawing.js";
import { LANGUAGES, chosenLanguage, cuesInWords, filled, standingOut } from "./languages.js";
import { CLIP_SECONDS, MIN_SECONDS, Model } from "./model.js";
import { Microphone, decoded } from "./sounds.js";
import { csv, labelOf, momentOf, sorted } from "./table.js";
import { RATE, isSilent, joined } from "./windows.js";
import { wav } from "./wav.js";

/**
 * A clip of the page.
 * @typedef {import("./table.js").Row & {sound: Blob | null, peaks: number[], ownVoice: boolean}} Clip
 */

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ ($(id));
const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ ($(id));

let language = chosenLanguage(navigator.languages);
let texts = LANGUAGES[language];
/** @type {Model} */
let model;
/** @type {string[]} */
let labels = [];
/** @type {Clip[]} */
let clips = [];
/** @type {Clip | null} */
let shown = null;
/** @type {Float32Array[]} */
let voiceClips = [];
/** @type {Microphone | null} */
let microphone = null;
/** @type {{column: "file" | "emotion" | "score" | "strongest", descending: boolean} | null} */
let order = null;
let working = true; // nothing can be asked before the model is there
/** @type {{key: "loading" | "ready" | "recording" | "working", name?: string}} */
let state = { key: "loading" };
const player = new Audio();

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param {string} label */
function named(label) {
  if (label === "silence") return texts.silence;
  if (label === "noise") return texts.noise;
  return texts.emotions[label] ?? label;
}

/** @param {number} value @param {number} digits */
function written(value, digits = 2) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** @param {number} seconds */
function inSeconds(seconds) {
  return filled(texts.seconds, { n: written(seconds) });
}

/** @param {string} label */
function swatch(label) {
  const box = element("span", { class: "swatch" });
  box.style.background = colourOf(label, labels)[0];
  return box;
}

// ------------------------------------------------------------------------------------------------ what is shown

function showTexts() {
  document.documentElement.lang = language;
  document.title = texts.title;
  for (const node of document.querySelectorAll("[data-text]")) {
    const key = /** @type {keyof typeof texts} */ (node.getAttribute("data-text"));
    node.textContent = String(texts[key]);
  }
  $("timeline-box").setAttribute("aria-label", texts.timeline);
  showState();
  showVoice();
  if (shown) showResult(shown);
  showTable();
}

function showState() {
  const text = filled(texts[state.key], { name: state.name ?? "" });
  if ($("status").textContent !== text) $("status").textContent = text;
  const recording = microphone !== null;
  for (const [id, kind] of /** @type {const} */ ([["record", "record"], ["voice-record", "enrolRecord"]])) {
    const mine = recording && recordingFor === id;
    button(id).textContent = mine ? texts.stop : texts[kind];
    button(id).setAttribute("aria-pressed", String(mine));
    button(id).disabled = mine ? false : working || recording;
  }
  for (const id of ["files", "folder", "voice-files"]) button(id).disabled = working || recording;
  for (const node of $("sample-buttons").children) /** @type {HTMLButtonElement} */ (node).disabled = working || recording;
  button("forget").disabled = working || recording || !model?.voice;
  button("clear").disabled = working || recording;
}

/** @param {typeof state} next */
function setState(next) {
  state = next;
  working = next.key === "loading" || next.key === "working";
  showState();
}

/** @param {"noModel" | "noMicrophone" | "unreadable" | "tooShort" | "tooSilent"} key @param {Record<string, string>} values */
function complain(key, values) {
  const text = filled(texts[key], values);
  $("errors").append(element("span", {}, `${text} `));
  return text;
}

function showVoice() {
  $("voice-state").textContent = model?.voice ? filled(texts.enrolled, { n: voiceClips.length }) : texts.noVoice;
}

/** @param {Clip} clip */
function showResult(clip) {
  const { result } = clip;
  shown = clip;
  if (!result) return;
  $("result").hidden = false;
  $("name").textContent = clip.file;
  showWhole(result, clip.ownVoice);
  showTimeline(result);
  const canvas = /** @type {HTMLCanvasElement} */ ($("wave"));
  drawWaveform(canvas, clip.peaks, result.highlights);
  canvas.setAttribute("aria-label", filled(texts.wave, { name: clip.file, seconds: written(momentOf(result.highlights)) }));
}

/** @param {import("./model.js").Result} result @param {boolean} ownVoice */
function showWhole(result, ownVoice) {
  const label = labelOf(result, labels);
  const best = result.scores ? Math.max(...result.scores) : 1;
  $("answer").textContent =
    label === "silence" ? texts.silenceLong : label === "noise" ? texts.noiseLong : `${named(label)} ${written(100 * best, 0)} %`;
  $("answer").dataset.label = label;
  $("words").textContent = result.cues && !result.voiceless ? cuesInWords(result.cues, texts, ownVoice) : "";
  const scores = result.scores ?? labels.map(() => 0);
  const ranks = labels.map((_, k) => k).sort((a, b) => scores[b] - scores[a]);
  rows("scores").replaceChildren(
    ...ranks.map((k) => {
      const bar = element("i");
      const usually = element("td", { class: "hint" }, standingOut(model.settings.prior[labels[k]] ?? [], texts));
      bar.style.width = `${100 * scores[k]}%`;
      const cell = element("td", { class: "bar number", "data-value": String(scores[k]) }, bar, element("span", {}, written(scores[k], 3)));
      return element("tr", { "data-label": labels[k] }, element("td", { class: "label" }, swatch(labels[k]), named(labels[k])), cell, usually);
    }),
  );
}

/** @param {import("./model.js").Result} result */
function showTimeline({ windows, seconds }) {
  const parts = windows.map((window) => ({ window, label: labelOf(window, labels) }));
  rows("timeline").replaceChildren(
    ...parts.map(({ window, label }) =>
      element(
        "tr",
        {},
        ...[window.start, window.end].map((sample) => element("td", { class: "number" }, inSeconds(sample / RATE))),
        element("td", { class: "label" }, swatch(label), named(label)),
        element("td", { class: "number" }, window.scores ? written(Math.max(...window.scores), 3) : ""),
        element("td", { class: "number" }, inSeconds(window.start / RATE + momentOf(window.highlights))),
      ),
    ),
  );
  // windows overlap: each has the strip until the next begins, and those that say the same are one
  const changes = parts.filter(({ label }, k) => k === 0 || label !== parts[k - 1].label);
  $("strip").replaceChildren(
    ...changes.map(({ window, label }, k) => {
      const end = k + 1 < changes.length ? changes[k + 1].window.start : seconds * RATE;
      const part = element("li", { title: named(label) }, named(label));
      const [background, colour] = colourOf(label, labels);
      part.style.left = `${(100 * window.start) / RATE / seconds}%`;
      part.style.width = `${(100 * (end - window.start)) / RATE / seconds}%`;
      part.style.background = background;
      part.style.color = colour;
      return part;
    }),
  );
}

/** @param {string} id */
function rows(id) {
  return /** @type {HTMLTableElement} */ ($(id)).tBodies[0];
}

function showTable() {
  $("clips").hidden = clips.length === 0;
  for (const head of document.querySelectorAll("[data-column]")) {
    const mine = head.getAttribute("data-column") === order?.column;
    head.setAttribute("aria-sort", mine ? (order?.descending ? "descending" : "ascending") : "none");
  }
  const ordered = order ? sorted(clips, order.column, order.descending, labels) : clips;
  rows("table").replaceChildren(.../** @type {Clip[]} */ (ordered).map(tableRow));
}

/** @param {Clip} clip */
function tableRow(clip) {
  const name = element("td", {}, clip.file);
  const row = element("tr", clip === shown ? { class: "shown" } : {}, name);
  if (!clip.result) {
    row.append(element("td", { colspan: "4", class: "error" }, clip.error ?? ""));
    return row;
  }
  const label = labelOf(clip.result, labels);
  const open = element("button", { "aria-label": `${texts.result}: ${clip.file}` }, clip.file);
  open.onclick = () => {
    showResult(clip);
    showTable();
  };
  name.replaceChildren(open);
  row.append(
    element("td", { class: "label", "data-label": label }, swatch(label), named(label)),
    element("td", { class: "number" }, clip.result.scores ? written(Math.max(...clip.result.scores), 3) : ""),
    element("td", { class: "number" }, inSeconds(momentOf(clip.result.highlights))),
    element("td", {}, clip.sound ? playButton(clip) : ""),
  );
  return row;
}

/** @param {Clip} clip */
function playButton(clip) {
  const play = element("button", { "aria-label": `${texts.play} ${clip.file}` }, texts.play);
  play.onclick = () => {
    if (!player.paused) {
      player.pause();
      return;
    }
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(/** @type {Blob} */ (clip.sound));
    player.onplay = () => (play.textContent = texts.pause);
    player.onpause = () => (play.textContent = texts.play);
    player.play();
  };
  return play;
}

// ------------------------------------------------------------------------------------------------ what is done

/**
 * Samples of a file that can be used, or null after a complaint.
 * @param {Blob} file
 * @param {string} name
 * @returns {Promise<{samples: Float32Array | null, error: string | null}>}
 */
async function read(file, name) {
  try {
    const samples = await decoded(file);
    if (samples.length < MIN_SECONDS * RATE) return { samples: null, error: complain("tooShort", { name }) };
    return { samples, error: null };
  } catch {
    return { samples: null, error: complain("unreadable", { name }) };
  }
}

/** @param {Blob} file @param {string} name */
async function analyse(file, name) {
  setState({ key: "working", name });
  const { samples, error } = await read(file, name);
  const peaks = new Peaks();
  let result = null;
  if (samples) {
    peaks.push(samples);
    const listening = model.listen();
    await listening.push(samples);
    result = await listening.finish();
  }
  addClip({ file: name, result, error, sound: file, peaks: peaks.values, ownVoice: model.voice !== null });
}

/** @param {Clip} clip */
function addClip(clip) {
  clips.push(clip);
  if (clip.result) showResult(clip);
  showTable();
}

/** @param {Iterable<File>} files */
async function analyseAll(files) {
  $("errors").replaceChildren();
  for (const file of files) await analyse(file, file.webkitRelativePath || file.name);
  setState({ key: "ready" });
}

/**
 * A long recording of a voice counts as several clips, as the model takes no more than 30 s at once.
 * @param {Float32Array} samples
 */
function inClips(samples) {
  const size = CLIP_SECONDS * RATE;
  return Array.from({ length: Math.ceil(samples.length / size) }, (_, k) => samples.slice(k * size, (k + 1) * size));
}

/** @param {Float32Array[]} added @param {string} name */
async function enrol(added, name) {
  setState({ key: "working", name });
  const pieces = added.flatMap(inClips);
  const audible = pieces.filter((samples) => samples.length >= MIN_SECONDS * RATE && !isSilent(samples));
  if (!audible.length) complain("tooSilent", { name });
  if (audible.length) {
    voiceClips.push(...audible);
    await model.enrol(voiceClips);
  }
  setState({ key: "ready" });
  showVoice();
}

/** @param {Iterable<File>} files */
async function enrolFiles(files) {
  $("errors").replaceChildren();
  const added = [];
  for (const file of files) {
    setState({ key: "working", name: file.name });
    const { samples } = await read(file, file.name);
    if (samples) added.push(samples);
  }
  await enrol(added, [...files].map((file) => file.name).join(", "));
}

let recordingFor = "";

/**
 * Record until the next click.
 * @param {string} id of the button
 * @param {(block: Float32Array) => void} heard
 * @param {() => Promise<void>} end
 */
async function record(id, heard, end) {
  if (microphone) {
    const open = microphone;
    microphone = null;
    setState({ key: "working", name: texts.recording });
    await open.close();
    return;
  }
  $("errors").replaceChildren();
  try {
    recordingFor = id;
    microphone = await Microphone.open(heard);
    finishing = end;
    setState({ key: "recording" });
  } catch (error) {
    complain("noMicrophone", { reason: String(/** @type {Error} */ (error).message) });
    setState({ key: "ready" });
  }
}

/** @type {() => Promise<void>} */
let finishing = async () => {};

/** @param {string} id @param {() => {heard: (block: Float32Array) => void, end: () => Promise<void>}} start */
function recordButton(id, start) {
  button(id).onclick = async () => {
    const stopping = microphone !== null;
    const { heard, end } = stopping ? { heard: () => {}, end: finishing } : start();
    await record(id, heard, end);
    if (stopping) await end();
  };
}

function startRecording() {
  const listening = model.listen();
  const peaks = new Peaks();
  const name = `${texts.record} ${new Date().toLocaleTimeString(language)}`;
  const ownVoice = model.voice !== null;
  let last = Promise.resolve();
  /** @param {Float32Array} block */
  const heard = (block) => {
    peaks.push(block);
    last = last.then(async () => {
      if ((await listening.push(block)).length) showLive(listening, peaks, name, ownVoice);
    });
  };
  const end = async () => {
    await last;
    if (listening.length < MIN_SECONDS * RATE) complain("tooShort", { name });
    else {
      const sound = listening.samples ? wav(joined(listening.samples)) : null;
      addClip({ file: name, result: await listening.finish(), error: null, sound, peaks: peaks.values, ownVoice });
    }
    setState({ key: "ready" });
  };
  return { heard, end };
}

/** @param {ReturnType<Model["listen"]>} listening @param {Peaks} peaks @param {string} name @param {boolean} ownVoice */
function showLive(listening, peaks, name, ownVoice) {
  const result = listening.soFar();
  showResult({ file: name, result, error: null, sound: null, peaks: peaks.values, ownVoice });
  const latest = labelOf(listening.windows[listening.windows.length - 1], labels);
  $("status").textContent = `${texts.recording} ${named(latest)}`;
}

function startEnrolment() {
  /** @type {Float32Array[]} */
  const blocks = [];
  return { heard: (/** @type {Float32Array} */ block) => void blocks.push(block), end: () => enrol([joined(blocks)], texts.voice) };
}

function download() {
  const link = /** @type {HTMLAnchorElement} */ (element("a", { download: "predictions.csv" }));
  link.href = URL.createObjectURL(new Blob([csv(clips, labels)], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** @param {DataTransfer} transfer */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  /** @type {File[]} */
  const files = [];
  for (const entry of entries) await walk(entry, files);
  return files;
}

/** @param {FileSystemEntry} entry @param {File[]} files */
async function walk(entry, files) {
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    files.push(await new Promise((resolve, reject) => file.file(resolve, reject)));
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const inner of some) await walk(inner, files);
  }
}

/** @param {import("./model.js").Settings["samples"]} samples */
function offerSamples(samples) {
  $("samples").hidden = samples.length === 0;
  $("sample-buttons").replaceChildren(
    ...samples.map(({ file, name }) => {
      const offer = element("button", { disabled: "" }, name);
      offer.onclick = async () => {
        $("errors").replaceChildren();
        await analyse(await (await fetch(file)).blob(), name);
        setState({ key: "ready" });
      };
      return offer;
    }),
  );
}

/** @param {string} id @param {string} inputId @param {(files: File[]) => Promise<void>} then */
function chooser(id, inputId, then) {
  const field = input(inputId);
  button(id).onclick = () => field.click();
  field.onchange = async () => {
    await then([...(field.files ?? [])].filter(isSound));
    field.value = "";
  };
}

/** A folder may hold tables and texts beside its clips. @param {File} file */
function isSound(file) {
  return !file.name.startsWith(".") && !/^(text|image|application\/(json|pdf|zip))/.test(file.type);
}

function wire() {
  const select = /** @type {HTMLSelectElement} */ ($("language"));
  for (const [code, { language: name }] of Object.entries(LANGUAGES)) {
    select.append(element("option", { value: code, lang: code }, name));
  }
  select.value = language;
  select.onchange = () => {
    language = select.value;
    texts = LANGUAGES[language];
    showTexts();
  };
  chooser("files", "file-input", analyseAll);
  chooser("folder", "folder-input", analyseAll);
  chooser("voice-files", "voice-input", enrolFiles);
  recordButton("record", startRecording);
  recordButton("voice-record", startEnrolment);
  button("forget").onclick = () => {
    model.forget();
    voiceClips = [];
    showVoice();
    showState();
  };
  button("download").onclick = download;
  button("clear").onclick = () => {
    clips = [];
    shown = null;
    $("result").hidden = true;
    showTable();
  };
  for (const head of document.querySelectorAll("[data-column]")) {
    const column = /** @type {"file" | "emotion" | "score" | "strongest"} */ (head.getAttribute("data-column"));
    /** @type {HTMLElement} */ (head.firstElementChild).onclick = () => {
      order = { column, descending: order?.column === column ? !order.descending : false };
      showTable();
    };
  }
  document.ondragover = (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  };
  document.ondragleave = () => $("drop").classList.remove("over");
  document.ondrop = async (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    if (event.dataTransfer && !working && !microphone) {
      await analyseAll((await droppedFiles(event.dataTransfer)).filter(isSound));
    }
  };
  window.onresize = () => shown && showResult(shown);
}

async function begin() {
  wire();
  showTexts();
  try {
    const settings = /** @type {import("./model.js").Settings} */ (await (await fetch("model.json")).json());
    labels = settings.labels;
    const link = /** @type {HTMLAnchorElement} */ ($("model"));
    link.textContent = settings.name;
    if (settings.link) link.href = settings.link;
    $("licence").textContent = settings.samples_license ?? "";
    model = new Model(settings, new Worker("worker.js", { type: "module" }));
    offerSamples(settings.samples);
    await model.ready;
    setState({ key: "ready" });
  } catch (error) {
    $("status").textContent = "";
    complain("noModel", { reason: String(/** @type {Error} */ (error).message ?? error) });
  }
}

begin();

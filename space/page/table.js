/** Clips as rows: sorted, and written as predictions.csv. */

/**
 * One clip of the table.
 * @typedef {object} Row
 * @property {string} file
 * @property {import("./model.js").Result | null} result
 * @property {string | null} error
 */

import { FRAME, RATE, strongest } from "./windows.js";

/**
 * Second of the strongest moment.
 * @param {Float32Array} highlights
 */
export function momentOf(highlights) {
  return (FRAME * (strongest(highlights) + 0.5)) / RATE;
}

/**
 * Label of a result; silence and noise have names of their own.
 * @param {import("./model.js").Result | import("./windows.js").Scored} result
 * @param {string[]} labels
 */
export function labelOf(result, labels) {
  if (!result.scores) return "silence";
  return result.voiceless ? "noise" : labels[strongest(result.scores)];
}

/** @param {Row} row @param {string[]} labels */
function cells(row, labels) {
  const { result } = row;
  const label = result ? labelOf(result, labels) : "";
  const scores = result ? (result.scores ?? labels.map(() => 0)) : [];
  const best = label === "silence" ? 1 : Math.max(...scores);
  return {
    file: row.file,
    emotion: label,
    score: result ? best : null,
    scores,
    strongest: result ? momentOf(result.highlights) : null,
    error: row.error ?? "",
  };
}

/**
 * The rows in the order of a column; unusable clips come last.
 * @param {Row[]} rows
 * @param {"file" | "emotion" | "score" | "strongest"} column
 * @param {boolean} descending
 * @param {string[]} labels
 */
export function sorted(rows, column, descending, labels) {
  const keyed = rows.map((row) => ({ row, key: cells(row, labels)[column] }));
  const usable = keyed.filter(({ row }) => row.result);
  usable.sort((a, b) => {
    const order =
      typeof a.key === "number" ? a.key - Number(b.key) : String(a.key).localeCompare(String(b.key), undefined, { numeric: true });
    return descending ? -order : order;
  });
  return [...usable, ...keyed.filter(({ row }) => !row.result)].map(({ row }) => row);
}

/**
 * predictions.csv, with the columns that a training run writes.
 * @param {Row[]} rows
 * @param {string[]} labels
 */
export function csv(rows, labels) {
  const header = ["file", "emotion", "score", ...labels.map((label) => `score_${label}`), "strongest", "error"];
  const lines = rows.map((row) => {
    const { file, emotion, score, scores, strongest: moment, error } = cells(row, labels);
    const told = labels.map((_, k) => number(scores[k]));
    return [file, emotion, number(score), ...told, number(moment), error];
  });
  return [header, ...lines].map((line) => `${line.map(quoted).join(",")}\n`).join("");
}

/** @param {number | null | undefined} value */
function number(value) {
  return value === null || value === undefined ? "" : value.toFixed(4);
}

/** @param {string} cell */
function quoted(cell) {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

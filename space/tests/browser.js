/**
 * Uses the page as visitors do, in a real Chromium, and writes down what happened.
 *
 *     node tests/browser.js URL FOLDER
 *
 * FOLDER has the sounds (microphone.wav, silence.wav, noise.wav, long.wav, broken.wav, clip*.wav) and gets outcome.json,
 * predictions.csv and pictures. tests/space/test_browser.py makes the one and judges the other.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [address, folder] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");
const outcome = { requests: [], console: [], errors: [], axe: {}, scores: {}, seconds: {}, texts: {}, width: {} };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${folder}/microphone.wav%noloop`,
  ],
});

/** A visitor whose every request, message and use of the microphone is noted. */
async function visitor(options = {}) {
  // axe is put into the page by the test, past its content security policy, which is tested by itself
  const context = await browser.newContext({ acceptDownloads: true, locale: "en-US", ...options });
  await context.addInitScript(() => {
    window.opened = 0;
    const open = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
    if (open) navigator.mediaDevices.getUserMedia = (wanted) => (window.opened++, open(wanted));
    window.blocked = [];
    document.addEventListener("securitypolicyviolation", (event) => window.blocked.push(event.blockedURI));
  });
  const page = await context.newPage();
  page.on("request", (request) => outcome.requests.push(request.url()));
  page.on("console", (message) => outcome.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => outcome.errors.push(error.message));
  await page.goto(address);
  await page.waitForSelector("#record:enabled", { timeout: 120_000 });
  return page;
}

/** Scores as they stand in the table of the result: label -> number. */
const scoresOn = (page) =>
  page.$$eval("#scores tbody tr", (rows) =>
    Object.fromEntries(rows.map((row) => [row.dataset.label, Number(row.querySelector("[data-value]").dataset.value)])),
  );

/** Wait until everything that was asked for is answered. */
const settled = (page, rows) =>
  page.waitForFunction(
    (count) =>
      document.querySelectorAll("#table tbody tr").length >= count && !document.getElementById("files").disabled,
    rows,
    { timeout: 120_000 },
  );

async function give(page, field, names, rows) {
  await page.setInputFiles(`#${field}`, names.map((name) => `${folder}/${name}`));
  await settled(page, rows);
}

async function violations(page) {
  return page.evaluate(`(() => { ${axe}; return axe.run(); })()`).then(({ violations: found }) =>
    found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`),
  );
}

async function sampleClips(page) {
  const count = await page.locator("#sample-buttons button").count();
  for (let k = 0; k < count; k++) {
    const start = performance.now();
    await page.locator("#sample-buttons button").nth(k).click();
    await settled(page, k + 1);
    if (k === 0) outcome.seconds.first = (performance.now() - start) / 1000;
    outcome.scores[await page.textContent("#name")] = await scoresOn(page);
  }
  return count;
}

async function otherSounds(page, rows) {
  await give(page, "file-input", ["silence.wav"], rows + 1);
  outcome.texts.silence = await page.textContent("#answer");
  await give(page, "file-input", ["noise.wav"], rows + 2);
  outcome.texts.noise = await page.textContent("#answer");
  await give(page, "file-input", ["broken.wav"], rows + 3);
  outcome.texts.broken = await page.textContent("#errors");
  outcome.seconds.long = [];
  for (let k = 0; k < 3; k++) {
    const start = performance.now();
    await give(page, "file-input", ["long.wav"], rows + 4 + k);
    outcome.seconds.long.push((performance.now() - start) / 1000);
  }
  outcome.scores.long = await scoresOn(page);
  outcome.windows = await page.locator("#timeline tbody tr").count();
}

async function voices(page, rows) {
  outcome.texts.noVoice = await page.textContent("#voice-state");
  await give(page, "voice-input", ["clip1.wav", "clip2.wav"], rows);
  outcome.texts.enrolled = await page.textContent("#voice-state");
  await give(page, "file-input", ["clip0.wav"], rows + 1);
  outcome.scores.enrolled = await scoresOn(page);
  outcome.texts.enrolledWords = await page.textContent("#words");
  await page.click("#forget");
  outcome.texts.forgotten = await page.textContent("#voice-state");
  await give(page, "file-input", ["clip0.wav"], rows + 2);
  outcome.scores.forgotten = await scoresOn(page);
}

async function table(page) {
  const first = () => page.textContent("#table tbody tr td");
  await page.click('[data-column="score"] button');
  outcome.texts.lowest = await first();
  await page.click('[data-column="score"] button');
  outcome.texts.highest = await first();
  outcome.texts.sorting = await page.getAttribute('[data-column="score"]', "aria-sort");
  await page.locator("#table tbody tr td button", { hasText: "Play" }).first().click();
  await page.waitForSelector("#table button:has-text('Pause')", { timeout: 10_000 });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  await download.saveAs(`${folder}/predictions.csv`);
}

/** Tab to the button, and press it as one does without a mouse. */
async function recordByKeyboard(page, rows) {
  outcome.openedBefore = await page.evaluate("window.opened");
  await page.evaluate("document.activeElement.blur()");
  let tabs = 0;
  for (; tabs < 10; tabs++) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate("document.activeElement.id")) === "record") break;
  }
  await page.keyboard.press("Enter");
  await page.waitForSelector("#record[aria-pressed=true]", { timeout: 20_000 });
  outcome.texts.recording = await page.textContent("#status");
  await page.waitForFunction(() => document.querySelectorAll("#timeline tbody tr").length >= 1, null, { timeout: 60_000 });
  await page.waitForFunction(() => /Recording … \w/.test(document.getElementById("status").textContent), null, {
    timeout: 60_000,
  });
  outcome.texts.live = await page.textContent("#status");
  await page.keyboard.press("Enter");
  await settled(page, rows + 1);
  outcome.scores.microphone = await scoresOn(page);
  outcome.opened = await page.evaluate("window.opened");
}

async function languages(page) {
  outcome.languages = {};
  for (const code of await page.$$eval("#language option", (options) => options.map((option) => option.value))) {
    await page.selectOption("#language", code);
    outcome.languages[code] = [await page.textContent("h1"), await page.getAttribute("html", "lang"), await page.textContent("#answer")];
    outcome.axe[code] = await violations(page);
  }
  await page.selectOption("#language", "en");
}

async function picture(name, options) {
  const page = await visitor(options);
  await page.locator("#sample-buttons button").first().click();
  await settled(page, 1);
  await give(page, "file-input", ["long.wav"], 2);
  outcome.axe[name] = await violations(page);
  outcome.width[name] = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth");
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
  await page.context().close();
}

const page = await visitor();
outcome.axe.empty = await violations(page);
let rows = await sampleClips(page);
await otherSounds(page, rows);
await voices(page, rows + 6);
await table(page);
await languages(page);
await recordByKeyboard(page, rows + 8);
outcome.blocked = await page.evaluate("window.blocked");
outcome.escape = await page.evaluate(
  "fetch('https://example.org/').then(() => 'reached', () => 'refused')", // the content security policy at work
);
outcome.console = outcome.console.filter((line) => !line.includes("example.org"));
outcome.requests = outcome.requests.filter((url) => url !== "https://example.org/");
await picture("light", { viewport: { width: 1000, height: 900 }, colorScheme: "light" });
await picture("dark", { viewport: { width: 1000, height: 900 }, colorScheme: "dark" });
await picture("phone", { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
await browser.close();
writeFileSync(`${folder}/outcome.json`, JSON.stringify(outcome, null, 1));

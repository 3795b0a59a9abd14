import assert from "node:assert/strict";
import { test } from "node:test";

import { LANGUAGES, chosenLanguage, cuesInWords, filled } from "../page/languages.js";

const blanks = (text) => [...String(text).matchAll(/\{\w+\}/g)].map(String).sort();

for (const [code, texts] of Object.entries(LANGUAGES)) {
  test(`${code} says all that English says`, () => {
    assert.deepEqual(Object.keys(texts).sort(), Object.keys(LANGUAGES.en).sort());
    for (const [key, text] of Object.entries(LANGUAGES.en)) assert.deepEqual(blanks(texts[key]), blanks(text), key);
    assert.deepEqual(Object.keys(texts.emotions).sort(), Object.keys(LANGUAGES.en.emotions).sort());
    const words = [...Object.values(texts.emotions), ...texts.cues.flat()];
    assert.equal(new Set(words).size, words.length);
    assert.match(texts.law, /2024\/1689/);
  });
}

test("cues in words, the strongest first", () => {
  const words = (cues, own) => cuesInWords(cues, LANGUAGES.en, own);
  assert.equal(words([0.2, -0.4, 0, 0.1, 0], false), "About as usual.");
  assert.equal(words([0.6, 0, 1.6, 0, -0.9], true), "much louder, slower, higher than is usual for this voice");
  assert.equal(words([0, -0.7, 0, 0, 0], false), "flatter than is usual for voices like this");
});

test("the first language that the page speaks", () => {
  assert.equal(chosenLanguage(["fr-FR", "de-AT", "en"]), "de");
  assert.equal(chosenLanguage(["zh-Hans-CN"]), "zh");
  assert.equal(chosenLanguage(["fr"]), "en");
  assert.equal(filled("{a} of {b}", { a: 1, b: "x" }), "1 of x");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { commonest, enrolled, shrunkMoments } from "../page/voice.js";
import { distance, golden } from "./golden.js";

const { features, domain, statistics } = golden.voice;

test("statistics of a voice are Python's", () => {
  shrunkMoments(features, domain).forEach((row, k) => assert.ok(distance(row, statistics[k]) < 1e-6));
});

test("a voice is drawn towards the group that most of its clips fall into", () => {
  const other = domain.map((row) => row.map((x) => x + 7));
  const clips = features.map((values, k) => ({ features: values, group: k === 1 ? 0 : 1 }));
  const expected = [...statistics.flat(), ...statistics.flat()];
  assert.ok(distance(enrolled(clips, [other, domain]), expected) < 1e-6);
  assert.equal(commonest([2, 1, 1, 2]), 1);
});

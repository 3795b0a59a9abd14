/** A voice that is enrolled: statistics of one person, as `shrunk_moments` of modeling_sere/embedding_sere.py. */

/**
 * Statistics of a speaker, drawn towards those of the domain: with n clips their own mean and variance weigh n / (n + 1).
 * @param {ArrayLike<number>[]} features of each clip
 * @param {number[][]} domain mean and deviation of each feature
 * @returns {number[][]} mean and deviation
 */
export function shrunkMoments(features, [domainMean, domainDeviation]) {
  const n = features.length;
  const share = n / (n + 1);
  const mean = [];
  const deviation = [];
  for (let d = 0; d < domainMean.length; d++) {
    const own = features.reduce((sum, clip) => sum + clip[d], 0) / n;
    const within = features.reduce((sum, clip) => sum + (clip[d] - own) ** 2, 0) / n;
    mean.push(share * own + (1 - share) * domainMean[d]);
    deviation.push(Math.sqrt(share * within + (1 - share) * domainDeviation[d] ** 2));
  }
  return [mean, deviation];
}

/**
 * The most frequent group, the first of several.
 * @param {number[]} groups
 */
export function commonest(groups) {
  const counts = new Map();
  for (const group of groups) counts.set(group, (counts.get(group) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0][0];
}

/**
 * Statistics (groups, 2, features), flat: the person's own, whatever group of voices a clip sounds like.
 * @param {{features: ArrayLike<number>, group: number}[]} clips of the person
 * @param {number[][][]} domain statistics of each group
 */
export function enrolled(clips, domain) {
  const own = shrunkMoments(
    clips.map((clip) => clip.features),
    domain[commonest(clips.map((clip) => clip.group))],
  );
  return flat(domain.map(() => own));
}

/**
 * @param {number[][][]} statistics
 */
export function flat(statistics) {
  return Float32Array.from(statistics.flat(2));
}

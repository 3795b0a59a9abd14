"""Few-shot episodes: which classes, which labelled shots, which speakers, and whether audio leaks between the parts.

Pure functions of labels, names, speakers and content keys. Every random choice depends only on the seed and on the
names involved, never on the order of the rows.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from unicodedata import normalize

import numpy as np

from modeling_sere.training.corpora.labels import is_known, label_map_flag
from modeling_sere.training.corpora.names import counted, listed
from modeling_sere.training.errors import RunError


def shared_labels(
    source: Iterable[str | None], target: Iterable[str | None] = (), expected: Iterable[str] | None = None
) -> list[str]:
    """Return the classes of a source-target pair, sorted: the labels that occur in both.

    Args:
        source, target: one label per clip, None where unlabelled. A target without any label takes the classes of the
            source.
        expected: the classes to take of those that both have; all by default.

    Raises:
        RunError: fewer than two classes, or an expected one that a corpus does not have.
    """
    ours, theirs = (Counter(label for label in labels if label is not None) for labels in (source, target))
    shared = set(ours) & set(theirs or ours)
    for name, labels in (("source", ours), ("target", theirs or ours)):
        if expected is not None and (lacking := [label for label in expected if label not in labels]):
            raise RunError(f"--emotions: the {name} has no clip of {listed(lacking)}, only {counted(labels)}")
    if len(shared) < 2:
        unknown = [label for label in sorted({*ours, *theirs} - shared) if not is_known(label)]
        remedy = f": say what they mean with {label_map_flag(unknown[:20])}" if unknown else ""
        raise RunError(
            f"source and target share {listed(sorted(shared))}, at least 2 emotions are needed; the source has"
            f" {counted(ours)}, the target {counted(theirs) if theirs else 'no labels'}{remedy}"
        )
    return sorted(shared if expected is None else expected)


def draw_shots(
    labels: Sequence[str | None], names: Sequence[str], classes: Sequence[str], shots: int, seed: int
) -> list[int]:
    """Return the indices of exactly `shots` clips of each class, ordered by class as given, then by name.

    A class gets the same shots whichever other classes are drawn with it, so pairs that share some classes compare.

    Args:
        labels, names: of every clip; names are unique.

    Raises:
        RunError: a class with fewer clips, or `shots` below 1.
        ValueError: repeated names, which would let the order of the rows decide.
    """
    if shots < 1:
        raise RunError(f"{shots} shots per emotion were asked for, at least 1 is needed")
    if len(set(names)) < len(names):
        raise ValueError("clip names are not unique")
    candidates = {emotion: [] for emotion in classes}
    for index in sorted(range(len(names)), key=lambda index: (normalize("NFC", names[index]), names[index])):
        if labels[index] in candidates:
            candidates[labels[index]].append(index)
    if short := [f"{emotion} has {len(found)}" for emotion, found in candidates.items() if len(found) < shots]:
        raise RunError(f"{shots} labelled clips per emotion are needed, but {', '.join(short)}: ask for fewer shots")
    drawn = []
    for emotion, found in candidates.items():
        chosen = _generator(seed, emotion).choice(len(found), size=shots, replace=False)
        drawn.extend(found[position] for position in sorted(chosen))
    return drawn


def split_speakers(speakers: Sequence[str | None], seed: int) -> tuple[list[int], list[int]]:
    """Return the clips to adapt on and the clips to score, with no speaker in both (the inductive setting).

    Half of the speakers, rounded down, are for adaptation. Both lists are in ascending order.

    Raises:
        RunError: a clip without speaker id, or fewer than two speakers.
    """
    if None in speakers:
        raise RunError(f"clip {speakers.index(None)} has no speaker id, so speakers cannot be split: fill it in")
    if len(distinct := sorted(set(speakers))) < 2:
        raise RunError(f"the corpus has {len(distinct)} speaker, at least 2 are needed to split by speaker")
    order = _generator(seed, "speakers").permutation(len(distinct))
    adapting = {distinct[position] for position in order[: len(distinct) // 2]}
    adapt = [index for index, speaker in enumerate(speakers) if speaker in adapting]
    score = [index for index, speaker in enumerate(speakers) if speaker not in adapting]
    return adapt, score


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])

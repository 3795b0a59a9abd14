"""Pools: which clips take part, and what is known of them."""

import numpy as np
import pytest
import torch

from modeling_sere.training.corpora.corpus import Clip, Corpus
from modeling_sere.training.encoding.features import Features
from modeling_sere.training.encoding.pool import Pool, kept_clips
from modeling_sere.training.errors import RunError

LABELS = ["anger", "sadness"]
ROWS = [
    ("a", "anger", "x"), ("b", "calm", "x"), ("c", None, "y"), ("d", "sadness", "y"), ("e", "anger", "x"),
    ("f", "anger", "z"),
]  # fmt: skip


def corpus(rows=ROWS) -> Corpus:
    return Corpus("voices", [Clip(index, *row) for index, row in enumerate(rows)], None, {}, audio=None)


def pool(indices=(0, 2, 3, 4, 5), rows=ROWS, speaker_ids=True) -> Pool:
    values = np.arange(len(indices) * 3, dtype=np.float32).reshape(-1, 3)
    found = Features(values, list(indices), [f"key {index}" for index in indices], [], np.zeros(len(values)))
    return Pool(corpus(rows), found, LABELS, speaker_ids)


def test_clips_of_shared_emotions_and_unlabelled_ones_take_part():
    assert kept_clips(corpus(), LABELS) == [0, 2, 3, 4, 5]
    assert kept_clips(corpus(), ["calm", "fear"]) == [1, 2]


def test_rows_belong_to_their_clips():
    one = pool((0, 3, 5))  # the others could not be read
    assert len(one) == 3
    assert [clip.name for clip in one.clips] == ["a", "d", "f"]
    assert one.references.tolist() == [0, 1, 0]
    assert one.domain.speakers.tolist() == [0, 1, 2]
    assert one.domain.features[1].tolist() == [3, 4, 5]
    keys = dict(zip((clip.name for clip in one.clips), one.features.keys, strict=True))
    assert keys == {"a": "key 0", "d": "key 3", "f": "key 5"}


def test_unlabelled_clips_have_no_reference():
    assert pool().references.tolist() == [0, -100, 1, 0, 0]


def test_shots_are_marked_and_all_others_are_not():
    marked = pool().shots(1, seed=0)
    assert (marked != -100).sum() == 2
    assert marked[2] == 1  # the only clip of sadness
    assert marked[1] == -100
    assert torch.equal(marked[marked != -100].sort().values, torch.tensor([0, 1]))
    names = pool().names(marked)
    assert len(names) == 2
    assert "d" in names
    assert any((pool().shots(1, seed) != marked).any() for seed in range(1, 10))


def test_too_few_clips_for_the_shots():
    with pytest.raises(RunError, match="sadness has 1"):
        pool().shots(2, seed=0)


def test_speaker_ids_only_where_most_are_known_and_wanted():
    assert pool().speaker_ids
    assert not pool(speaker_ids=False).speaker_ids
    assert pool(speaker_ids=False).domain.speakers is None
    without = [(name, label, None) for name, label, _ in ROWS]
    assert not pool(rows=[*ROWS[:2], *without[2:]]).speaker_ids


def test_clips_without_a_speaker_are_one_more():
    holes = [(name, label, None if name in "ad" else speaker) for name, label, speaker in ROWS]
    speakers = pool(rows=holes).domain.speakers.tolist()
    without = [k for k, clip in enumerate(pool(rows=holes).clips) if clip.speaker is None]
    others = [k for k in range(len(speakers)) if k not in without]
    assert len(without) == 2 and len({speakers[k] for k in without}) == 1
    assert {speakers[k] for k in without}.isdisjoint(speakers[k] for k in others)


def test_no_shots_mark_no_clip():
    assert not (pool().shots(0, seed=0) != -100).any()


def test_labels_that_may_help_are_drawn_from_the_rows_given():
    one = pool()
    assert not (one.told(None, 0, [0, 1, 2, 3, 4]) != -100).any()
    assert one.told("all", 0, [0, 1, 2]).tolist() == [0, -100, 1, -100, -100]
    marked = one.told("2", 0, [0, 1, 2, 3, 4])
    assert (marked == 0).sum() == 2 and (marked == 1).sum() == 1  # there is one clip of sadness
    assert torch.equal(marked[marked != -100], one.references[marked != -100])


def test_labels_that_help_are_not_there_to_score_by():
    one = pool()
    hidden = one.without(one.told("1", 0, [0, 2]))
    assert hidden.references.tolist() == [-100, -100, -100, 0, 0]
    assert one.references.tolist() == [0, -100, 1, 0, 0]

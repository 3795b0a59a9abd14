import random
from collections import Counter
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sere.training.corpora.episodes import draw_shots, shared_labels, split_speakers
from modeling_sere.training.errors import RunError

LABELS = ["anger", "fear", "sadness"] * 20 + [None] * 5
NAMES = [f"clip{i:03}.wav" for i in range(len(LABELS))]


def test_shared_labels_is_the_sorted_intersection():
    assert shared_labels(["sadness", "anger", None, "fear"], ["boredom", "fear", "anger", None]) == ["anger", "fear"]


@pytest.mark.parametrize("target", [[], [None, None]])
def test_an_unlabelled_target_takes_the_classes_of_the_source(target):
    assert shared_labels(["sadness", "anger", "anger", None], target) == ["anger", "sadness"]


def test_too_few_shared_labels_name_both_sets():
    with pytest.raises(RunError) as caught:
        shared_labels(["anger", "fear", "fear"], ["mirth", "anger", None])
    assert str(caught.value) == (
        "source and target share anger, at least 2 emotions are needed; the source has fear 2, anger 1, the target"
        " anger 1, mirth 1: say what they mean with --label_map 'mirth=?'"
    )
    with pytest.raises(RunError, match="share none, .* the source has none, the target no labels$"):
        shared_labels([None])


@pytest.mark.parametrize("target", [[], ["fear", "anger", "sadness"]])
def test_expected_emotions_are_taken(target):
    assert shared_labels(["sadness", "anger", "fear"], target, ["sadness", "anger"]) == ["anger", "sadness"]


def test_expected_emotions_must_be_there():
    with pytest.raises(RunError, match="--emotions: the source has no clip of joy, only anger 1, fear 1"):
        shared_labels(["anger", "fear"], [], ["anger", "joy"])
    with pytest.raises(RunError, match="--emotions: the target has no clip of fear, only anger 1, sadness 1"):
        shared_labels(["anger", "fear", "sadness"], ["anger", "sadness"], ["anger", "fear"])


@given(st.integers(1, 20), st.integers(0, 2**31))
def test_exactly_the_shots_of_each_class(shots, seed):
    drawn = draw_shots(LABELS, NAMES, ["fear", "anger"], shots, seed)
    assert [LABELS[i] for i in drawn] == ["fear"] * shots + ["anger"] * shots
    assert len(set(drawn)) == len(drawn)


def test_shots_follow_the_seed_and_not_the_row_order():
    order = list(range(len(NAMES)))
    random.Random(0).shuffle(order)
    labels, names = [LABELS[i] for i in order], [NAMES[i] for i in order]

    def drawn_names(labels, names, seed):
        return [names[i] for i in draw_shots(labels, names, ["anger", "fear", "sadness"], 5, seed)]

    assert drawn_names(labels, names, 3) == drawn_names(LABELS, NAMES, 3)
    assert len({tuple(drawn_names(LABELS, NAMES, seed)) for seed in range(10)}) == 10


def test_shots_do_not_depend_on_how_unicode_spells_names():
    names = [f"{letter}{k}.wav" for letter in "eéfẽ" for k in range(5)]
    drawn = [
        [names[i] for i in draw_shots(["anger"] * 20, [normalize(form, name) for name in names], ["anger"], 5, seed)]
        for seed in range(20)
        for form in ("NFC", "NFD")
    ]
    assert drawn[::2] == drawn[1::2]


def test_a_class_gets_the_same_shots_beside_other_classes():
    alone = draw_shots(LABELS, NAMES, ["fear", "anger"], 5, 0)
    assert draw_shots(LABELS, NAMES, ["anger", "sadness", "fear"], 5, 0)[-5:] == alone[:5]


def test_every_clip_can_be_drawn():
    drawn = Counter(i for seed in range(200) for i in draw_shots(LABELS, NAMES, ["anger"], 5, seed))
    assert len(drawn) == 20
    assert max(drawn.values()) < 2 * 50  # 50 expected


def test_too_few_clips_name_class_and_count():
    with pytest.raises(RunError, match="21 labelled clips .* anger has 20, joy has 0"):
        draw_shots(LABELS, NAMES, ["anger", "joy"], 21, 0)
    with pytest.raises(RunError, match="0 shots"):
        draw_shots(LABELS, NAMES, ["anger"], 0, 0)


def test_repeated_names_are_refused():
    with pytest.raises(ValueError, match="not unique"):
        draw_shots(["anger", "anger"], ["a.wav", "a.wav"], ["anger"], 1, 0)


@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=30), st.integers(0, 99))
def test_speakers_are_split_in_halves(speakers, seed):
    if len(set(speakers)) < 2:
        with pytest.raises(RunError, match="1 speaker"):
            split_speakers(speakers, seed)
        return
    adapt, score = split_speakers(speakers, seed)
    assert sorted(adapt + score) == list(range(len(speakers)))
    adapting, scored = ({speakers[i] for i in part} for part in (adapt, score))
    assert not adapting & scored
    assert len(adapting) == len(set(speakers)) // 2


def test_speaker_split_follows_the_seed_and_not_the_row_order():
    speakers = [f"s{i % 10}" for i in range(50)]
    by_seed = {seed: {speakers[i] for i in split_speakers(speakers, seed)[0]} for seed in range(10)}
    backwards = speakers[::-1]
    assert {backwards[i] for i in split_speakers(backwards, 4)[0]} == by_seed[4]
    assert len(set(map(frozenset, by_seed.values()))) > 5


def test_a_missing_speaker_cannot_be_split():
    with pytest.raises(RunError, match="clip 1 has no speaker"):
        split_speakers(["a", None, "b"], 0)

"""What a run says of its corpora before it begins."""

import pytest

from modeling_sere.training.corpora.corpus import Clip, Corpus
from modeling_sere.training.corpora.report import label_report, left_out, notes_before, read_as

CLASSES = ["anger", "sadness"]


def corpus(name="polish", labels=("anger", "sadness") * 20, speakers=None, **options) -> Corpus:
    speakers = speakers or [f"s{k % 4}" for k in range(len(labels))]
    rows = zip(labels, speakers, strict=True)
    clips = [Clip(k, f"{k}.wav", *row) for k, row in enumerate(rows)]
    return Corpus(name, clips, None, options.pop("relabelled", {}), audio=None, **options)


def notes(source=None, target=None, expected=None) -> list[str]:
    source, target = source or corpus("english"), target or corpus()
    return list(notes_before([source] if source else [], target, CLASSES, expected))


def test_how_a_corpus_was_read_is_a_block():
    reading = {"not used": "x.csv", "emotions": "column label: anger 1", "files": "all", "speakers": "none"}
    assert read_as(corpus(labels=["anger"], reading=reading)) == (
        "Read polish as 1 clip:\n  files     all\n  emotions  column label: anger 1\n  speakers  none"
        "\n  not used  x.csv"
    )


def test_ordinary_corpora_need_no_note():
    assert notes() == ["Emotions: anger, sadness (those that both have)."]
    assert notes(expected=CLASSES) == ["Emotions: anger, sadness (as --emotions asks)."]


def test_an_unlabelled_target_takes_all_emotions_and_that_is_said():
    (note,) = notes(target=corpus(labels=[None] * 40))
    assert note == (
        "Emotions: anger, sadness (all of the source, as polish has no labels; --emotions says which of them to"
        " expect)."
    )


def test_what_is_left_out_is_listed_with_counts_and_a_flag():
    labels = ["anger", "sadness"] * 20 + ["excited"] * 3 + ["neutral state"] + ["calm"] * 2 + ["0", "a,b"]
    (_, note) = notes(target=corpus(labels=labels))
    assert note.startswith(
        "polish: 8 of 48 clips are left out, as their emotion is none of the run: excited 3, calm 2, 0 1, a,b 1,"
        " neutral state 1. If they are other names of emotions, say so: --label_map "
    )
    assert '"excited": "?"' in note and '"neutral state": "neutral"' in note and "calm" not in note.partition(" --")[2]
    (_, note) = notes(corpus("english", [*CLASSES * 20, "boredom"]))
    assert note == "english: 1 of 41 clips are left out, as their emotion is none of the run: boredom 1."


def test_results_tell_what_was_left_out():
    source = corpus("english", [*CLASSES, "boredom", "x", "x"], relabelled={"Wut": "anger"})
    target = corpus(labels=["anger", None, None, None, None])
    assert label_report([source], target, CLASSES) == {
        "labels_left_out": {"source": {"x": 2, "boredom": 1}, "target": {}},
        "labels_read_as": {"source": {"Wut": "anger"}, "target": {}},
        "licenses_of_clips": {"source": {}, "target": {}},
    }
    assert label_report([], source, CLASSES)["labels_left_out"] == {"source": {}, "target": {"x": 2, "boredom": 1}}
    assert left_out([None, "b", "a", "b"], ["a"]) == {"b": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": CLASSES * 10}, "polish: 20 clips to organise; only from 30 on are they grouped by what they share"),
        ({"speakers": ["s"] * 40}, "polish: all clips are of one speaker, so results tell nothing of others."),
        ({"speakers": [f"s{k}" for k in range(40)]}, "polish: 40 speakers of 40 clips are too many"),
        ({"notes": ["polish: something."]}, "polish: something."),
    ],
)
def test_what_may_go_wrong_is_told(options, message):
    _, note = notes(target=corpus(**options))
    assert note.startswith(message)


def test_speakers_that_are_not_known_are_no_matter():
    assert len(notes(target=corpus(speakers=[None] * 40))) == 1


def test_numbers_as_emotions():
    both = [corpus(name, ["0", "1"] * 20) for name in ("english", "polish")]
    told = list(notes_before(both[:1], both[1], ["0", "1"], None))
    assert told[1] == (
        "english: numbers as emotions may mean something else in polish; give them names: --label_map '0=?,1=?'"
    )
    assert len(told) == 3

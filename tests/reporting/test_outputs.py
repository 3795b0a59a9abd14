"""What a run shows: the closing lines on the screen."""

from modeling_sere.training.reporting.outputs import table

ANSWER = {"file": "x.wav", "emotion": "anger", "score": 0.9, "strongest": 0.53}
RUN = {
    "source": "a", "target": "b", "shots": 5, "seed": 0, "source_free": False, "setting": "inductive",
    "speaker_ids": True, "chance": 0.25, "skipped_clips": [], "same_audio_in_both": [], "shots_in_target": [],
    "num_target_clips": 3, "shares": {"anger": 1 / 3, "fear": 2 / 3}, "surest": [ANSWER],
    "least_sure": [ANSWER | {"file": "y.wav", "emotion": "fear", "score": 0.4}],
    "uar": None, "spread": None,
}  # fmt: skip


def test_table_of_a_scored_run():
    scores = {"uar": 0.612, "uar_before": 0.5, "uar_prototype": 0.4, "uar_single_clip": 0.6}
    spread = {"seeds": [0, 1], "uar": [0.6, 0.7], "uar_mean": 0.65, "uar_std": 0.05}
    text = table(RUN | scores | {"spread": spread})
    assert all(part in text for part in ("a -> b", "inductive", "speaker ids: yes", "65.0 +- 5.0"))
    assert all(f"{percent:.1f} % UAR" in text for percent in (61.2, 50, 40, 60, 25))
    one = {"seeds": [0], "uar": [0.6], "uar_mean": 0.6, "uar_std": 0.0}
    assert "draws" not in table(RUN | scores | {"spread": one}) and "+-" not in table(RUN | scores | {"spread": one})
    assert "Emotions given to 3 clips: fear 67 %, anger 33 %" in text


def test_table_of_a_run_without_labels_tells_what_was_predicted():
    text = table(RUN)
    assert "no labels" in text and "UAR" not in text
    assert "Emotions given to 3 clips: fear 67 %, anger 33 %" in text
    assert "surest:     x.wav anger 0.90" in text and "least sure: y.wav fear 0.40" in text


def test_table_of_a_run_without_source_data():
    free = {"source": None, "source_free": True, "seed": None, "same_audio_in_both": None, "shots_in_target": None}
    assert table(RUN | free).startswith("unknown source -> b, 5 shots per emotion, source-free, inductive")


def test_table_tells_what_makes_a_score_dishonest():
    shared = {"same_audio_in_both": ["x.wav", "y.wav"], "shots_in_target": ["y.wav"], "skipped_clips": [{}]}
    text = table(RUN | shared)
    assert "the audio of 2 clips of the target is in the source too, that of 1 as a shot" in text
    assert "unusable: 1 clip, named in results.json" in text
    assert "NOT ANOTHER" not in table(RUN)
    carried = RUN | {"source_free": True, "source": "b"}
    assert "the labelled clips in the model come from b too" in table(carried)
    assert "NOT ANOTHER" not in table(carried | {"source": "a"})


def test_a_file_name_cannot_break_the_lines():
    odd = ANSWER | {"file": "a\n  SERE (after the field) 99.9 % UAR"}
    assert len(table(RUN | {"surest": [odd]}).splitlines()) == len(table(RUN).splitlines())

"""What a run tells: results.json, and the table on the screen."""

import json

import numpy as np

from modeling_sere.training.reporting import outputs
from modeling_sere.training.reporting.outputs import save_results, table


def test_results_are_plain_json(tmp_path):
    results = {"uar": np.float32(0.5), "confusion": np.eye(2, dtype=int), "name": "zażółć"}
    save_results(results, tmp_path)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert "zażółć" in text
    assert json.loads(text) == {"uar": 0.5, "confusion": [[1, 0], [0, 1]], "name": "zażółć"}


RUN = {
    "source": "a", "target": "b", "shots": 5, "seed": 0, "source_free": False, "setting": "inductive",
    "speaker_ids": True, "chance": 0.25, "skipped_clips": [],
}  # fmt: skip


def test_table_of_a_scored_run():
    scores = {"uar": 0.612, "uar_before": 0.5, "uar_prototype": 0.4, "uar_single_clip": 0.6}
    spread = {"seeds": [0, 1], "uar": [0.6, 0.7], "uar_mean": 0.65, "uar_std": 0.05}
    text = table(RUN | scores | {"spread": spread})
    assert all(part in text for part in ("a -> b", "inductive", "speaker ids: yes", "65.0 +- 5.0"))
    assert all(f"{percent:.1f} % UAR" in text for percent in (61.2, 50, 40, 60, 25))


def test_table_of_a_run_without_labels():
    text = table(RUN | outputs.NOT_SCORED)
    assert "no labels" in text
    assert "25.0 % UAR" in text


def test_table_of_a_run_without_source_data():
    text = table(RUN | outputs.NOT_SCORED | {"source": None, "source_free": True, "seed": None})
    assert text.startswith("unknown source -> b, 5 shots per emotion, source-free, inductive")


def test_table_tells_what_makes_a_score_dishonest():
    shared = {"same_audio_in_both": ["x.wav", "y.wav"], "shots_in_target": ["y.wav"], "skipped_clips": [{}]}
    text = table(RUN | outputs.NOT_SCORED | shared)
    assert "the audio of 2 clips of the target is in the source too, that of 1 as a shot" in text
    assert "unusable: 1 clip, named in results.json" in text
    assert "NOT ANOTHER" not in table(RUN | outputs.NOT_SCORED | {"same_audio_in_both": [], "shots_in_target": []})
    carried = RUN | outputs.NOT_SCORED | {"source_free": True, "source": "b"}
    assert "the labelled clips in the model come from b too" in table(carried)
    assert "NOT ANOTHER" not in table(carried | {"source": "a"})

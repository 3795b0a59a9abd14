import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard
from PIL import Image

from model_card import card, plots, write_card
from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.training.reporting.results import SCORES, problems

LABELS = ["anger", "fear", "sadness"]
PRIVATE = ["03-01-05-01", "WR0_anger_30", "liuchanhg", "actor-17", "silent_clip"]


def answer(file: str, emotion: str, score: float) -> dict:
    return {"file": file, "emotion": emotion, "score": score, "strongest": 0.53}


@pytest.fixture
def results():
    found = {
        "source": "org/emodb", "target": "My Clips", "source_language": "de", "target_language": "it",
        "source_license": "CC BY 4.0", "target_license": "research only", "encoder": "wavlm-base",
        "base_model": "microsoft/wavlm-base", "base_license": None, "license": None,
        "licenses_of_clips": {"source": {}, "target": {}},
        "labels": LABELS, "labels_left_out": {"source": {"bore|dom": 81}, "target": {"w": 8, "calm": 2}},
        "labels_read_as": {"source": {}, "target": {}}, "source_free": False, "shots": 5, "seed": 3,
        "shot_files": ["03-01-05-01.flac"], "setting": "transductive", "speaker_ids": True, "source_speaker_ids": True,
        "num_source_clips": 454, "num_unlabelled_source": 429, "num_target_clips": 588,
        "skipped_clips": [{"name": "silent_clip.wav", "reason": "WR0_anger_30.flac is silent"}],
        "same_audio_in_both": ["liuchanhg_201.flac", "liuchanhg_202.flac"], "shots_in_target": ["liuchanhg_201.flac"],
        "parameters": {"prior_weight": 2.0, "field_balance": 0.5}, "refine_steps": 0, "train_encoder": "none",
        "shares": {"anger": 0.5, "fear": 0.3, "sadness": 0.2}, "agreement": 0.625,
        "speaker_emotion_tie": 0.42, "emotions_not_heard": ["fear"], "target_shot_files": [],
        "surest": [answer("WR0_anger_30.flac", "anger", 0.98)],
        "least_sure": [answer("actor-17/x.wav", "fear", 0.34)],
        "uar": 0.5234567, "uar_before": 0.4641, "uar_prototype": 0.4412, "uar_single_clip": 0.4811, "war": 0.55,
        "macro_f1": 1 / 3, "chance": 1 / 3, "per_class_recall": {"anger": 0.75, "fear": 0.25, "sadness": None},
        "confusion": [[6, 2, 0], [3, 1, 0], [0, 0, 0]],
        "calibration": {"ece_before": 0.21, "ece_after": 0.05, "temperature": 1.37},
        "spread": {"seeds": [3, 4, 5], "uar": [0.5, 0.5, 0.5], "uar_mean": 0.5, "uar_std": 0.0321},
        "seconds": {"encode": 12.34, "organise": 0.2}, "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    assert list(problems(found)) == []
    return found


@pytest.fixture
def unscored(results):
    calibration = {"ece_before": None, "ece_after": None, "temperature": 1.37}
    return results | dict.fromkeys(SCORES) | {"spread": None, "calibration": calibration}


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    weights = rng.random(100)
    return {
        "waveform": rng.normal(0, 0.1, 32000).astype(np.float32),
        "highlights": weights / weights.sum(),
        "label": "fear",
    }


def assert_sound(text):
    """No heading without text under it, no empty cell or value, and no word that is only Python's for nothing."""
    assert not re.search(r"^#+ [^\n]*\n+(#|\Z)", text, re.MULTILINE)
    assert not re.search(r"\b(None|nan|inf|Undefined)\b|\{\{|\{%", text)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r": *\.|\(\)|\*\*\*\*", prose)
    rows = [line.strip("|").split("|") for line in prose.splitlines() if line.startswith("|") and line != "| | |"]
    assert rows
    assert all(cell.strip() for row in rows for cell in row)


def test_metadata_reads_back_with_equal_scores(results, example, tmp_path):
    path = write_card(results, tmp_path, example)
    data = ModelCard.load(path).data
    scores = {result.metric_name: result for result in data.eval_results}
    assert path == tmp_path / "README.md"
    assert {name: score.metric_value for name, score in scores.items()} == {
        "UAR": results["uar"], "WAR": results["war"], "macro-F1": results["macro_f1"],
        "UAR (saved model, one clip at a time)": results["uar_single_clip"], "UAR, mean over 3 draws of the shots": 0.5,
    }  # fmt: skip
    assert scores["UAR, mean over 3 draws of the shots"].metric_args == {
        "average": "macro", "draws": 3, "standard_deviation": 0.0321,
    }  # fmt: skip
    assert {score.metric_type for score in scores.values()} == {"recall", "accuracy", "f1"}
    assert scores["UAR"].dataset_name == "My Clips"
    assert scores["UAR"].dataset_type == "my-clips"
    assert scores["UAR"].dataset_args == {"source": "org/emodb", "shots_per_class": 5, "setting": "transductive"}
    assert data.model_name == "sere-org-emodb-to-my-clips"
    assert (data.pipeline_tag, data.library_name) == ("audio-classification", "transformers")
    assert {"speech-emotion-recognition", "cross-lingual", "few-shot", "sere"} <= set(data.tags)
    assert data.language == ["de", "it"]
    assert data.datasets == ["org/emodb"]  # the target is no id of the Hub
    assert data.base_model == "microsoft/wavlm-base"
    assert data.license == "other"
    assert not hasattr(data, "widget")  # no provider serves audio classification


def test_body_states_the_results(results, example, tmp_path):
    text = write_card(results, tmp_path, example).read_text()
    assert_sound(text)
    for stated in (
        "**52.3 %** (transductive, with speaker ids; chance: 33.3 %)",
        "one clip at a time without its speaker's statistics: **48.1 %**",
        "| UAR of ridge on the shots alone (before the field) | 46.4 % |",
        "| UAR of SERE over 3 draws of the shots, mean and standard deviation | 50.0 ± 3.2 % |",
        "21.0 % before, 5.0 % after calibration (temperature 1.37)",
        "by +5.9 points",
        "| anger | 75.0 % | 8 |",
        "| sadness | no clips | 0 |",
        "| clips of other labels, left out | source: boredom 81; target: w 8, calm 2 |",
        "| anger | 50.0 % |",
        "The surest answers: anger 0.98 (strongest at 0.53 s). The least sure: fear 0.34 (strongest at 0.53 s).",
        "give 62.5 % of the clips the same emotion",
        "| clips skipped as unusable | 1 |",
        "| encode | 12.3 |",
        "**2 target clips have the very audio of a source clip, 1 of a labelled one**",
        "`prior_weight` = 2.0, `field_balance` = 0.5.",
        "Source data: CC BY 4.0 (its conditions are not known to this card: read them). Target data: research only",
        "taken for *fear*",
        "arXiv:2604.07417",
        "torch 2.13.0",
    ):
        assert stated in text


def test_without_labels_it_tells_what_was_predicted(unscored, example, tmp_path):
    card = ModelCard.load(write_card(unscored, tmp_path, example))
    assert_sound(str(card))
    assert "**Nothing was scored**, as the target has no labels." in card.text
    assert (
        "UAR" not in card.text.replace("mean UAR of 47.75 %", "") and "not measured" not in card.text.split("## L")[0]
    )
    assert "| fear | 30.0 % |" in card.text and "The surest answers: anger 0.98" in card.text
    assert not card.data.eval_results
    assert "model-index" not in str(card)


@pytest.mark.parametrize(
    "change",
    [
        {"source": None, "source_free": True, "seed": None, "shot_files": None, "source_speaker_ids": None,
         "same_audio_in_both": None, "shots_in_target": None, "spread": None},
        dict.fromkeys(("source_language", "target_language", "source_license", "target_license")),
        {"encoder": None, "base_model": None},
        {"base_model": None},
        {"agreement": None},
        {"setting": "inductive", "speaker_ids": False},
        {"same_audio_in_both": [], "shots_in_target": [], "skipped_clips": []},
        {"labels_left_out": {"source": {}, "target": {}}},
        {"refine_steps": 200, "train_encoder": "lora", "license": "mit"},
    ],
)  # fmt: skip
def test_all_that_a_run_can_leave_open(results, unscored, tmp_path, change):
    for found in (results | change, unscored | change):
        assert list(problems(found)) == []
        path = write_card(found, tmp_path)
        assert_sound(path.read_text())
        ModelCard.load(path)


def test_no_encoder(results, tmp_path):
    text = write_card(results | {"encoder": None, "base_model": None}, tmp_path).read_text()
    assert "| encoder | none (dynamics stream only) |" in text


def test_no_file_name_speaker_or_path(results, example, tmp_path):
    text = write_card(results, tmp_path, example | {"name": "WR0_anger_30.flac"}).read_text()
    assert [word for word in PRIVATE if word in text] == []


def test_text_of_the_data_cannot_break_the_page(results, tmp_path):
    results |= {"target": "a | b\n\n# Title", "target_license": "x\n---\ny", "target_language": "no"}
    card = ModelCard.load(write_card(results, tmp_path))
    assert "| target | a b Title (language: no) |" in re.sub(" +", " ", card.text)
    assert not re.search("^# Title", card.text, re.MULTILINE)
    assert card.data.language == ["de", "no"]


def test_plots_are_drawn_and_linked(results, example, tmp_path):
    text = write_card(results, tmp_path, example).read_text()
    for name in ("confusion", "highlights"):
        image = Image.open(tmp_path / "plots" / f"{name}.png")
        assert (image.format, image.width) == ("PNG", 1800)
        assert np.asarray(image.convert("L")).std() > 10
        assert f"](plots/{name}.png)" in text


def test_plots_show_the_values(results, example, tmp_path):
    def picture(name, results, example):
        write_card(results, tmp_path, example)
        return (tmp_path / "plots" / name).read_bytes()

    other = example | {"highlights": example["highlights"][::-1]}
    assert picture("confusion.png", results, example) != picture(
        "confusion.png", results | {"confusion": np.eye(3, dtype=int)}, example
    )
    assert picture("highlights.png", results, example) != picture("highlights.png", results, other)


@pytest.mark.parametrize(
    "label",
    ["$", "$x$", "a_{", "\\frac", "^", "波兰语", "a\nb", "\0", "\x1b[1m", "x" * 500, "%s", "{0}", "\udcff", "😠", ""],
)
def test_labels_are_drawn_as_text(label, tmp_path):
    """Not as a formula: there would be none, after all the work."""
    plots.plot_confusion(tmp_path / "a.png", np.eye(2, dtype=int), [label, "fear"])
    assert Image.open(tmp_path / "a.png").width == 1800


def test_card_does_without_a_plot_that_cannot_be_drawn(results, example, tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no such font")

    monkeypatch.setattr(card, "plot_confusion", broken)
    text = write_card(results, tmp_path, example).read_text()
    assert "plots/confusion.png cannot be drawn (no such font)" in caplog.text
    assert "## Confusion" not in text and "plots/highlights.png" in text


def test_plots_of_an_earlier_card_go(results, unscored, example, tmp_path):
    write_card(results, tmp_path, example)
    text = write_card(unscored, tmp_path).read_text()
    assert list((tmp_path / "plots").iterdir()) == []
    assert "plots/" not in text


def test_twice_the_same(results, example, tmp_path):
    first, second = (write_card(results, tmp_path / name, example).parent for name in "ab")
    for file in ("README.md", "plots/confusion.png", "plots/highlights.png"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_code_of_the_card_runs_as_it_stands(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = SereConfig(id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)})
    folder = Path("path/to/this/folder")
    SereForAudioClassification(config).save_pretrained(folder)
    soundfile.write("clip.wav", np.random.default_rng(0).normal(0, 0.1, (22050, 2)), 22050)  # another rate, stereo
    blocks = re.findall(r"```python\n(.*?)```", write_card(results, folder).read_text(), re.DOTALL)
    assert len(blocks) == 2
    Path("card_code.py").write_text("\n".join(blocks))
    names = runpy.run_path("card_code.py")
    assert {score["label"] for score in names["classifier"]("clip.wav")} == set(LABELS)
    assert names["scores"].shape == (1, 3)
    assert names["highlights"].shape == (1, 50)
    assert names["highlights"].sum().item() == pytest.approx(1)
    assert names["base"](**names["inputs"]).embeddings.shape[0] == 1


def test_without_source_data_it_says_where_the_labelled_clips_came_from(results, tmp_path):
    results |= {"source_free": True, "base_model": "org/sere-de-fr", "encoder": None}
    card = ModelCard.load(write_card(results, tmp_path))
    assert "**without source data**" in card.text and "(https://huggingface.co/org/sere-de-fr)" in card.text
    assert "--model path/to/this/folder --target" in card.text
    assert card.data.base_model == "org/sere-de-fr"
    assert "without source data**" not in write_card(results | {"source_free": False}, tmp_path).read_text()


@pytest.mark.parametrize(
    ("source", "target", "base", "licence", "said"),
    [
        ("cc-by-nc-sa-4.0", "cc-by-4.0", "mit", "cc-by-nc-sa-4.0", "attribution, no commercial use, share alike"),
        ("cc-by-4.0", "cc-by-4.0", "apache-2.0", "cc-by-4.0", "The model it began with: apache-2.0 (attribution)"),
        ("cc0-1.0", "mit", "mit", "mit", "cc0-1.0 (no conditions)"),
        ("cc-by-4.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0", "began with: cc-by-nc-4.0"),
        ("cc-by-4.0", "cc-by-4.0", None, "other", "The model it began with: not recorded."),
        ("cc-by-3.0", "cc-by-4.0", "mit", "other", "no certain one"),  # which of the two is the recipient's choice
        ("cc-by-sa-4.0", "cc-by-nc-4.0", "mit", "other", "no certain one"),  # no licence has both sets of conditions
        ("cc-by-sa-4.0", "cc-by-nc-sa-4.0", "mit", "other", "no certain one"),  # each asks for itself
        ("cc-by-nd-4.0", "cc-by-nd-4.0", "mit", "other", "no derivatives"),
        ("my-own", "mit", "mit", "other", "my-own (its conditions are not known to this card"),
        (None, "mit", "mit", "other", "Source data: not recorded"),
    ],
)
def test_licence_has_the_consequences_of_data_and_base_model(results, tmp_path, source, target, base, licence, said):
    results |= {"source_license": source, "target_license": target, "base_license": base}
    card = ModelCard.load(write_card(results, tmp_path))
    assert (card.data.license, said in card.text) == (licence, True)
    assert ModelCard.load(write_card(results | {"license": "cc-by-nc-4.0"}, tmp_path)).data.license == "cc-by-nc-4.0"


def test_licences_of_rows_are_told_and_counted(results, tmp_path):
    results |= {
        "encoder": None,
        "base_model": None,
        "source_license": "cc-by-4.0, cc-by-nc-4.0",
        "target_license": "mit",
    }
    results["licenses_of_clips"] = {"source": {"cc-by-4.0": 300, "cc-by-nc-4.0": 12}, "target": {}}
    card = ModelCard.load(write_card(results, tmp_path))
    assert card.data.license == "cc-by-nc-4.0"
    assert "Source data: cc-by-4.0 (attribution), cc-by-nc-4.0 (attribution, no commercial use)." in card.text
    assert "| source | cc-by-nc-4.0 | 12 |" in card.text


def test_languages_by_name_and_several_of_them(results, tmp_path):
    results |= {"source_language": "English, Polish, de, Quenya", "target_language": "bn"}
    card = ModelCard.load(write_card(results, tmp_path))
    assert card.data.language == ["en", "pl", "de", "bn"]
    assert "(language: English, Polish, de, Quenya)" in card.text


def test_licence_without_a_base_model(results, tmp_path):
    results |= {"encoder": None, "base_model": None, "source_license": "mit", "target_license": "cc-by-4.0"}
    card = ModelCard.load(write_card(results, tmp_path))
    assert card.data.license == "cc-by-4.0" and "began with" not in card.text

"""Whole runs on corpora as people have them: what is said, and what results.json tells."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import train_sere
from modeling_sere.training.errors import RunError
from testing.corpora import SOUNDS, read_metadata, voice, wav, write_corpus, write_metadata

from .helpers import fill


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with the corpora `source` and `target` and a feature cache."""
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("source", "target")):
        write_corpus(folder / name, seed=seed)
    return folder


@pytest.fixture
def train(data, tmp_path, monkeypatch, capsys):
    """(**options) -> results of a run, and what it said."""

    def train(**options) -> tuple[dict, str]:
        defaults = {
            "source": data / "source", "target": data / "target", "shots": 2, "draws": 1, "report_to": "none",
            "output_dir": tmp_path / "run", "cache_dir": data / "cache",
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in (defaults | options).items()]
        monkeypatch.setattr(sys, "argv", ["train_sere.py", *flags, "--overwrite_output_dir"])
        train_sere.main()
        return json.loads((tmp_path / "run" / "results.json").read_text()), capsys.readouterr().err

    return train


def as_tree(corpus: Path, folder: Path, labelled: bool) -> Path:
    """The same clips in folders per emotion and speaker, or in one without a word on them."""
    for number, row in enumerate(read_metadata(corpus)):
        place = folder / row["emotion"] / row["speaker"] if labelled else folder
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(corpus / row["file_name"], place / f"{number}.WAV")
    return folder


def test_folders_in_place_of_tables(train, data, tmp_path):
    trees = {
        "source": as_tree(data / "source", tmp_path / "source", True),
        "target": as_tree(data / "target", tmp_path / "target", False),
    }
    results, said = train(**trees)
    assert results["labels"] == sorted(SOUNDS) and results["uar"] is None
    assert results["source_speaker_ids"] and not results["speaker_ids"]
    assert (
        "Read source as 24 clips:\n  files     all 24 audio files of the folder\n  emotions  folder1: anger 8, " in said
    )
    assert "(all of the source, as target has no labels; --emotions says which of them to expect)." in said
    results, said = train(**trees, emotions="Sad, Wut")
    assert results["labels"] == ["anger", "sadness"]
    assert results["labels_left_out"] == {"source": {"neutral": 8}, "target": {}}
    assert "Emotions: anger, sadness (as --emotions asks)." in said
    assert "source: 8 of 24 clips are left out, as their emotion is none of the run: neutral 8.\n" in said


def test_clips_cut_out_of_long_files_give_the_same_result(train, data, tmp_path):
    """As files of their own, but for their names, by which shots are drawn: so all clips are shots."""
    pieces: dict[str, list[np.ndarray]] = {}
    rows = []
    for emotion in SOUNDS:
        for speaker in range(2):
            for number in range(4):
                samples = voice(emotion, speaker, number, 0.5)
                before = 0.5 * len(pieces.setdefault(f"s{speaker}.wav", []))
                pieces[f"s{speaker}.wav"].append(samples)
                rows.append((f"s{speaker}.wav", before, before + 0.5, emotion, f"s{speaker}"))
                fill(tmp_path / "single", texts={f"{emotion}_{speaker}_{number}.wav": wav(samples)})
    files = {name: wav(np.concatenate(samples)) for name, samples in pieces.items()}
    table = "".join(",".join(map(str, row)) + "\n" for row in reversed(rows))
    long = fill(tmp_path / "long", texts=files | {"train.csv": "file,start,end,emotion,speaker\n" + table})
    names = sorted(path.name for path in (tmp_path / "single").iterdir())
    columns = [{"file_name": n, "emotion": n.split("_")[0], "speaker": f"s{n.split('_')[1]}"} for n in names]
    write_metadata(tmp_path / "single", columns)
    whole, said = train(source=long, shots=8)
    single, _ = train(source=tmp_path / "single", shots=8)
    assert whole["confusion"] == single["confusion"]
    assert whole["uar"] == pytest.approx(single["uar"], abs=1e-9)
    assert "24 clips cut out of 2 files by the columns start, end" in said


def test_labels_that_only_one_side_has_are_listed_with_a_flag(train, data, tmp_path):
    shutil.copytree(data / "target", tmp_path / "target")
    rows = read_metadata(tmp_path / "target")
    spelled = {"anger": "Wut", "sadness": "neutral state", "neutral": "W"}
    write_metadata(tmp_path / "target", [row | {"emotion": spelled[row["emotion"]]} for row in rows])
    with pytest.raises(RunError) as caught:
        train(target=tmp_path / "target")
    flag = "--label_map 'neutral state=neutral,w=?'"
    assert str(caught.value) == (
        "source and target share anger, at least 2 emotions are needed; the source has anger 8, neutral 8, sadness 8,"
        f" the target anger 8, neutral state 8, w 8: say what they mean with {flag}"
    )
    results, said = train(target=tmp_path / "target", label_map="neutral state=neutral")
    assert results["labels_left_out"] == {"source": {"sadness": 8}, "target": {"w": 8}}
    assert results["labels_read_as"] == {"source": {}, "target": {"Wut": "anger", "neutral state": "neutral"}}
    assert "target: 8 of 24 clips are left out, as their emotion is none of the run: w 8. If they are" in said
    assert "say so: --label_map 'w=?'\n" in said


def test_silent_and_identical_clips_are_told_or_refused(train, data, tmp_path):
    target = as_tree(data / "target", tmp_path / "target", False)
    silence = {f"silent{k}.wav": wav(np.full(8000, k / 10, np.float32)) for k in range(3)}
    _, said = train(target=fill(target, texts=silence | {"copy.wav": (target / "0.WAV").read_bytes()}))
    assert "target: 3 of 28 clips are silent, so an emotion that they are given means nothing: silent0.wav" in said
    assert "target: 1 of 28 clips are copies of another one" in said
    with pytest.raises(RunError, match="silent: all 3 clips are silent: is it the right folder"):
        train(target=fill(tmp_path / "silent", texts=silence))
    same = {f"{k}.wav": (target / "0.WAV").read_bytes() for k in range(20)}
    with pytest.raises(RunError, match="no two of 20 clips are different recordings"):
        train(target=fill(tmp_path / "same", texts=same))


@pytest.mark.parametrize("side", ["source", "target"])
def test_each_side_has_its_flags(train, data, side):
    for flag, message in (("revision", "has no revision"), ("config", "without configurations"), ("split", "no split")):
        with pytest.raises(RunError, match=message) as caught:
            train(**{f"{side}_{flag}": "v1"})
        assert side in str(caught.value)


def test_speakers_that_are_known_of_most_clips(train, data, tmp_path):
    shutil.copytree(data / "target", tmp_path / "target")
    rows = read_metadata(tmp_path / "target")
    write_metadata(
        tmp_path / "target", [row | {"speaker": "" if k % 4 == 0 else row["speaker"]} for k, row in enumerate(rows)]
    )
    results, said = train(target=tmp_path / "target")
    assert results["speaker_ids"]
    assert "speakers  column speaker: 2 (s0, s1); 6 of 24 clips without, they count as one more speaker" in said

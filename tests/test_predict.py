"""The command that answers for files, folders and corpora: each recording is a row, whatever becomes of it."""

import csv
import io
import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modeling_sere import predict
from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.training.errors import RunError
from modeling_sere.training.reporting.answer_file import AnswerFile
from testing.corpora import bad_files, read_metadata, voice, wav, write_corpus

EMOTIONS = ("anger", "happiness", "sadness")


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_model) -> Path:
    """A folder with a model, the corpus `voices`, and the same files without a table, in a folder per speaker."""
    folder = tmp_path_factory.mktemp("predict")
    make_model().save_pretrained(folder / "model")
    write_corpus(folder / "voices", clips=3)
    for row in read_metadata(folder / "voices"):
        (folder / "bare" / row["speaker"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "voices" / row["file_name"], folder / "bare" / row["speaker"])
    return folder


@pytest.fixture
def answer(place, tmp_path, capsys):
    """(*inputs and flags, output="out.csv") -> rows of the output; what was said is in `answer.said`."""

    def answer(*words, output: str = "out.csv", model: Path = place / "model") -> list[dict]:
        path = tmp_path / output
        arguments = predict.parse([str(model), *map(str, words), "--output", str(path)])
        answer.said = predict.run(arguments)
        assert sorted(found.name for found in path.parent.iterdir() if found.name.startswith(path.name)) == [path.name]
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return answer


@pytest.fixture(scope="module")
def classifier(place) -> SerePipeline:
    arguments = predict.parse([str(place / "model"), "x", "--output", "x.csv"])
    return predict.load(arguments)


def test_a_folder_gives_what_the_pipeline_says(answer, place, classifier):
    rows = answer(place / "voices", "--batch_size", "4")
    files = [row["file_name"] for row in read_metadata(place / "voices")]
    assert [row["file"] for row in rows] == files
    assert answer.said.startswith(f"{len(files)} recordings: answers in ")
    for row in rows:
        told = classifier(str(place / "voices" / row["file"]))
        assert row["emotion"] == told["scores"][0]["label"]
        for each in told["scores"]:
            assert float(row[f"score_{each['label']}"]) == pytest.approx(each["score"], abs=1e-3)
        assert float(row["strongest"]) == pytest.approx(told["strongest"], abs=1e-3)
    assert list(rows[0]) == ["file", "emotion", "score", *(f"score_{e}" for e in EMOTIONS), "strongest", "error"]


def test_a_folder_without_a_table_and_files_and_both(answer, place):
    bare = answer(place / "bare")
    assert [row["file"] for row in bare][:2] == ["s0/anger_0_0.wav", "s0/anger_0_1.wav"] and len(bare) == 18
    one = place / "voices" / "anger_0_0.wav"
    rows = answer(one, place / "bare", output="both.csv")
    assert [row["file"] for row in rows] == [str(one), *(str(place / "bare" / row["file"]) for row in bare)]
    assert [row["score"] for row in rows[1:]] == [row["score"] for row in bare]
    (single,) = answer(one, output="one.jsonl")
    assert single["file"] == str(one) and single["scores"].keys() == set(EMOTIONS)
    assert single["score"] == pytest.approx(float(rows[0]["score"]), abs=1e-3)


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_what_cannot_be_used_is_a_row_with_its_reason(answer, tmp_path, output):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, content in bad_files().items():
        (folder / name).write_bytes(content)
    (folder / "good.wav").write_bytes(wav(voice("anger", 0, 0)))
    (folder / "silent.wav").write_bytes(wav(np.zeros(8000, np.float32)))
    rows = {row["file"]: row for row in answer(folder, output=output)}
    assert rows.keys() == {*bad_files(), "good.wav", "silent.wav"}
    assert all(name in rows[name]["error"] for name in bad_files())
    assert f"{len(bad_files())} could not be used" in answer.said
    assert rows["good.wav"]["emotion"] in EMOTIONS and not rows["good.wav"].get("error")
    assert rows["silent.wav"]["emotion"] == "silence" and not rows["silent.wav"]["strongest"]
    gone = answer(folder / "good.wav", folder / "gone.wav", output="gone.jsonl")
    assert "No such file" in gone[1]["error"]


def test_windows_of_long_recordings(answer, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.tile(voice("anger", 0, 0, 2.0), 20), 16_000)
    flags = tmp_path / "long.flac", "--timeline", "--window_s", "2", "--hop_s", "2"
    rows = answer(*flags)
    assert [(float(row["start"]), float(row["end"])) for row in rows] == [(2 * k, 2 * k + 2) for k in range(20)]
    assert all(float(row["start"]) < float(row["strongest"]) < float(row["end"]) for row in rows)
    (whole,) = answer(*flags, output="windows.jsonl")
    assert whole["emotion"] in EMOTIONS and 0 < whole["strongest"] < 40
    assert [window["emotion"] for window in whole["windows"]] == [row["emotion"] for row in rows]


def test_speakers_are_compared_with_themselves(answer, place, classifier):
    plain = {row["file"]: row for row in answer(place / "voices")}
    rows = answer(place / "voices", "--speakers", output="speakers.csv")
    assert [row["speaker"] for row in rows] == ["s0"] * 9 + ["s1"] * 9
    earlier = [str(place / "voices" / row["file"]) for row in rows[:9]]
    told = classifier(earlier[0], speaker_clips=earlier)
    assert float(rows[0]["score"]) == pytest.approx(told["scores"][0]["score"], abs=1e-3)
    assert any(row["score"] != plain[row["file"]]["score"] for row in rows)
    folders = answer(place / "bare", "--speakers", "folder1", output="folders.csv")
    assert [row["score"] for row in folders] == [row["score"] for row in rows]
    with pytest.raises(RunError, match="--speakers finds no speaker: name the column of a table, or folder1"):
        answer(place / "voices" / "anger_0_0.wav", "--speakers", output="none.csv")


def test_choice_of_emotions(answer, place):
    row = answer(place / "voices", "--emotions", "anger, sadness")[0]
    assert "score_happiness" not in row
    assert float(row["score_anger"]) + float(row["score_sadness"]) == pytest.approx(1, abs=1e-3)
    with pytest.raises(RunError, match="'joy', which the model does not know: choose among anger, happiness, sadness"):
        answer(place / "voices", "--emotions", "anger,joy", output="none.csv")


def test_parts_of_long_files_come_in_the_order_of_the_table(answer, tmp_path, classifier):
    pieces = [voice(emotion, 0, 0, 1.0) for emotion in ("anger", "sadness", "neutral")]
    soundfile.write(tmp_path / "long.wav", np.concatenate(pieces), 16_000, subtype="FLOAT")
    (tmp_path / "parts.csv").write_text("file,start,end\nlong.wav,2,3\nlong.wav,0,1\nlong.wav,1,2\nlong.wav,8,9\n")
    rows = answer(tmp_path / "parts.csv")
    assert [row["file"] for row in rows] == ["long.wav[2-3]", "long.wav[0-1]", "long.wav[1-2]", "long.wav[8-9]"]
    for row, piece in zip(rows, (pieces[2], pieces[0], pieces[1]), strict=False):
        assert float(row["score"]) == pytest.approx(classifier(piece)["scores"][0]["score"], abs=1e-3)
    assert "begins at 8 s, but the file at 3.00 s already" in rows[3]["error"]


class Killed(BaseException):
    """Takes the place of a signal."""


@pytest.mark.parametrize("flags", [(), ("--speakers",), ("--timeline", "--window_s", "0.3")], ids=lambda f: f[:1])
@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_file(answer, place, tmp_path, monkeypatch, flags, output):
    monkeypatch.setattr(predict, "BATCHES_TOGETHER", 1)
    words = place / "voices", *flags, "--batch_size", "5"
    whole = answer(*words, output=f"whole{Path(output).suffix}")
    add, keep = AnswerFile.add, AnswerFile._keep

    def die(*_):
        raise Killed

    for moment in ("before", "between", "after"):
        monkeypatch.undo()
        monkeypatch.setattr(predict, "BATCHES_TOGETHER", 1)
        count = itertools.count()

        def dying(self, rows, answered, moment=moment, count=count):
            second = next(count) == 1
            if second and moment == "before":
                die()
            if second and moment == "between":  # the rows, or half of them, but no progress
                self._keep = die
            add(self, rows, answered)
            if second:
                die()

        monkeypatch.setattr(AnswerFile, "add", dying)
        with pytest.raises(Killed):
            answer(*words, output=output)
        assert not (tmp_path / output).exists()
        monkeypatch.setattr(AnswerFile, "add", add)
        monkeypatch.setattr(AnswerFile, "_keep", keep)
        with open(tmp_path / f"{output}.partial", "ab") as file:
            file.write(b'half a row, "\xff')
        with pytest.raises(RunError, match="from a run that broke off: add --resume, or delete it"):
            answer(*words, output=output)
        with pytest.raises(RunError, match="of another model, other recordings or other flags"):
            answer(*words, "--resume", "--emotions", "anger,sadness", output=output)
        assert answer(*words, "--resume", output=output) == whole
        assert answer(*words, "--resume", output=output) == whole and "nothing is left to do" in answer.said
        (tmp_path / output).unlink()


def test_resume_of_nothing_begins(answer, place):
    assert len(answer(place / "voices", "--resume")) == 18


def test_what_the_command_refuses(answer, place, tmp_path, capsys):
    with pytest.raises(RunError, match="nowhere does not exist"):
        answer(tmp_path / "nowhere")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RunError, match="is a model of type bert, not of SERE"):
        answer(place / "voices", model=tmp_path / "text")
    with pytest.raises(RunError, match="cannot be used"):
        answer(place / "voices", model=tmp_path / "absent")
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(RunError, match="out.csv exists: give another --output, or delete it"):
        answer(place / "voices")
    (tmp_path / "noise.wav").write_text("no audio")
    with pytest.raises(RunError, match="not one of 1 recording could be used"):
        answer(tmp_path / "noise.wav", output="noise.csv")
    for words in (["m", "x", "--output", "a.txt"], ["m", "x", "--output", "a.csv", "--batch_size", "0"]):
        with pytest.raises(SystemExit):
            predict.parse(words)
    assert "must end with .csv or .jsonl, not .txt" in capsys.readouterr().err


def test_errors_are_one_sentence(monkeypatch, tmp_path, place):
    words = [str(place / "model"), str(tmp_path / "nowhere"), "--output", str(tmp_path / "a.csv")]
    monkeypatch.setattr(sys, "argv", ["predict", *words])
    with pytest.raises(SystemExit, match=r"^python -m modeling_sere.predict: .*nowhere does not exist"):
        predict.main()


def test_any_name_is_told_on_an_ascii_console(monkeypatch, tmp_path, place):
    folder = tmp_path / "波兰语"
    folder.mkdir()
    voice = next(path for path in sorted((place / "voices").rglob("*")) if path.suffix in (".wav", ".flac"))
    (folder / "ż.wav").write_bytes(voice.read_bytes())
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "argv", ["predict", str(place / "model"), str(folder), "--output", str(folder / "a.csv")])
    predict.main()
    assert rb"\u6ce2\u5170\u8bed" in console.buffer.getvalue() and "ż.wav" in (folder / "a.csv").read_text("utf-8")

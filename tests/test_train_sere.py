"""train_sere.py from the command line to the finished folder, and one sentence for everything that can be wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

import train_sere
from modeling_sere import SereForAudioClassification
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding.features import collate
from modeling_sere.training.errors import RunError
from testing.corpora import bad_files, read_metadata, write_corpus, write_metadata
from testing.runs import differences

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = str(ROOT / "train_sere.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with the corpora `source` and `target` and a feature cache."""
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "source", seed=1)
    write_corpus(folder / "target", seed=2)
    return folder


@pytest.fixture
def flags(data, tmp_path):
    """(**options) -> command line for the small corpora, into tmp_path/run."""

    def flags(**options) -> list[str]:
        own = {} if "model" in options else {"source": data / "source"}
        defaults = own | {
            "target": data / "target", "shots": 2, "draws": 2, "report_to": "none",
            "output_dir": tmp_path / "run", "cache_dir": data / "cache",
        }  # fmt: skip
        return [f"--{name}={value}" for name, value in (defaults | options).items()]

    return flags


@pytest.fixture
def train(flags, monkeypatch, tmp_path):
    """(*more, **options) -> results of a run in this process."""

    def train(*more, **options) -> dict:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *flags(**options), *more])
        train_sere.main()
        return json.loads((Path(options.get("output_dir", tmp_path / "run")) / "results.json").read_text())

    return train


@pytest.fixture
def refuse(train, tmp_path):
    """(**options) -> the one sentence a run ends with; nothing may be left behind."""

    def refuse(**options) -> str:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(RunError) as caught:
            train(**options)
        assert sorted(tmp_path.iterdir()) == before
        message = str(caught.value)
        assert message
        assert "\n" not in message
        return message

    return refuse


def environment(tmp_path) -> dict:
    return os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}


def script(arguments, tmp_path, *launcher, check=True, path=SCRIPT) -> subprocess.CompletedProcess:
    command = [*(launcher or [sys.executable]), str(path), *arguments]
    process = subprocess.Popen(
        command, env=environment(tmp_path), cwd=tmp_path, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        stdout, stderr = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a launcher's children too
        raise
    if check:
        assert process.returncode == 0, stderr[-3000:]
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def tool(name: str) -> str:
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def without_times(results: dict) -> dict:
    return {key: value for key, value in results.items() if key != "seconds"}


def recalls(confusion) -> np.ndarray:
    confusion = np.array(confusion)
    present = confusion.sum(1) > 0
    return (confusion.diagonal() / confusion.sum(1).clip(1))[present]


def model_logits(model, corpus_folder) -> torch.Tensor:
    waveforms = [clip.waveform for clip in load_corpus(corpus_folder, require_labels=False).iter_audio()]
    values, mask = collate(waveforms, "cpu")
    with torch.inference_mode():
        return model.eval()(values, attention_mask=mask).logits


# The quickstart


def test_quickstart(tmp_path):
    out = tmp_path / "quick"
    arguments = ["--output_dir", str(out), "--cache_dir", str(tmp_path / "cache")]
    config = ROOT / "configs" / "accelerate" / "single.yaml"
    done = script(arguments, tmp_path, tool("accelerate"), "launch", "--config_file", str(config))
    assert done.stderr.startswith("Read english as 96 clips:")  # no list of accelerate's defaults
    results = json.loads((out / "results.json").read_text())
    assert set(results["seconds"]) == {"encode", "organise", "score", "save"}
    assert results["labels"] == ["anger", "fear", "happiness", "neutral", "sadness", "surprise"]
    assert (results["source"], results["target"], results["shots"]) == ("english", "polish", 5)
    assert (results["source_language"], results["target_language"]) == ("en", "pl")
    assert results["chance"] == pytest.approx(1 / 6)
    assert np.sum(results["confusion"]) == 102
    assert results["uar"] == pytest.approx(recalls(results["confusion"]).mean())
    assert list(results["per_class_recall"].values()) == pytest.approx(list(recalls(results["confusion"])))
    assert results["war"] == pytest.approx(np.trace(results["confusion"]) / 102)
    assert results["uar"] > results["chance"]
    assert len(results["shot_files"]) == len(set(results["shot_files"])) == 30
    assert results["skipped_clips"] == []
    assert results["spread"]["uar"][0] == results["uar"]
    for name in ("uar", "uar_before", "chance"):
        assert f"{100 * results[name]:.1f} % UAR" in done.stdout
    assert str(ROOT) not in (out / "results.json").read_text()
    assert {"README.md", "model.safetensors", "config.json", "preprocessor_config.json", "pipeline_sere.py"} <= set(
        os.listdir(out)
    )
    assert not (tmp_path / "quick.partial").exists()
    ours, remote = (
        kind.from_pretrained(out, **options)
        for kind, options in (
            (SereForAudioClassification, {}),
            (AutoModelForAudioClassification, {"trust_remote_code": True}),
        )
    )
    logits = model_logits(ours, ROOT / "samples" / "polish")
    torch.testing.assert_close(model_logits(remote, ROOT / "samples" / "polish"), logits)
    references = torch.tensor(
        [results["labels"].index(c.label) for c in load_corpus(ROOT / "samples" / "polish").clips]
    )
    right = logits.argmax(1) == references
    per_class = [right[references == k].float().mean() for k in range(6)]
    assert results["uar_single_clip"] == pytest.approx(np.mean(per_class))


# Results


def test_same_seed_same_results_and_another_seed_other_shots(train, tmp_path):
    first = train(output_dir=tmp_path / "a")
    again = train(output_dir=tmp_path / "b")
    assert without_times(first) == without_times(again)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert train(output_dir=tmp_path / "c", seed=1)["shot_files"] != first["shot_files"]


def test_saved_model_answers_like_the_one_that_was_scored(train, tmp_path, data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        train_sere, "highlight_example", lambda model, *_: seen.append(model_logits(model, data / "target"))
    )
    train()
    loaded = SereForAudioClassification.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(model_logits(loaded, data / "target"), seen[0], rtol=1e-5, atol=1e-5)


def test_second_run_encodes_nothing(train, tmp_path, data):
    train(output_dir=tmp_path / "a", cache_dir=tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    train(output_dir=tmp_path / "b", cache_dir=tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before


def test_json_file_of_flags(flags, monkeypatch, tmp_path, data):
    file = tmp_path / "run.json"
    file.write_text(
        json.dumps({"source": str(data / "source"), "target": str(data / "target"), "shots": 3, "draws": 1})
    )
    where = [f"--output_dir={tmp_path / 'run'}", f"--cache_dir={data / 'cache'}"]
    monkeypatch.setattr(sys, "argv", [SCRIPT, str(file), *where])
    train_sere.main()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["shots"] == 3


def test_target_without_labels_is_adapted_to_and_not_scored(train, tmp_path, data, capsys):
    shutil.copytree(data / "target", tmp_path / "unlabelled")
    write_metadata(tmp_path / "unlabelled", read_metadata(data / "target"), ["file_name", "speaker"])
    results = train(target=tmp_path / "unlabelled")
    assert all(results[name] is None for name in ("uar", "war", "confusion", "per_class_recall"))
    assert results["labels"] == ["anger", "neutral", "sadness"]
    assert "no labels" in capsys.readouterr().out
    loaded = SereForAudioClassification.from_pretrained(tmp_path / "run")
    assert loaded.sere.embedding.statistics.any()
    assert loaded.classifier.weight.any()


def test_inductive_scores_other_speakers(train):
    results = train(setting="inductive")
    assert results["setting"] == "inductive"
    assert np.sum(results["confusion"]) == 12  # one of two speakers
    assert results["uar"] == results["uar_single_clip"]


def test_without_speaker_ids(train, tmp_path):
    results = train("--no_speaker_ids")
    assert results["speaker_ids"] is False
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["prior_weight"] == 1.0


def test_label_map(train, tmp_path, data):
    shutil.copytree(data / "target", tmp_path / "german")
    words = {"anger": "Wut", "neutral": "sachlich", "sadness": "Trauer"}
    rows = [row | {"emotion": words[row["emotion"]]} for row in read_metadata(data / "target")]
    write_metadata(tmp_path / "german", rows)
    plain = train(output_dir=tmp_path / "a")
    mapped = train(
        output_dir=tmp_path / "b", target=tmp_path / "german", label_map="Wut=anger,sachlich=neutral,Trauer=sadness"
    )
    assert mapped["confusion"] == plain["confusion"]


def test_audio_in_both_corpora_is_named(train, tmp_path, data, capsys):
    """As the same file, and as another file of the same samples; one clip is no shot, and the labels do not matter."""
    shots = train(output_dir=tmp_path / "first")["shot_files"]
    assert "NOT ANOTHER LANGUAGE" not in capsys.readouterr().out
    other = next(path.name for path in sorted((data / "source").glob("*.wav")) if path.name not in shots)
    leaky = shutil.copytree(data / "target", tmp_path / "leaky")
    shutil.copy(data / "source" / other, leaky / "neutral_1_1.wav")
    samples, rate = soundfile.read(data / "source" / shots[0], dtype="float32")
    soundfile.write(leaky / "anger_1_2.wav", np.stack([samples] * 2, 1), rate, subtype="FLOAT")
    results = train(target=leaky)
    assert results["same_audio_in_both"] == ["anger_1_2.wav", "neutral_1_1.wav"]
    assert results["shots_in_target"] == ["anger_1_2.wav"]
    printed = capsys.readouterr().out
    assert "the audio of 2 clips of the target is in the source too, that of 1 as a shot" in printed
    assert (
        "**2 target clips have the very audio of a source clip, 1 of a labelled one**"
        in (tmp_path / "run" / "README.md").read_text()
    )


def test_target_whose_labels_were_given_for_training(train, data, capsys):
    results = train(target=data / "source")
    assert len(results["same_audio_in_both"]) == 24 and results["shots_in_target"] == results["shot_files"]
    assert "the audio of 24 clips of the target is in the source too, that of 6 as a shot" in capsys.readouterr().out


# Several source corpora


@pytest.fixture
def several(data, tmp_path, flags):
    """(*more, **options) -> results of a run with the sources `source`, without sadness, and another of this name."""
    first = write_corpus(tmp_path / "one" / "source", emotions=("anger", "neutral"), seed=3)
    second = write_corpus(tmp_path / "two" / "source", clips=3, emotions=("anger", "sadness"), seed=4)

    def several(*more, **options) -> dict:
        words = [word for word in flags(**options) if not word.startswith("--source=")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [SCRIPT, *words, "--source", str(first), str(second), *more])
            train_sere.main()
        return json.loads((tmp_path / "run" / "results.json").read_text())

    return several


def test_emotions_of_several_sources_are_united(several, capsys, tmp_path):
    results = several()
    assert results["labels"] == ["anger", "neutral", "sadness"] and results["source"] == "source, source-2"
    drawn = sorted(name.rsplit("_", 2)[0] for name in results["shot_files"])
    assert drawn == sorted(
        [f"{corpus}/{emotion}" for corpus, emotion in (
            ("source", "anger"), ("source", "neutral"), ("source-2", "anger"), ("source-2", "sadness")
        )] * 2
    )  # fmt: skip
    assert results["num_source_clips"] == 28 and results["num_unlabelled_source"] == 20
    assert np.sum(results["confusion"]) == 24 and results["uar"] > results["chance"]
    assert len(results["spread"]["uar"]) == 2 and results["same_audio_in_both"] == []
    assert "source-2 has no clip of neutral: these are learned from the other sources." in capsys.readouterr().err
    assert SereForAudioClassification.from_pretrained(tmp_path / "run").config.num_sources == 8


def test_audio_of_any_source_in_the_target_is_named(several, data, tmp_path):
    leaky = shutil.copytree(data / "target", tmp_path / "leaky")
    shutil.copy(tmp_path / "two" / "source" / "sadness_1_2.wav", leaky / "sadness_1_0.wav")
    shutil.copy(tmp_path / "one" / "source" / "anger_0_0.wav", leaky / "anger_1_2.wav")
    assert several(target=leaky)["same_audio_in_both"] == ["anger_1_2.wav", "sadness_1_0.wav"]


def test_several_sources_can_be_refined(several):
    assert several(refine_steps=1)["refine_steps"] == 1


def test_several_sources_are_part_of_what_a_run_is(several, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_sere, "write_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        several()
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"other arguments \(--source\)"):
        several("--resume", "--source", str(tmp_path / "two" / "source"))
    rows = read_metadata(tmp_path / "two" / "source")
    write_metadata(tmp_path / "two" / "source", [rows[0] | {"speaker": "s1"}, *rows[1:]])
    with pytest.raises(RunError, match="other clips of the source"):
        several("--resume")
    write_metadata(tmp_path / "two" / "source", rows)
    assert several("--resume")["source"] == "source, source-2"


def test_several_sources_that_cannot_be_used(several, tmp_path, data):
    other = str(write_corpus(tmp_path / "other", clips=3, emotions=("anger", "sadness"), seed=5))
    with pytest.raises(RunError, match="source/ twice: name each corpus once"):
        several("--source", str(data / "source"), f"{data / 'source'}/")
    angry = str(write_corpus(tmp_path / "angry", clips=3, emotions=("anger",), seed=6))
    with pytest.raises(RunError, match="angry has no clip of neutral, sadness, the emotions of this run: leave it out"):
        several("--source", str(data / "source"), angry, "--emotions", "neutral,sadness")
    with pytest.raises(RunError, match="other: 7 labelled clips per emotion are needed, but anger has 6"):
        several("--source", str(data / "source"), other, "--shots", "7")
    assert not (tmp_path / "run").exists()


# From a SERE model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, encoder_config) -> Path:
    """A tiny random wav2vec2, as a repository."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    torch.manual_seed(0)
    AutoModel.from_config(encoder_config("wav2vec2")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(data, tmp_path_factory, encoder) -> Path:
    """The output folder of a run with an encoder, refined highlights and gains."""
    folder = tmp_path_factory.mktemp("start") / "model"
    flags = ["--shots=2", "--refine_steps=2", f"--encoder={encoder}", "--draws=1", "--report_to=none"]
    with pytest.MonkeyPatch.context() as patch:
        places = [f"--source={data / 'source'}", f"--target={data / 'target'}", f"--cache_dir={data / 'cache'}"]
        patch.setattr(sys, "argv", [SCRIPT, *flags, *places, f"--output_dir={folder}"])
        train_sere.main()
    return folder


@pytest.fixture
def train_from(train, start):
    """(**options) -> results of a run that starts from that model, without a source unless one is named."""
    return lambda **options: train(**({"model": start} | options))


def test_without_source_data_a_target_of_the_source_s_name_is_told(train_from, data, capsys):
    train_from(target=data / "source")
    assert "PERHAPS NOT ANOTHER LANGUAGE: the labelled clips in the model come from source" in capsys.readouterr().out


def test_without_source_data_the_sources_travel_on(train_from, start, tmp_path, capsys):
    results = train_from()
    assert "ANOTHER LANGUAGE" not in capsys.readouterr().out
    assert results["source_free"] and results["source"] == "source" and results["shots"] == 2
    assert results["num_source_clips"] == 6 and results["spread"] is None
    first, second = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "run"))
    carried = ["source_embeddings", "source_cues", "source_labels", "sere.highlight_weight", "sere.embedding.log_gain"]
    carried += [name for name in first if name.startswith("sere.encoder.")]
    assert all(torch.equal(first[name], second[name]) for name in carried)
    assert first["sere.highlight_weight"].any()


def test_without_source_data_only_shared_emotions_stay(train_from, tmp_path):
    other = write_corpus(tmp_path / "other", clips=2, emotions=("anger", "sadness"), seed=5)
    assert train_from(target=other)["labels"] == ["anger", "sadness"]
    saved = SereForAudioClassification.from_pretrained(tmp_path / "run")
    assert saved.source_labels.tolist() == [0, 0, 1, 1] and saved.config.num_labels == 2


def test_model_and_source_corpus(train_from, start, tmp_path, data):
    results = train_from(source=data / "target", target=data / "source")
    assert not results["source_free"] and results["source"] == "target" and results["spread"]["uar"]
    first, second = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "run"))
    assert torch.equal(first["sere.embedding.log_gain"], second["sere.embedding.log_gain"])
    assert not torch.equal(first["source_embeddings"], second["source_embeddings"])


def test_models_that_cannot_be_continued(train_from, start, tmp_path, data, encoder):
    shutil.copytree(start, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    bare = SereForAudioClassification.from_pretrained(start)
    bare.source_labels.fill_(-100)
    bare.save_pretrained(tmp_path / "bare")
    bare.config.encoder_config, bare.config.encoder_layers = None, []
    SereForAudioClassification(bare.config).save_pretrained(tmp_path / "deaf")
    for model, message in (
        (tmp_path / "pickled", "has no model.safetensors: SERE reads no other weights"),
        (tmp_path / "bare", "carries no labelled clip of anger: name a labelled corpus as --source"),
        (encoder, "is of type wav2vec2, not a SERE model"),
        (tmp_path / "absent", "cannot be loaded"),
    ):
        with pytest.raises(RunError, match=message):
            train_from(model=model)
    with pytest.raises(RunError, match="deaf has no encoder: leave --train_encoder out"):
        train_from(model=tmp_path / "deaf", source=data / "source", refine_steps=1, train_encoder="full")
    assert not (tmp_path / "run").exists()


# Bad clips


@pytest.fixture
def damaged(data, tmp_path) -> Path:
    """The target with four unusable clips of 28."""
    folder = tmp_path / "damaged"
    shutil.copytree(data / "target", folder)
    for name, content in bad_files().items():
        (folder / name).write_bytes(content)
    rows = [{"file_name": name, "emotion": "anger", "speaker": "s0"} for name in bad_files()]
    write_metadata(folder, [*rows, *read_metadata(data / "target")])
    return folder


def test_unusable_clips_are_skipped_named_and_counted(train, damaged, capsys):
    results = train(target=damaged, max_skipped=0.2)
    assert "Left out as unusable: 4 clips, named in results.json" in capsys.readouterr().out
    assert sorted(clip["name"] for clip in results["skipped_clips"]) == sorted(bad_files())
    assert all(clip["reason"] for clip in results["skipped_clips"])
    assert results["num_target_clips"] == np.sum(results["confusion"]) == 24


def test_clip_that_is_gone_when_the_card_is_made_does_not_end_the_run(train, tmp_path, data):
    target = shutil.copytree(data / "target", tmp_path / "target")
    describe = train_sere.describe  # comes after encoding

    def then_gone(*given):
        for path in target.glob("*.wav"):
            path.write_bytes(b"gone")
        return describe(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_sere, "describe", then_gone)
        assert train(target=target)["num_target_clips"] == 24
    card = " ".join((tmp_path / "run" / "README.md").read_text().split())
    assert "There is no picture, as the example could not be read or drawn" in card


def test_too_many_unusable_clips_stop_the_run(refuse, damaged):
    message = refuse(target=damaged)
    assert "4 of 28" in message
    assert "corrupt.wav" in message


# Bad input


def test_bad_input_on_the_command_line(tmp_path, flags):
    for arguments, message in (
        (flags(encoder="nobody/no-such-encoder"), "--encoder nobody/no-such-encoder cannot be loaded"),
        (flags(shots=-1), "--shots must be at least 0, not -1"),
    ):
        done = script(arguments, tmp_path, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert message in done.stderr.splitlines()[-1]
        assert sum(line.startswith("train_sere.py: ") for line in done.stderr.splitlines()) == 1
        assert not any(path.name.startswith("run") for path in tmp_path.iterdir())


def test_no_metadata(refuse, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "metadata.csv" in refuse(source=tmp_path / "nothing")
    assert "missing does not exist" in refuse(source=tmp_path / "missing")


def test_missing_column(refuse, tmp_path):
    assert "'mood'" in refuse(label_column="mood")
    assert "emotion" in refuse(source=write_corpus(tmp_path / "unlabelled", clips=1, columns=("speaker",)))


def test_fewer_clips_than_shots(refuse):
    assert "anger has 8" in refuse(shots=9)


def test_no_common_emotion(refuse, tmp_path):
    other = write_corpus(tmp_path / "other", clips=1)
    rows = [row | {"emotion": "boredom"} for row in read_metadata(other)]
    write_metadata(other, rows)
    assert "source and target share none" in refuse(target=other)


def test_occupied_output_folder(refuse, train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert "run holds files" in refuse()
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_weight": -1}, "prior_weight"),
        ({"prior_weight": "nan"}, "prior_weight"),
        ({"field_balance": 2}, "field_balance"),
        ({"tric_weight": -1}, "tric_weight"),
        ({"setting": "both"}, "--setting"),
        ({"report_to": "abacus"}, "--report_to"),
        ({"label_map": "Wut"}, "'Wut'"),
        ({"label_map": "missing.json"}, "missing.json"),
        ({"speaker_column": "voice"}, "'voice'"),
        ({"source_split": "train"}, "split"),
    ],
)
def test_options_that_do_not_work(refuse, options, message):
    assert message in refuse(**options)


def test_inductive_setting_without_speakers(refuse, tmp_path):
    silent = write_corpus(tmp_path / "silent", clips=2, columns=("emotion",))
    assert "speaker" in refuse(target=silent, setting="inductive")
    alone = write_corpus(tmp_path / "alone", clips=2, speakers=1)
    assert "1 speaker" in refuse(target=alone, setting="inductive")


def test_encoder_of_another_kind(refuse, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "text")
    assert "'bert'" in refuse(encoder=tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text("{")
    assert "--encoder" in refuse(encoder=tmp_path / "text")


def test_encoder_without_weights(refuse, tmp_path, encoder_config):
    encoder_config("wav2vec2").save_pretrained(tmp_path / "hollow")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hollow")
    assert "hollow" in refuse(encoder=tmp_path / "hollow")


def test_resume_with_other_clips(train, tmp_path, data, monkeypatch):
    """Killed while it refined; then the target is in another order and two rows shorter, or a label is another one."""

    def killed(*_):
        raise KeyboardInterrupt

    target = shutil.copytree(data / "target", tmp_path / "target")
    rows = read_metadata(target)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_sere, "refine", killed)
        train(target=target, refine_steps=2)
    for others, told in ((rows[:1:-1], r"\(24 then, 22 now\)"), ([rows[1], rows[0], *rows[2:]], r"\(content, labels")):
        write_metadata(target, others)
        with pytest.raises(RunError, match=rf"run\.partial was made with other clips of the target {told}"):
            train("--resume", target=target, refine_steps=2)
    write_metadata(target, rows)
    train("--resume", target=target, refine_steps=2)


def test_resume_of_a_finished_run(train, capsys):
    first = train()
    capsys.readouterr()
    assert train("--resume") == first  # without a word in results.json
    printed = capsys.readouterr().out
    assert "is a finished run of these flags" in printed and "SERE (after the field)" in printed


# Refining


def test_refining_without_encoder(train, tmp_path):
    results = train(refine_steps=5)
    assert results["refine_steps"] == 5
    assert {"encode", "organise", "refine", "score", "save"} == set(results["seconds"])
    assert results["uar"] == pytest.approx(recalls(results["confusion"]).mean())
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert weights["sere.highlight_weight"].any()
    assert weights["sere.embedding.log_gain"].any()
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_refined_features_do_not_fill_the_cache(train, tmp_path):
    train(cache_dir=tmp_path / "cache", refine_steps=1)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_encoder_without_training_is_carried_along(train, tmp_path, encoder):
    results = train(encoder=encoder)
    assert results["encoder"] == "tiny"
    original, saved = AutoModel.from_pretrained(encoder), SereForAudioClassification.from_pretrained(tmp_path / "run")
    name = "encoder.layers.0.attention.q_proj.weight"
    torch.testing.assert_close(saved.sere.encoder.model.state_dict()[name], original.state_dict()[name])
    assert str(encoder.parent) not in (tmp_path / "run" / "config.json").read_text()


def test_adapters_are_merged_into_the_saved_encoder(train, tmp_path, encoder, data):
    pytest.importorskip("peft")
    results = train(encoder=encoder, train_encoder="lora", refine_steps=3, batch_size=4)
    assert results["train_encoder"] == "lora"
    saved = SereForAudioClassification.from_pretrained(tmp_path / "run")
    original = AutoModel.from_pretrained(encoder).state_dict()
    state = saved.sere.encoder.model.state_dict()
    assert not any("lora" in name for name in state)
    name = "encoder.layers.0.feed_forward.output_dense.weight"
    assert not torch.equal(state[name], original[name])
    name = "encoder.layers.0.attention.q_proj.weight"
    assert torch.equal(state[name], original[name])
    assert model_logits(saved, data / "target").isfinite().all()


def test_run_leaves_a_log_without_paths(train, tmp_path):
    pytest.importorskip("tensorboard")
    train(refine_steps=2, report_to="tensorboard")
    (log,) = (tmp_path / "run").rglob("hparams.yml")
    assert "refine_steps: 2" in log.read_text()
    assert str(tmp_path) not in log.read_text()


# Several processes


def test_two_processes_make_the_same_model_as_one(train, flags, tmp_path, data):
    options = {"cache_dir": tmp_path / "cache", "output_dir": tmp_path / "two"}
    launcher = tool("torchrun"), "--standalone", "--nproc_per_node", "2"
    script(flags(**options), tmp_path, *launcher)
    rows = [row["key"] for path in (tmp_path / "cache").rglob("*.npy") for row in np.load(path)]
    assert len(rows) == len(set(rows)) == 48  # every clip was encoded once, by one of the two
    train(output_dir=tmp_path / "one", cache_dir=tmp_path / "another cache")
    assert differences(tmp_path / "one", tmp_path / "two", 1e-5) == []


@pytest.mark.skipif(sys.platform != "linux", reason="kills one process by its number")
def test_one_process_of_two_dying_ends_the_other(flags, tmp_path):
    """Within a minute, without a result, and in words; then --resume goes on."""
    options = {"refine_steps": 5000, "batch_size": 2, "draws": 1}
    words = [tool("torchrun"), "--standalone", "--nproc_per_node", "2", SCRIPT, *flags(**options)]
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(
            words, env=environment(tmp_path), cwd=tmp_path, stdout=said, stderr=said, start_new_session=True
        )
    try:
        while process.poll() is None and "Refining" not in (tmp_path / "said").read_text():
            time.sleep(0.1)
        ranks = {child.environ()["RANK"]: child for child in psutil.Process(process.pid).children(recursive=True)}
        ranks["1"].kill()
        began = time.monotonic()
        assert process.wait(timeout=60) != 0
        assert time.monotonic() - began < 60 and not ranks["0"].is_running()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("train_sere.py: ")]
    assert lines and all("--resume" in line for line in lines)
    assert not (tmp_path / "run").exists() and (tmp_path / "run.partial").exists()

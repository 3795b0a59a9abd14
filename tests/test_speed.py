"""What speed.py and scale.py measure with, and their quick rows on tiny corpora."""

import json
import sys

import pytest
import soundfile
import torch
from transformers import WhisperConfig, WhisperModel

from benchmarks import ratios, scale, speed
from benchmarks.ratios import Ratio, fresh_process, in_turns, table
from modeling_sere.training.errors import RunError
from testing.corpora import read_metadata, write_corpus


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(ratios, "REPEATS", 1)
    monkeypatch.setattr(speed, "REPEATS", 1)


def test_ratio_is_of_medians_and_has_one_bound():
    slower = Ratio("a", "s", [9.0, 3.0, 4.0], [2.0, 2.0, 50.0], most=1.5).row()
    assert (slower["ours"], slower["reference"], slower["ratio"], slower["ok"]) == (4.0, 2.0, 2.0, False)
    faster = Ratio("b", "clips/s", [12.0], [1.0], least=8).row()
    assert faster["ok"] and faster["target"] == ">= 8"
    assert Ratio("c", "s", [1.0], [2.0]).row()["ok"] is None
    lines = table([slower, faster]).splitlines()
    assert lines[0].split() == ["name", "ours", "reference", "unit", "ratio", "target", "ok"]
    assert lines[1].endswith("NO") and lines[2].endswith("yes")


def test_values_are_taken_in_turns(monkeypatch):
    monkeypatch.setattr(ratios, "REPEATS", 3)
    seen = []
    result = in_turns("x", lambda: seen.append("a") or len(seen), lambda: seen.append("b") or len(seen))
    assert seen == list("ababab") and result == [[1, 3, 5], [2, 4, 6]]


def test_fresh_process_gives_its_last_line_or_its_last_words():
    assert fresh_process("print('first'); print(sys.argv[1:])", "a", 2) == "['a', '2']"
    with pytest.raises(RuntimeError, match="no such thing"):
        fresh_process("raise KeyError('no such thing')")


def test_bare_whisper_is_the_encoder_of_transformers():
    config = WhisperConfig(
        d_model=16, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=24, num_mel_bins=20,
        decoder_layers=1, decoder_attention_heads=2, vocab_size=60, pad_token_id=0,
    )  # fmt: skip
    model = WhisperModel(config).eval()
    features = torch.randn(2, 20, 3000)
    with torch.inference_mode():
        expected = model.encoder(features).last_hidden_state
        torch.testing.assert_close(speed.BareEncoder(model)._whisper(features), expected)
        cut = speed.BareEncoder(model, 1)._whisper(features)
    assert len(model.encoder.layers) == 1 and not torch.allclose(cut, expected, atol=1e-2)


def test_rows_without_encoder(tmp_path):
    clips = speed.Clips([str(write_corpus(tmp_path / "one", clips=6))])
    for row in (speed.dynamics(clips), speed.realtime(clips)):
        assert row.ours[0] > 1 and row.row()["ratio"] > 0


def test_too_few_clips_or_too_many_folders_are_refused(tmp_path):
    folder = str(write_corpus(tmp_path / "one", clips=2))
    with pytest.raises(RunError, match="has 12 usable clips"):
        speed.Clips([folder])
    with pytest.raises(RunError, match="a source and a target"):
        speed.Clips([folder] * 3)


def test_clips_of_a_scaled_corpus_are_recordings_of_their_own(tmp_path):
    scale.write_clips(tmp_path / "clips", hours=0.2)
    rows = read_metadata(tmp_path / "clips")
    files = [tmp_path / "clips" / row["file_name"] for row in rows]
    assert 700 < sum(soundfile.info(file).duration for file in files) < 740
    assert len({file.read_bytes() for file in files}) == len(files) > len(scale.sample())


def test_recording_has_the_length_that_was_asked_for(tmp_path):
    scale.write_recording(tmp_path / "long.flac", 900)
    assert soundfile.info(tmp_path / "long.flac").duration == 900


def test_field_rows():
    growth, memory = scale.field(400, 100)
    assert growth.ours[0] > 0 and growth.reference[0] > 0 and 0 <= memory.ours[0] < 1


def test_peak_is_of_memory_that_is_no_file(tmp_path):
    code = "x = bytearray(2**26)\nfor i in range(0, 2**26, 4096): x[i] = 1\nimport time; time.sleep(0.2)"
    assert 64 <= scale.anonymous_peak([sys.executable, "-c", code]) < 90
    with pytest.raises(RuntimeError, match="broken"):
        scale.anonymous_peak([sys.executable, "-c", "raise SystemExit('broken')"])


def test_command_without_encoder(tmp_path, monkeypatch, capsys):
    """The rows with large random encoders are left out here: they take a minute."""
    monkeypatch.setattr(speed, "forward", lambda *_, **__: [])
    monkeypatch.setattr(speed, "batching", lambda _: Ratio("batching", "clips/s", [2.0], [1.0], least=1.3))
    folder = write_corpus(tmp_path / "one", clips=6)
    monkeypatch.setattr("sys.argv", ["speed.py", "--corpus", str(folder), "--json", str(tmp_path / "rows")])
    speed.main()
    content = json.loads((tmp_path / "rows").read_text())
    assert [row["name"] for row in content["rows"]] == ["batching", "dynamics", "realtime", "live", "help"]
    assert content["rows"][-1]["ok"] and content["rows"][-1]["ours"] > 0.1
    assert "batching" in capsys.readouterr().out and content["meta"]["encoder"] == "none"
    monkeypatch.setattr("sys.argv", ["speed.py", "--corpus", str(folder), "--rows", "realtime"])
    speed.main()
    assert "batching" not in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["speed.py", "--corpus", str(folder), "--rows", "adapt"])
    with pytest.raises(SystemExit, match="--rows adapt cannot be measured here"):
        speed.main()

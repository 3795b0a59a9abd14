"""Half and double precision on real clips: finite, and the answers of single precision."""

from pathlib import Path

import pytest
import torch

from modeling_sere.training.corpora.loading import load_corpus
from reliability import precision
from reliability.precision import compare
from testing import runs
from testing.forked import finished, linux_only

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The model of the sample, with a random encoder."""
    place = tmp_path_factory.mktemp("precision")
    encoder = runs.tiny_encoder(place / "encoder")
    flags = {"draws": 1, "report_to": "none", "encoder": encoder, "output_dir": place / "out", "cache_dir": place / "c"}
    ended = finished(runs.command(**flags), runs.environment(place / "hf"))
    assert ended.status == 0, ended.stderr
    return place / "out"


@linux_only
def test_answers_of_other_precisions(folder, capsys):
    waveforms = [clip.waveform for clip in load_corpus(SAMPLES / "polish").iter_audio()]
    outcomes = compare(folder, waveforms)
    assert dict(outcomes.tried) == dict.fromkeys(("bfloat16 autocast", "float16 autocast", "double"), len(waveforms))
    assert not any(outcomes.failures.values()), outcomes.failures


def test_other_answers_and_nan_are_failures(monkeypatch, folder):
    """What the comparison is made of, with answers that differ or are no numbers."""
    given = iter([torch.eye(2), torch.eye(2).flip(0), torch.full((2, 2), torch.nan), torch.eye(2)])
    monkeypatch.setattr(precision, "_answers", lambda *_: next(given))
    outcomes = compare(folder, [None, None])
    assert "only 0.0%" in outcomes.failures["bfloat16 autocast"][0]
    assert outcomes.failures["float16 autocast"][0] == "logits are not finite" and not outcomes.failures["double"]

"""Half and double precision on real clips: finite, and the answers of single precision."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from forked import finished, linux_only

from benchmarks.reliability import runs
from modeling_sere import SereForAudioClassification
from modeling_sere.training.data import load_corpus

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
def test_answers_of_other_precisions(folder):
    clips = [torch.from_numpy(clip.waveform)[None] for clip in load_corpus(SAMPLES / "polish").iter_audio()]
    single, double = (SereForAudioClassification.from_pretrained(folder).eval() for _ in range(2))
    double.double()

    def answers(model, context, dtype=torch.float32):
        with torch.inference_mode(), context:
            logits = torch.cat([model(clip.to(dtype)).logits for clip in clips])
        assert logits.isfinite().all()
        return logits.argmax(1)

    expected = answers(single, nullcontext())
    others = {
        "bf16": answers(single, torch.autocast("cpu", torch.bfloat16)),
        "fp16": answers(single, torch.autocast("cpu", torch.float16)),
        "float64": answers(double, nullcontext(), torch.float64),
    }
    agreement = {name: float((found == expected).float().mean()) for name, found in others.items()}
    assert all(share >= 0.99 for share in agreement.values()), agreement

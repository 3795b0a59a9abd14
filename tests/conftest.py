"""What the tests share: tiny random encoders of every supported type, tiny models, synthetic voices, local data."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# before transformers is imported: code that tests load from saved folders must not fill the user's cache
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="sere-tests-")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from modeling_sere import SereConfig, SereForAudioClassification  # noqa: E402
from modeling_sere.embedding_sere import moments  # noqa: E402
from testing.encoders import ENCODERS  # noqa: E402
from testing.encoders import encoder_config as _encoder_config  # noqa: E402

torch.set_num_threads(1)  # tiny models: threads cost more than they give, most of all when tests share a machine

RATE = 16_000
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
EMOTIONS = ("anger", "happiness", "sadness")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(params=list(ENCODERS))
def encoder_name(request) -> str:
    """Each supported kind of encoder in turn."""
    return request.param


@pytest.fixture(params=["none", *ENCODERS])
def stream(request) -> str:
    """Each supported kind of encoder in turn, and no encoder."""
    return request.param


@pytest.fixture(scope="session")
def encoder_config():
    """(name, **changes) -> a tiny encoder's configuration."""
    return _encoder_config


def _sere_config(encoder: str = "none", **options) -> SereConfig:
    if encoder != "none":
        options.setdefault("encoder_config", _encoder_config(encoder))
    labels = options.pop("labels", EMOTIONS)
    return SereConfig(id2label=dict(enumerate(labels)), label2id={x: i for i, x in enumerate(labels)}, **options)


@pytest.fixture(scope="session")
def make_config():
    """(encoder="none", labels=EMOTIONS, **options) -> a tiny SereConfig."""
    return _sere_config


def _voice(seconds: float, seed: int = 0, pitch: float | None = None) -> torch.Tensor:
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    f0 = (pitch or random.uniform(90, 250)) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.3, 1) * time))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 15))
    syllables = np.clip(np.sin(2 * np.pi * random.uniform(2, 5) * time) + 0.4, 0, 1)
    wave = random.uniform(0.05, 0.3) * (tone * syllables + 0.02 * random.standard_normal(len(time)))
    return torch.from_numpy(wave.astype(np.float32))


@pytest.fixture(scope="session")
def voice():
    """(seconds, seed=0, pitch=None) -> something like speech (N,): a gliding tone in syllables, with noise."""
    return _voice


def _pad(clips: list[torch.Tensor], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    size = max(map(len, clips)) + extra
    values, mask = torch.zeros(len(clips), size), torch.zeros(len(clips), size, dtype=torch.long)
    for row, clip in enumerate(clips):
        values[row, : len(clip)], mask[row, : len(clip)] = clip, 1
    return values, mask


@pytest.fixture(scope="session")
def pad():
    """(clips, extra=0) -> input_values and attention_mask, with `extra` samples of padding beyond the longest clip."""
    return _pad


@pytest.fixture(scope="session")
def clips() -> list[torch.Tensor]:
    """Five clips of different lengths, none a whole number of frames."""
    return [_voice(seconds, seed) for seed, seconds in enumerate((0.6001, 1.0, 0.43, 1.3011, 0.8))]


@pytest.fixture(scope="session")
def make_model(clips):
    """(encoder="none", **options) -> a tiny model in eval mode, with a domain's statistics and a random classifier."""
    batch = _pad(clips)

    def make(encoder: str = "none", **options) -> SereForAudioClassification:
        torch.manual_seed(0)
        model = SereForAudioClassification(_sere_config(encoder, **options)).eval()
        torch.nn.init.normal_(model.classifier.weight)
        with torch.no_grad():
            embedding = model.sere.embedding
            features = model.sere.pool(model.sere.frames(*batch))[1]
            embedding.statistics.copy_(moments(features).expand_as(embedding.statistics))
            standardised = embedding.standardised(features)
            embedding.cue_std.copy_(embedding.raw_cues(standardised).std(0))
        return model

    return make


@pytest.fixture(scope="session")
def shared():
    """(path under the shared data) -> Path; skips the test where it is absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"needs shared data: {SHARED / name}")
        return SHARED / name

    return find

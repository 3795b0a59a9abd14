"""Clips without a sound, and the same recording again."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from modeling_sere.training.corpora.corpus import Clip, Corpus
from modeling_sere.training.corpora.sounds import is_narrow, notes_on_sounds
from modeling_sere.training.errors import RunError

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "polish"
TIME = np.arange(16_000) / 16_000
DITHER = np.random.default_rng(0).triangular(-1, 0, 1, 16_000).round() / 2**15
STILL = {
    "silence": 0 * TIME, "constant": 0 * TIME + 0.3, "dither": DITHER, "constant with dither": 0.3 + DITHER,
    "tone below the last bit": 1e-5 * np.sin(1256 * TIME),
}  # fmt: skip


@pytest.fixture(scope="module")
def features(make_model):
    """(waveforms) -> raw features (n, D)."""
    model = make_model().sere

    def features(waveforms) -> np.ndarray:
        with torch.inference_mode():
            rows = [torch.as_tensor(np.asarray(waveform), dtype=torch.float32)[None] for waveform in waveforms]
            return torch.cat([model.pool(model.frames(row, torch.ones_like(row).long()))[1] for row in rows]).numpy()

    return features


@pytest.fixture(scope="module")
def speech(features, voice):
    """Features of 8 voices, from loud to as faint as -60 dB."""
    return features([voice(1.0, seed) * 10 ** (-seed / 4) for seed in range(8)])


def notes(values: np.ndarray, keys=None, narrow=None) -> list[str]:
    corpus = Corpus("polish", [Clip(k, f"{k}.wav", None, None) for k in range(len(values) + 1)], None, {}, audio=None)
    keys = keys or [str(k) for k in range(len(values))]
    narrow = np.zeros(len(values), bool) if narrow is None else narrow
    return list(notes_on_sounds(corpus, range(1, len(values) + 1), values, keys, narrow))


def test_speech_needs_no_note(speech):
    assert notes(speech) == []


@pytest.mark.parametrize("kind", STILL)
def test_silence_is_counted(features, speech, kind):
    (note,) = notes(np.concatenate([speech, features([STILL[kind]] * 2)]))
    assert note == ("polish: 2 of 10 clips are silent, so an emotion that they are given means nothing: 9.wav, 10.wav.")


def test_nothing_but_silence_is_refused(features):
    with pytest.raises(RunError, match="polish: all 5 clips are silent: is it the right folder"):
        notes(features(STILL.values()))


def test_the_same_recording_again_is_refused(speech):
    copies = np.repeat(speech[:1], 5, 0) * (1 + 1e-6 * np.arange(5, dtype=np.float32))[:, None]  # rounding
    with pytest.raises(RunError, match="polish: no two of 5 clips are different recordings with a sound"):
        notes(copies)
    with pytest.raises(RunError, match="no two of 10"):
        notes(np.concatenate([copies, np.zeros_like(copies)]))  # and silence
    assert notes(speech[:1]) == []  # one clip is one clip


def test_copies_are_counted(speech):
    (note,) = notes(speech, list("aabbbcde"))
    assert note == (
        "polish: 3 of 8 clips are copies of another one, the most frequent of which is there 3 times: each counts as a"
        " clip of its own."
    )


def test_copies_in_other_files_are_counted_too(speech):
    """The same samples as FLAC and as WAV have other bytes and the same features, but for rounding."""
    (note,) = notes(np.concatenate([speech, speech[:2] * np.float32(1 + 1e-6), speech[:1]]))
    assert "3 of 11 clips are copies of another one, the most frequent of which is there 3 times" in note


@pytest.mark.parametrize(
    ("change", "narrow"),
    [("none", False), ("telephone", True), ("16 bits at 16 kHz", True), ("silence", False), ("constant", False)],
)
def test_telephone_bandwidth_is_heard(change, narrow):
    waveform, rate = soundfile.read(SAMPLES / "MK0_anger_20.flac", dtype="float32")
    if change in ("silence", "constant"):
        waveform = np.full_like(waveform, 0.2 * (change == "constant"))
    elif change != "none":
        waveform = soxr.resample(soxr.resample(waveform, rate, 8000), 8000, rate)
        waveform = (waveform * 2**15).round() / 2**15 if "bits" in change else waveform
    assert is_narrow(waveform.astype(np.float32)) == narrow


def test_mixed_bandwidths_are_told(speech):
    mixed = np.arange(8) < 3
    (note,) = notes(speech, narrow=mixed)
    assert note.startswith("polish: 3 of 8 clips have no sound above 4 kHz, as from a telephone, and the others do")
    assert notes(speech, narrow=np.ones(8, bool)) == []  # all alike

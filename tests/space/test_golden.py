"""Numbers that Python and JavaScript must agree on; space/tests/ reads the same file.

    python -m tests.space.test_golden

writes it anew.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from modeling_sere.audio_sere import is_silent
from modeling_sere.embedding_sere import shrunk_moments
from modeling_sere.timeline_sere import cut_windows, joined_highlights, loudness_of, shares, weighted_mean

GOLDEN = Path(__file__).resolve().parents[2] / "space/tests/golden.json"
RATE = 16_000
# amplitude, Hz, first and last second: speech-like in level, with a pause and an offset far below it
TONES = [[0.3, 220, 0.0, 1.1], [0.05, 700, 0.7, 2.0], [0.0005, 90, 2.0, 3.4], [0.2, 330, 3.4, 4.2345]]
CHIRP = [50.0, 6_000.0]  # Hz at the beginning and the end of a second, for resampling


def recording() -> np.ndarray:
    time = np.arange(round(TONES[-1][3] * RATE)) / RATE
    sounds = [a * np.sin(2 * np.pi * hz * time) * ((time >= start) & (time < end)) for a, hz, start, end in TONES]
    return np.sum(sounds, axis=0).astype(np.float32)


def chirp(rate: int) -> np.ndarray:
    time = np.arange(rate) / rate
    low, high = CHIRP
    return (0.5 * np.sin(2 * np.pi * (low + (high - low) * time / 2) * time)).astype(np.float32)


def golden_windows(samples: np.ndarray, window: int, hop: int) -> dict:
    cut = list(cut_windows([samples], window, hop))
    windows, highlights, scores = [], [], []
    for k, (start, part) in enumerate(cut):
        frames = len(part) // 320
        weights = np.arange(1, frames + 1, dtype=np.float32)
        highlights.append(weights / weights.sum())
        silent = is_silent(part)
        scores.append(None if silent else [1 / (k + 2), 1 - 1 / (k + 2)])
        windows.append(
            {
                "start": start,
                "end": start + len(part),
                "silent": silent,
                "loudness": loudness_of(part),
                "frames": frames,
            }
        )
    mean = weighted_mean(windows, [None if s is None else torch.tensor(s) for s in scores])
    return {
        "window": window,
        "hop": hop,
        "windows": windows,
        "scores": scores,
        "shares": shares(windows).tolist(),
        "mean": mean.tolist(),
        "highlights": joined_highlights(windows, np.concatenate(highlights)).tolist(),
    }


def golden_voice() -> dict:
    features = torch.tensor([[1.0, 2.0, 5.0], [3.0, -2.0, 5.0], [2.0, 1.5, 5.0]])
    domain = torch.tensor([[0.5, 0.0, 4.0], [1.0, 2.0, 0.0]])
    return {
        "features": features.tolist(),
        "domain": domain.tolist(),
        "statistics": shrunk_moments(features, domain).tolist(),
    }


def golden() -> dict:
    rates = [8_000, 11_025, 44_100, 48_000]
    return {
        "tones": TONES,
        "chirp": CHIRP,
        "timeline": golden_windows(recording(), 9_600, 4_800),
        "voice": golden_voice(),
        "resampled": {str(rate): soxr.resample(chirp(rate), rate, RATE)[800:15_200:97].tolist() for rate in rates},
    }


def assert_close(value, other, at="golden"):
    if isinstance(other, dict):
        assert value.keys() == other.keys(), at
        for key in other:
            assert_close(value[key], other[key], f"{at}.{key}")
    elif isinstance(other, list):
        assert len(value) == len(other), at
        for k, pair in enumerate(zip(value, other, strict=True)):
            assert_close(*pair, f"{at}[{k}]")
    elif isinstance(other, float):
        assert value == pytest.approx(other, abs=1e-6, rel=1e-5), at
    else:
        assert value == other, at


def test_python_gives_the_golden_numbers():
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert {window["silent"] for window in kept["timeline"]["windows"]} == {True, False}
    assert_close(golden(), kept)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n", encoding="utf-8")

"""Windows of a recording: they cover it, and what is told of the whole follows from them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.timeline_sere import cut_windows, joined_highlights, loudness_of, ranked, shares, weighted_mean


@given(
    length=st.integers(1_600, 60_000), frames=st.integers(5, 60), hop=st.integers(1, 60), block=st.integers(1, 20_000)
)
@settings(max_examples=60, deadline=None)
def test_windows_tile_any_recording(length, frames, hop, block):
    window, hop = 320 * frames, 320 * min(hop, frames)
    recording = np.arange(length, dtype=np.float32)
    blocks = (recording[start : start + block] for start in range(0, length, block))
    windows = list(cut_windows(blocks, window, hop))
    covered = 0
    for start, samples in windows:
        assert start % 320 == 0
        assert start <= covered
        covered = max(covered, start + len(samples))
        np.testing.assert_array_equal(samples, recording[start : start + len(samples)])
        assert min(window, length) <= len(samples) < window + 320
    assert covered == length
    assert len(windows) <= 2 + max(0, length - window) // hop


def test_loudness_doubles_every_ten_decibels():
    samples = np.random.default_rng(0).standard_normal(1_000)
    assert loudness_of(10**0.5 * samples) / loudness_of(samples) == pytest.approx(10**0.3)


def window(start: int, silent: bool = False, loudness: float = 1.0) -> dict:
    return {"start": 320 * start, "end": 320 * (start + 2), "frames": 2, "silent": silent, "loudness": loudness}


def test_silent_windows_count_only_among_themselves():
    windows = [window(0), window(1, silent=True, loudness=9.0), window(2, loudness=3.0)]
    np.testing.assert_allclose(shares(windows), [0.25, 0, 0.75])
    np.testing.assert_allclose(shares([window(0, silent=True)] * 4), [0.25] * 4)
    scores = [torch.tensor([1.0, 0.0]), None, torch.tensor([0.0, 1.0])]
    torch.testing.assert_close(weighted_mean(windows, scores), torch.tensor([0.25, 0.75]))
    assert weighted_mean([window(0, silent=True)], [None]) is None


def test_highlights_are_averaged_where_windows_overlap():
    windows = [window(0), window(1, silent=True, loudness=9.0), window(2, loudness=3.0)]
    joined = joined_highlights(windows, np.array([0.5, 0.5, 0.5, 0.5, 0.2, 0.8], np.float32))
    expected = np.array([0.125, 0.125 / 2, 0.75 * 0.2 / 2, 0.75 * 0.8])
    np.testing.assert_allclose(joined, expected / expected.sum(), rtol=1e-6)


def test_labels_without_scores_come_after_silence():
    assert ranked(None, ["anger", "fear"], 2) == [{"score": 1.0, "label": "silence"}, {"score": 0.0, "label": "anger"}]
    assert [item["label"] for item in ranked(torch.tensor([0.1, 0.9]), ["anger", "fear"], None)] == ["fear", "anger"]

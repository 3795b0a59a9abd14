"""Changes of audio in the benchmark of robustness, and its table."""

import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.robustness import CHANGES, summary, uar


@pytest.mark.parametrize("name", CHANGES)
def test_changes_give_a_clip_that_is_much_the_same(name, voice):
    clip = voice(0.8).numpy()
    changed = CHANGES[name](clip)
    assert changed.dtype == np.float32 and abs(len(changed) - len(clip)) < 1600 and np.isfinite(changed).all()
    assert not np.array_equal(changed[: len(clip)], clip[: len(changed)])
    spectra = [np.abs(np.fft.rfft(x, 16_000)) for x in (clip, changed)]
    assert np.corrcoef(*(spectrum[80:3400] for spectrum in spectra))[0, 1] > 0.6


def test_telephone_has_no_band_above_4_khz(voice):
    spectrum = np.abs(np.fft.rfft(robustness.resampled(voice(1.0).numpy(), 8_000), 16_000)) ** 2
    assert spectrum[4200:].sum() < 1e-4 * spectrum.sum()


def test_noise_is_as_far_below_as_it_says(voice):
    clip = voice(1.0).numpy()
    noise = robustness.noisy(clip, 10) - clip
    assert 10 * np.log10(np.square(clip).mean() / np.square(noise).mean()) == pytest.approx(10, abs=0.2)


def test_summary_is_a_mean_over_tasks():
    assert uar(np.array([0, 0, 1]), np.array([0, 0, 0])) == pytest.approx(2 / 3)
    rows = [
        {"source": "a", "target": target, "draw": 0, "clips": 10, "change": name}
        | {"changed": 0.1 * k, "uar": 0.5, "lost": 0.02}
        for k, target in enumerate("bc")
        for name in CHANGES
    ]
    head, _, first, *_ = summary(rows).splitlines()
    assert head == "2 tasks and draws, 20 clips, one by one" and first.split()[2:] == ["5.0", "50.0", "2.0"]

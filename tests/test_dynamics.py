"""The dynamics stream: against openSMILE on real speech, on tones of known pitch, and on input without speech."""

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_sere import SereConfig, SereModel
from modeling_sere.dynamics_sere import CUES, FRAME_NAMES, FUNCTIONAL_NAMES, SereDynamics

CORPORA = Path(__file__).resolve().parents[1].parent / "shared" / "corpora"
NAMES = ("emodb", "emovo", "casia", "ravdess")
CLIPS_PER_CORPUS = 13
# the same cues in openSMILE's eGeMAPSv02 functionals
SMILE_CUES = {
    "f0_level": {0: 1, 2: 1, 3: 1, 4: 1},
    "f0_variability": {5: 1},
    "loudness": {10: 1, 13: 1, 14: 1, 87: 1},
    "high_frequency_energy": {58: 1, 60: -1, 64: 1, 22: -1},
    "tempo": {82: 1, 83: -1, 81: 1},
}
dynamics = SereDynamics()


def vowel(pitch: float, seconds: float = 1.0, level: float = 0.1) -> torch.Tensor:
    """Harmonics that fall by 9 dB an octave, (1, N)."""
    time = torch.arange(int(16000 * seconds)) / 16000
    harmonics = torch.arange(1, int(7000 / pitch) + 1)[:, None]
    return level * (torch.sin(2 * torch.pi * pitch * harmonics * time) * harmonics**-1.5).sum(0)[None]


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> torch.Tensor:
    return level * torch.randn(1, int(16000 * seconds), generator=torch.Generator().manual_seed(seed))


def column(output, name: str) -> torch.Tensor:
    return output.frames[..., FRAME_NAMES.index(name)]


def functional(output, name: str) -> torch.Tensor:
    return output.functionals[:, FUNCTIONAL_NAMES.index(name)]


def pad(clips: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(c.shape[1] for c in clips)
    values = torch.cat([torch.nn.functional.pad(c, (0, length - c.shape[1])) for c in clips])
    mask = torch.stack([torch.arange(length) < c.shape[1] for c in clips]).long()
    return values, mask


@lru_cache(maxsize=1)
def reference() -> dict[str, tuple]:
    """Per corpus: openSMILE's functionals and frames, our functionals and frames, of the same clips."""
    opensmile = pytest.importorskip("opensmile", reason="openSMILE, the yardstick, is not installed")
    soundfile = pytest.importorskip("soundfile")
    if not CORPORA.is_dir():
        pytest.skip("the speech corpora are not at ../shared/corpora")
    level = opensmile.FeatureLevel
    functionals = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level.Functionals)
    descriptors = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level.LowLevelDescriptors)
    result = {}
    for name in NAMES:
        with open(CORPORA / name / "metadata.csv", newline="") as file:
            files = [row["file_name"] for row in csv.DictReader(file)]
        chosen = np.random.default_rng(0).choice(files, CLIPS_PER_CORPUS, replace=False)
        clips = [soundfile.read(CORPORA / name / file, dtype="float32")[0] for file in chosen]
        values, mask = pad([torch.from_numpy(clip)[None] for clip in clips])
        with torch.inference_mode():
            ours = dynamics(values, mask)
        expected = np.stack([functionals(clip, 16000).ravel() for clip in clips])
        frames = [np.squeeze(descriptors(clip, 16000), 0).T for clip in clips]
        result[name] = expected, frames, ours
    return result


def cue(functionals: np.ndarray, signs: dict[int, int]) -> np.ndarray:
    chosen = functionals[:, list(signs)]
    standard = (chosen - chosen.mean(0)) / (chosen.std(0) + 1e-9)
    return np.clip(standard, -4, 4) @ np.array(list(signs.values()))


@pytest.mark.parametrize("corpus", NAMES)
def test_frames_match_opensmile(corpus):
    _, expected, ours = reference()[corpus]
    pitch, loudness = [], []
    for smile, frames, mask in zip(expected, ours.frames.numpy(), ours.frame_mask, strict=True):
        frames = frames[mask]
        # openSMILE's frames start every 10 ms: its pitch frames are 60 ms long, the others 20 ms
        t = np.arange(1, min(len(frames), len(smile) // 2))
        pitch.append(np.stack([smile[2 * t - 2, 10], frames[t, FRAME_NAMES.index("f0")]]))
        loudness.append(np.stack([smile[2 * t, 0], frames[t, FRAME_NAMES.index("loudness")]]))
    pitch, loudness = np.concatenate(pitch, 1), np.concatenate(loudness, 1)
    voiced = (pitch > 0).all(0)
    assert ((pitch[0] > 0) == (pitch[1] > 0)).mean() > 0.95
    assert np.corrcoef(pitch[:, voiced])[0, 1] > 0.95
    assert np.corrcoef(loudness[:, voiced])[0, 1] > 0.99
    assert np.corrcoef(loudness)[0, 1] > 0.99


@pytest.mark.parametrize("name", CUES)
def test_cues_match_opensmile(name):
    own = {FUNCTIONAL_NAMES.index(k): sign for k, sign in CUES[name].items()}
    pairs = [
        (cue(expected, SMILE_CUES[name]), cue(ours.functionals.numpy(), own))
        for expected, _, ours in reference().values()
    ]
    match = np.corrcoef(*(np.concatenate(side) for side in zip(*pairs, strict=True)))[0, 1]
    assert match > 0.95


@pytest.mark.parametrize("pitch", [80, 100, 130, 170, 220, 290, 400])
def test_pitch_of_a_tone(pitch):
    output = dynamics(vowel(pitch))
    expected = 12 * np.log2(pitch / 27.5)
    inner = column(output, "f0")[0, 3:-3]
    assert (inner - expected).abs().max() < 0.5
    assert abs(functional(output, "f0.p50").item() - expected) < 0.5
    assert column(output, "voicing")[0, 3:-3].min() > 0.7


def test_noise_is_unvoiced_and_a_tone_is_harmonic():
    assert (column(dynamics(noise(1)), "f0") > 0).float().mean() < 0.1
    hnr = [functional(dynamics(vowel(150) + noise(1, level)), "voiced.hnr.mean") for level in (0.001, 0.03)]
    assert hnr[0] > hnr[1] + 3


def test_louder_is_louder():
    quiet, loud = dynamics(vowel(150)), dynamics(2 * vowel(150))
    for name in ("loudness", "log_energy"):
        assert (column(loud, name) > column(quiet, name))[0, 1:-1].all()
    assert functional(loud, "sound_level") - functional(quiet, "sound_level") == pytest.approx(
        20 * np.log10(2), abs=1e-3
    )
    for name in ("f0.mean", "voiced.alpha_ratio.mean", "voiced.hnr.mean"):
        assert functional(loud, name).item() == pytest.approx(functional(quiet, name).item(), rel=1e-3, abs=1e-3)


def test_rate_of_syllables():
    def syllables(rate):
        clip = vowel(150, 2.0)
        return clip * torch.sin(torch.pi * rate * torch.arange(clip.shape[1]) / 16000) ** 4

    slow, fast = dynamics(syllables(2)), dynamics(syllables(4))
    for name in ("loudness.peaks_per_second", "voiced.segments_per_second"):
        assert functional(slow, name).item() == pytest.approx(2, abs=0.6)
        assert functional(fast, name).item() == pytest.approx(4, abs=0.6)
    assert functional(slow, "voiced.segment_mean") > functional(fast, "voiced.segment_mean")


def test_padding_changes_nothing():
    clips = [vowel(120, 0.9), noise(0.63), torch.cat([vowel(210, 0.513), noise(0.2)], dim=1), noise(0.01)]
    values, mask = pad(clips)
    values = torch.where(mask.bool(), values, 7.0)  # whatever stands at padding
    batch = dynamics(values, mask)
    for i, clip in enumerate(clips):
        alone = dynamics(clip)
        frames = alone.frames.shape[1]
        assert frames == max(1, clip.shape[1] // 320) == batch.frame_mask[i].sum()
        scale = alone.frames[0].abs().amax(0) + 1
        assert ((batch.frames[i, :frames] - alone.frames[0]).abs() / scale).max() < 1e-4
        assert (batch.frames[i, frames:] == 0).all()
        torch.testing.assert_close(batch.functionals[i], alone.functionals[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 159, 319, 320, 321, 479, 480, 640, 959, 960, 1600])
@pytest.mark.parametrize("kind", ["silence", "dc", "noise", "click"])
def test_finite_on_any_input(samples, kind):
    clip = {"silence": torch.zeros(1, samples), "dc": torch.ones(1, samples), "noise": noise(samples / 16000, 1.0)}.get(
        kind
    )
    if clip is None:
        clip = torch.zeros(1, samples)
        clip[0, samples // 2] = 1
    output = dynamics(torch.cat([clip, clip]), torch.cat([torch.ones(1, samples), torch.zeros(1, samples)]))
    assert output.frames.shape == (2, max(1, samples // 320), len(FRAME_NAMES))
    assert output.functionals.shape == (2, len(FUNCTIONAL_NAMES))
    assert output.frames.isfinite().all()
    assert output.functionals.isfinite().all()


@pytest.mark.parametrize("clip", [vowel(140, 0.4), torch.zeros(1, 4000), noise(0.3), torch.ones(1, 3000)])
def test_gradient_is_finite(clip):
    clip = clip.clone().requires_grad_()
    output = dynamics(clip)
    (output.frames.sum() + output.functionals.sum()).backward()
    assert clip.grad.isfinite().all()


def test_gradient_of_loudness_points_up():
    clip = vowel(140, 0.4).requires_grad_()
    functional(dynamics(clip), "loudness.mean").sum().backward()
    assert (clip.grad * clip).sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_inside(dtype):
    clip = vowel(140, 0.5)
    with torch.autocast("cpu", dtype=dtype):
        inside = dynamics(clip)
    torch.testing.assert_close(inside.functionals, dynamics(clip).functionals, rtol=0, atol=0)
    assert inside.frames.dtype == torch.float32
    assert dynamics(clip.to(dtype)).functionals.isfinite().all()


def test_constants_survive_meta_construction_and_inference_mode():
    with torch.device("meta"):
        module = SereDynamics()
    assert not list(module.parameters()) and not list(module.buffers())
    with torch.inference_mode():
        first = module(vowel(140, 0.5)).functionals
    clip = vowel(140, 0.5).requires_grad_()
    second = module(clip).functionals
    second.sum().backward()
    torch.testing.assert_close(first.clone(), second.detach())


def test_names():
    assert len(set(FRAME_NAMES)) == len(FRAME_NAMES) and "log_energy" in FRAME_NAMES
    assert len(set(FUNCTIONAL_NAMES)) == len(FUNCTIONAL_NAMES) <= 200
    assert list(CUES) == list(SMILE_CUES)
    assert all(name in FUNCTIONAL_NAMES and abs(sign) == 1 for signs in CUES.values() for name, sign in signs.items())


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="input_values"):
        dynamics(torch.zeros(100))
    with pytest.raises(ValueError, match="attention_mask"):
        dynamics(torch.zeros(1, 100), torch.ones(1, 99))


# ------------------------------------------------------------------------------------------------ what is not heard

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "polish"


@lru_cache(maxsize=1)
def recordings() -> list[torch.Tensor]:
    soundfile = pytest.importorskip("soundfile")
    return [torch.from_numpy(soundfile.read(f, dtype="float32")[0]) for f in sorted(SAMPLES.glob("*.flac"))[::6]]


def raw_features(clips: list[torch.Tensor]) -> torch.Tensor:
    model = SereModel(SereConfig()).eval()
    with torch.inference_mode():
        return model.pool(model.frames(*pad([clip[None] for clip in clips])))[1]


def moved(change) -> torch.Tensor:
    """By how many standard deviations each feature of each recording moves under a change of the waveform."""
    before, after = raw_features(recordings()), raw_features([change(clip) for clip in recordings()])
    return (after - before).abs() / before.std(0).clamp_min(1e-6)


def dithered(clip: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(clip.shape, generator=generator) - torch.rand(clip.shape, generator=generator)
    return (clip * 2**15 + noise).round() / 2**15


@pytest.mark.parametrize("offset", [0.001, -0.02, 0.1])
def test_offset_changes_nothing(offset):
    assert moved(lambda clip: clip + offset).max() < 0.05


def test_polarity_changes_nothing():
    assert moved(torch.neg).max() < 1e-3


def test_rounding_changes_nothing():
    """No choice between two almost equal peaks hangs on the last digit."""
    assert moved(lambda clip: clip * (1 + 1e-6 * torch.randn(clip.shape))).max() < 0.01


@pytest.mark.parametrize("before, after", [(16, 0), (0, 16), (16, 16), (80, 0)])
def test_a_moment_of_silence_changes_little(before, after):
    change = moved(lambda clip: torch.nn.functional.pad(clip, (before, after)))
    assert (change > 0.1).float().mean() < 0.02 and change.square().mean().sqrt() < 0.05


def test_dither_changes_little():
    change = moved(dithered)
    assert (change > 0.1).float().mean() < 0.03 and change.square().mean().sqrt() < 0.1

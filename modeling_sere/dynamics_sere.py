"""The dynamics stream: pitch, loudness and timbre of a batch of clips, in torch, without parameters.

Descriptors and functionals follow the extended Geneva minimalistic acoustic parameter set (eGeMAPSv02; Eyben et al.,
"The Geneva Minimalistic Acoustic Parameter Set for voice research and affective computing", IEEE Trans. Affective
Computing 2016); changes of cepstrum, loudness and pitch are added. Pitch is subharmonic summation (Hermes, JASA
1988) with a Viterbi path through its candidates. Jitter, shimmer, formants and slopes have forms of their own that are
continuous in the waveform: no choice between two almost equal peaks, which rounding could turn.

Analysis runs on a grid of 100 frames a second (hop 160 samples, frame u centred on sample 160 u + 160); every other
frame of it is a frame of the model's 50 Hz grid. All of it is dense over (clips, frames) with masks, so that it is one
graph whatever the clips hold.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.audio_utils import mel_filter_bank

# Raised by whoever moves the raw features of a clip, here or in any other file: it is in the key of every cache of
# them, and tests/test_feature_version.py fails when they move without it.
FEATURE_VERSION = 2

SAMPLING_RATE = 16000
HOP = 160
SHORT, SHORT_FFT = 320, 512  # 20 ms frames: loudness and spectrum
LONG, LONG_FFT = 960, 1024  # 60 ms frames: pitch and harmonics
LEAD = (LONG - SHORT) // 2  # both frames share their centre, so long ones start this many samples before the clip
BLOCK = 512  # frames analysed at a time on a CPU, so that the work stays in its cache
PATH_BLOCK = 32  # frames that the pitch path takes together
TRACED_DOUBLINGS = 10  # of blocks, in a graph for any length: 2^10 blocks are 5 minutes

PITCH_MIN, PITCH_MAX = 55.0, 1000.0
N_CANDIDATES = 6
N_HARMONICS, HARMONIC_DECAY = 15, 0.85
VOICING_THRESHOLD = 0.7
SILENCE_RMS = 1e-3
ONSET = 1e-2  # power over that of the clip at which its sound begins
SEMITONE_BASE = 27.5
LPC_RATE, LPC_ORDER, LPC_GRID = 11000, 11, 128
PRE_EMPHASIS = 0.97
FORMANTS = ((550.0, 250.0), (1600.0, 450.0), (2700.0, 500.0))  # centre and half width in Hz of the search for each
N_MEL, N_MFCC = 26, 12
FLOOR = 1e-10
# Power this far below the mean of the clip is inaudible beside it, and so is this power of a sample, ten times that of
# the dither of 16 bits: what a file has there is its format's
RELATIVE_FLOOR, SAMPLE_FLOOR = 1e-6, 10 * 2.0**-32
PERIOD_MIN, PERIOD_MAX = int(SAMPLING_RATE / PITCH_MAX) - 2, math.ceil(SAMPLING_RATE / PITCH_MIN) + 2  # lags
HARMONIC_BINS = math.ceil(2 * PITCH_MAX * LONG_FFT / SAMPLING_RATE) + 3  # that the first two harmonics can reach
FINE = 4  # samples whose energy is summed for the level of single periods
OCTAVE_ERROR = 2.0  # semitones from a frame to the next: a larger jump is the pitch path's, not the voice's

_SHORT_NAMES = (
    "loudness", "log_energy", "alpha_ratio", "hammarberg", "slope_0_500", "slope_500_1500", "spectral_flux",
    *(f"mfcc_{i}" for i in range(1, N_MFCC + 1)),
)  # fmt: skip
_VOICE_NAMES = (
    "jitter", "shimmer", "hnr", "h1_h2", "h1_a3",
    "f1_frequency", "f1_bandwidth", "f1_amplitude",
    "f2_frequency", "f2_bandwidth", "f2_amplitude",
    "f3_frequency", "f3_bandwidth", "f3_amplitude",
)  # fmt: skip
_PITCH_LOWEST = math.log2(25.0)
_PITCH_STEP = math.log2(SAMPLING_RATE / 2 / 25.0) / (LONG_FFT // 2)
_PITCH_FIRST = math.ceil((math.log2(PITCH_MIN) - _PITCH_LOWEST) / _PITCH_STEP)
_PITCH_LAST = math.floor((math.log2(PITCH_MAX) - _PITCH_LOWEST) / _PITCH_STEP)
FRAME_NAMES = ("f0", "voicing", *_SHORT_NAMES, *_VOICE_NAMES, "loudness_delta", "f0_delta")


class DynamicsOutput(NamedTuple):
    """`frames` (B, T, U) at 50 Hz, `frame_mask` (B, T) bool, `functionals` (B, F); float32."""

    frames: torch.Tensor
    frame_mask: torch.Tensor
    functionals: torch.Tensor


def without_offset(waveform: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Take the mean of each clip's real samples from them: a microphone's offset is nothing to hear.

    waveform (B, N), mask (B, N), nonzero at real samples -> (B, N), zeros at padding.
    """
    real = mask.bool()
    waveform = torch.where(real, waveform, 0.0)
    mean = waveform.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1)
    return torch.where(real, waveform - mean, 0.0)


def from_onset(waveform: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Take each clip's offset away, and up to 20 ms of silence at its start, so that frames begin with the sound.

    Silence that was put before a clip then does not move the grid of frames within it. A frame stays within 20 ms of
    where it was; whole frames of silence stay.

    waveform (B, N), mask (B, N), nonzero at real samples, right padded -> both again, zeros at padding.
    """
    waveform = without_offset(waveform, mask)
    length = mask.bool().sum(1, keepdim=True)
    time = torch.arange(waveform.shape[1], device=waveform.device)
    sounds = waveform.square() > ONSET * waveform.square().sum(1, keepdim=True) / length.clamp_min(1)
    onset = torch.where(sounds, time, 0x7FFFFFFF).amin(1, keepdim=True)
    shift = torch.where(sounds.any(1, keepdim=True), onset % (2 * HOP), 0)
    place = time + shift
    kept = place < length
    moved = waveform.gather(1, place.clamp_max(waveform.shape[1] - 1))
    return torch.where(kept, moved, 0.0), kept.long()


# ------------------------------------------------------------------------------------------------ constants


def _mel_filters() -> np.ndarray:
    """Make triangular filters on the mel scale over the bins of the short spectrum: (bins, bands)."""
    return mel_filter_bank(
        SHORT_FFT // 2 + 1, N_MEL, 20, 8000, SAMPLING_RATE, mel_scale="kaldi", triangularize_in_mel_space=True
    )


def _equal_loudness() -> np.ndarray:
    """Return Hermansky's equal-loudness weights (JASA 1990, with the term above 5 kHz) at the mel bands' centres."""
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (20, 8000))
    centres = 700.0 * np.expm1(np.linspace(low, high, N_MEL + 2)[1:-1] / 1127.0)
    w = (2 * np.pi * centres) ** 2
    return (w + 56.8e6) * w**2 / ((w + 6.3e6) ** 2 * (w + 0.38e9)) / (1 + w**3 / 9.58e26)


def _spline_operator(knots: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the matrix (points, knots) that evaluates the natural cubic spline through values at the knots."""
    n = len(knots)
    step = np.diff(knots)
    system, right = np.eye(n), np.zeros((n, n))
    rows = np.arange(1, n - 1)
    system[rows, rows - 1], system[rows, rows + 1] = step[:-1] / 6, step[1:] / 6
    system[rows, rows] = (step[:-1] + step[1:]) / 3
    right[rows, rows - 1], right[rows, rows + 1] = 1 / step[:-1], 1 / step[1:]
    right[rows, rows] = -1 / step[:-1] - 1 / step[1:]
    curvature = np.linalg.solve(system, right)
    left = np.clip(np.searchsorted(knots, points) - 1, 0, n - 2)
    h = step[left]
    a, b = (knots[left + 1] - points) / h, (points - knots[left]) / h
    identity = np.eye(n)
    bend = (a**3 - a)[:, None] * curvature[left] + (b**3 - b)[:, None] * curvature[left + 1]
    return a[:, None] * identity[left] + b[:, None] * identity[left + 1] + bend * (h**2)[:, None] / 6


def _subharmonic_summation() -> np.ndarray:
    """Return the operator (bins, P + 1) from a long magnitude spectrum to its subharmonic sum at P pitches, and its
    mean.

    The value at pitch f is sum_h 0.85^(h-1) ear(h f) |X(h f)| over 15 harmonics (Hermes 1988), |X| read off a cubic
    spline over log frequency; the mean is over 25 Hz to 8 kHz. All of it is linear, hence one matrix.
    """
    n = LONG_FFT // 2 + 1
    knots = np.log2(np.maximum(np.arange(n), 1) * SAMPLING_RATE / LONG_FFT)
    knots[0] = 2 * knots[1] - knots[2]
    grid = _PITCH_LOWEST + _PITCH_STEP * np.arange(n)
    ear = 0.5 + np.arctan(3.0 * (grid - math.log2(25 * 65 / 50))) / np.pi
    smooth = np.eye(n) / 2 + np.eye(n, k=1) / 4 + np.eye(n, k=-1) / 4
    weighted = ear[:, None] * (_spline_operator(knots, grid) @ smooth)
    summed = np.zeros((n, n))
    for harmonic in range(1, N_HARMONICS + 1):
        shift = int(math.log2(harmonic) / _PITCH_STEP)
        summed[: n - shift] += weighted[shift:] * HARMONIC_DECAY ** (harmonic - 1) / N_HARMONICS
    operator = np.concatenate([summed[_PITCH_FIRST - 1 : _PITCH_LAST + 2], summed.mean(0, keepdims=True)])
    operator[np.abs(operator) < 1e-6] = 0  # a spline's far weights would be denormal floats: ten times slower
    return operator.T


def _slope_operator(low: float, high: float, bins: int) -> np.ndarray:
    """Make the weights (bins,) of the regression slope of a log spectrum over the bins from low to high Hz."""
    frequency = np.arange(bins) * SAMPLING_RATE / SHORT_FFT
    inside = (frequency >= low) & (frequency <= high)
    centred = np.where(inside, frequency - frequency[inside].mean(), 0.0)
    return centred / (centred**2).sum()


def _formant_moments() -> np.ndarray:
    """Return the operator (LPC_GRID + 1, 9) from an envelope to its mass and first two moments about each formant's
    centre.

    Moments are in units of the formant's half width.
    """
    hertz = np.arange(LPC_GRID + 1) * LPC_RATE / 2 / LPC_GRID
    away = [(hertz - centre) / width for centre, width in FORMANTS]
    return np.stack([np.exp(-0.5 * x**2) * x**power for power in range(3) for x in away], axis=1)


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> dict[str, torch.Tensor]:
    """Make all windows and filters. They are no buffers: those are lost where models are built on the meta device."""
    frequency = np.arange(SHORT_FFT // 2 + 1) * SAMPLING_RATE / SHORT_FFT
    centre = (LONG - 1) / 2
    order = np.arange(1, N_MFCC + 1)
    cosine = np.cos(np.pi * order * (np.arange(N_MEL)[:, None] + 0.5) / N_MEL) * math.sqrt(2 / N_MEL)
    lifter = 1 + 11 * np.sin(np.pi * order / 22)
    below = frequency[frequency <= LPC_RATE / 2]
    emphasis = 1 + PRE_EMPHASIS**2 - 2 * PRE_EMPHASIS * np.cos(2 * np.pi * below / LPC_RATE)
    lags = np.arange(LPC_ORDER + 1)
    grid = np.pi * lags[:, None] * np.arange(LPC_GRID + 1) / LPC_GRID
    low, high = (frequency >= 50) & (frequency <= 1000), (frequency > 1000) & (frequency <= 5000)
    even = np.full(LONG_FFT // 2 + 1, 2.0)  # DC and Nyquist have no twin
    even[[0, -1]] = 1
    periods = np.concatenate([[0], np.arange(PERIOD_MIN, PERIOD_MAX + 1)])
    bins = int((frequency <= 1500).sum())
    arrays = {
        "hamming": np.hamming(SHORT),
        "gauss": np.exp(-0.5 * ((np.arange(LONG) - centre) / (0.4 * centre)) ** 2),
        "bands": np.concatenate([_mel_filters(), low[:, None], high[:, None]], axis=1),
        "equal_loudness": np.log(_equal_loudness()),
        "cosine": cosine * lifter,
        "slopes": np.stack([_slope_operator(0, 500, bins), _slope_operator(500, 1500, bins)], axis=1),
        "subharmonic_summation": _subharmonic_summation(),
        "periods": even[:, None] * np.cos(2 * np.pi * np.arange(len(even))[:, None] * periods / LONG_FFT) / LONG_FFT,
        "lpc_cosine": 2 * np.cos(2 * np.pi * below[:, None] * lags / LPC_RATE) * emphasis[:, None],
        "lpc_response": np.concatenate([np.cos(grid), np.sin(grid)], axis=1),
        "formants": _formant_moments(),
        "short_basis": fourier_basis(SHORT, SHORT_FFT),
        "long_basis": fourier_basis(LONG, LONG_FFT),
    }
    with torch.inference_mode(False):  # inference tensors could not be used in a later training step
        return {k: torch.tensor(np.asarray(v, dtype=np.float32), device=device) for k, v in arrays.items()}


# ------------------------------------------------------------------------------------------------ frames


def _decibel(power: torch.Tensor, floor: torch.Tensor | float = FLOOR) -> torch.Tensor:
    return 10 * torch.log10(power + floor)


def _frames(blocks: torch.Tensor, first: int, last: int, window: torch.Tensor) -> torch.Tensor:
    """Cut windowed frames (B, last - first, L) that begin at the hops `first` to `last` of blocks (B, hops, HOP)."""
    parts = window.view(-1, HOP)
    return torch.cat([blocks[:, first + i : last + i] * part for i, part in enumerate(parts)], dim=2)


def _others(x: torch.Tensor) -> torch.Tensor:
    """Return every other frame (B, n / 2, K) of x (B, n, K), from the first."""
    return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2])[:, :, 0]


def fourier_basis(length: int, size: int) -> np.ndarray:
    """Return the matrix (length, 2 bins) by which frames of `length` samples have a discrete Fourier transform of
    `size`.
    """
    angle = -2 * np.pi * np.arange(length)[:, None] * np.arange(size // 2 + 1) / size
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def power_spectrum(frames: torch.Tensor, size: int, basis: torch.Tensor) -> torch.Tensor:
    """Compute the power (..., size / 2 + 1) of frames (..., L); in a graph by a product with `fourier_basis`.

    Runtimes of graphs have no transform, or one that loses digits where a frame is quiet.
    """
    if torch.compiler.is_compiling():
        real, imaginary = (frames @ basis).split(size // 2 + 1, dim=-1)
        return real.square() + imaginary.square()
    spectrum = torch.fft.rfft(frames, n=size)
    return spectrum.real.square() + spectrum.imag.square()


def _short_descriptors(power: torch.Tensor, floor: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute the spectral descriptors (B, n, S) of 20 ms frames, all but the flux, from their power (B, n, bins).

    floor (B, 1, 1) is the power of a bin that counts as nothing.
    """
    mel, low, high = (power @ c["bands"]).split([N_MEL, 1, 1], dim=2)
    mel = (mel + floor).log()
    loudness = (0.33 * (mel + c["equal_loudness"])).exp().mean(2, keepdim=True)  # cube root of what the ear gets
    mfcc = mel @ c["cosine"]
    slopes = _decibel(power[..., : len(c["slopes"])], floor) @ c["slopes"]
    two, five = 2000 * SHORT_FFT // SAMPLING_RATE, 5000 * SHORT_FFT // SAMPLING_RATE
    peaks = power[..., : two + 1].amax(2, keepdim=True), power[..., two + 1 : five + 1].amax(2, keepdim=True)
    hammarberg = _decibel(peaks[0], floor) - _decibel(peaks[1], floor)
    alpha = _decibel(high, floor) - _decibel(low, floor)
    energy = mel.mean(2, keepdim=True) / math.log(10)
    return torch.cat([loudness, energy, alpha, hammarberg, slopes, mfcc], dim=2)


def _flux(power: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
    """Compute the root mean square change (B, n, 1) of the magnitudes up to 5 kHz from those of the frames before."""
    magnitude = (power[..., : 5000 * SHORT_FFT // SAMPLING_RATE + 1] + 1e-20).sqrt()
    before = (past[..., : magnitude.shape[2]] + 1e-20).sqrt()
    before = torch.cat([before, magnitude[:, :-1]], dim=1)
    return ((magnitude - before).square().mean(2, keepdim=True) + 1e-20).sqrt()


def _pitch_candidates(power: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """Find log2 frequency (K) and voicing (K) of the best peaks of the subharmonic sum, 1 unless silent:
    (B, n, 2 K + 1).

    A missing candidate has voicing 0.
    """
    magnitude = (power + 1e-20).sqrt()  # the square root has no finite slope at 0
    rising = F.pad(magnitude[..., 1:] > magnitude[..., :-1], (1, 1))
    peak = F.pad(rising[..., :-1] & ~rising[..., 1:], (2, 2))
    near_peak = peak[..., :-4] | peak[..., 1:-3] | peak[..., 2:-2] | peak[..., 3:-1] | peak[..., 4:]
    summed = F.relu((magnitude * near_peak) @ c["subharmonic_summation"])
    summed, mean = summed[..., :-1], summed[..., -1:]
    inner = summed[..., 1:-1]
    is_peak = (inner > summed[..., :-2]) & (inner > summed[..., 2:])
    score, index = (inner * is_peak).topk(N_CANDIDATES, dim=2)
    before, after = summed.gather(2, index), summed.gather(2, index + 2)
    bend = (before - 2 * score + after).clamp_max(-1e-12)
    offset = (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    height = score - 0.25 * (before - after) * offset
    frequency = _PITCH_LOWEST + _PITCH_STEP * (_PITCH_FIRST + index + offset)
    voicing = torch.where(score > 0, 1 - mean / height.clamp_min(FLOOR), 0.0).clamp(0.0, 1.0)
    return torch.cat([frequency, voicing], dim=2)


# ------------------------------------------------------------------------------------------------ pitch path


def _min_plus(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply cost matrices (nodes, S, S, ...) in the min-plus sense: the cheapest way through b, then a."""
    product = (a[:, :, :, None] + b[:, None]).amin(2)
    return product - product.amin((1, 2), keepdim=True)  # only differences matter: stays small on long audio


def _no_cost(states: int, device) -> torch.Tensor:
    """Return the cost matrix (S, S, 1, 1) of staying where one is."""
    return (1e9 * (1 - torch.eye(states, device=device)))[..., None, None]


def _across(whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the cheapest way to reach each state before, and to leave it after, each block of time.

    whole (1, S, S, B, m) are the cost matrices of m blocks in turn -> (1, S, B, m) twice. Products of all blocks before
    and after each come from doubling the number of blocks in them.
    """
    states, batch, blocks = whole.shape[2:]
    idle = _no_cost(states, whole.device)[None].expand(-1, -1, -1, batch, -1)
    past = future = whole
    for doubling in range(TRACED_DOUBLINGS if torch.compiler.is_compiling() else (blocks - 1).bit_length()):
        step = 1 << doubling
        none = idle.expand(-1, -1, -1, -1, step)
        past = _min_plus(past, torch.cat([none, past], dim=4)[..., :blocks])
        future = _min_plus(torch.cat([future, none], dim=4)[..., step:], future)
    return F.pad(past.amin(2), (1, 0))[..., :blocks], F.pad(future.amin(1), (0, 1))[..., 1:]


def _best_path(steps: torch.Tensor) -> torch.Tensor:
    """Find the states (B, U) of the cheapest path; steps[i, j, b, u] is the cost of being in i at u coming from j.

    U is a whole number of blocks. A tree over the time of a block instead of a loop: products of neighbouring cost
    matrices on the way up, the cheapest way to reach and to leave each node on the way down.
    """
    blocks = steps.reshape(*steps.shape[:3], steps.shape[3] // PATH_BLOCK, PATH_BLOCK)
    tree = [blocks.permute(4, 0, 1, 2, 3).contiguous()]  # the long axes last: only long inner loops are fast
    while len(tree[-1]) > 1:
        tree.append(_min_plus(tree[-1][1::2], tree[-1][::2]))
    reach, leave = _across(tree[-1])
    for level in reversed(tree[:-1]):
        reach_odd = (level[::2] + reach[:, None]).amin(2)
        leave_even = (level[1::2] + leave[:, :, None]).amin(1)
        reach = torch.stack([reach, reach_odd], dim=1).flatten(0, 1)
        leave = torch.stack([leave_even, leave], dim=1).flatten(0, 1)
        reach, leave = reach - reach.amin(1, keepdim=True), leave - leave.amin(1, keepdim=True)
    here = (tree[0] + reach[:, None]).amin(2)
    return (here + leave).argmin(1).permute(1, 2, 0).flatten(1)


@torch.no_grad()
def _choose_pitch(frequency: torch.Tensor, voicing: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Choose the index (B, U) of the candidate on the best path, N_CANDIDATES where unvoiced; inputs (B, U, K),
    mask (B, U).

    Costs as in eGeMAPS (after Luengo et al., ICASSP 2007): for a weak or unusual candidate, for changing between voiced
    and unvoiced, for the size of a jump in pitch, and for leaving a candidate that the next better one was far from.
    """
    frames = mask.shape[1]
    # one block more in a graph: at least two, so that a tracer does not take one for a special case
    blocks = (frames + PATH_BLOCK - 1) // PATH_BLOCK + int(torch.compiler.is_compiling())
    beyond = blocks * PATH_BLOCK - frames
    mask = F.pad(mask, (0, beyond))
    frequency, voicing = (F.pad(x.permute(2, 0, 1), (0, beyond)) for x in (frequency, voicing))  # (K, B, U)
    hertz = torch.exp2(frequency)
    out_of_range = (1 - hertz / 100).clamp_min(0.0) + ((hertz - 350) / 250).clamp(0.0, 1.2)
    local = 2 * (-voicing.clamp_min(0.01).log() + 4.0 * (voicing < VOICING_THRESHOLD)) + out_of_range
    local = torch.where(voicing > 0, local, 1e3)
    unvoiced = 8.0 * (voicing >= VOICING_THRESHOLD).any(0, keepdim=True)
    past = torch.cat([frequency[..., :1], frequency[..., :-1]], dim=2)
    jump = 10 * math.log(2) * (frequency[:, None] - past[None]).abs()  # (to, from, B, U)
    apart = 10 * math.log(2) * past.diff(dim=0).abs()
    apart = torch.cat([jump[:, :1], apart[None].expand(N_CANDIDATES, -1, -1, -1)], dim=1)
    cost = F.pad(jump + apart, (0, 0, 0, 0, 0, 1, 0, 1), value=10.0)
    cost[-1, -1] = 1.0
    cost[..., 0] = 0.0
    steps = cost + torch.cat([local, unvoiced])[:, None]
    return _best_path(torch.where(mask, steps, _no_cost(N_CANDIDATES + 1, steps.device)))[:, :frames]


# ------------------------------------------------------------------------------------------------ voice quality


def _between(x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Interpolate the values of x (B, n, L) at fractional positions (B, n, P) of its last axis, on straight
    lines between entries.
    """
    position = position.clamp(0.0, x.shape[2] - 1.001)
    low = position.floor()
    index = low.long()
    left, right = x.gather(2, index), x.gather(2, index + 1)
    return left + (position - low) * (right - left)


def _shimmer(energy: torch.Tensor, period: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Compute the mean change of level in dB (B, n, 1) between the three periods around the middle of a frame.

    energy (B, n, LONG / FINE) of every FINE samples, period (B, n) in samples. The energy of a whole period is the same
    wherever in the cycle it begins, so that no mark has to be found.
    """
    passed = F.pad(energy.cumsum(2), (1, 0))
    edges = (LONG / 2 + period[..., None] * period.new_tensor([-1.5, -0.5, 0.5, 1.5])) / FINE
    level = _decibel(_between(passed, edges).diff(dim=2).clamp_min(0.0) / period[..., None], floor)
    return level.diff(dim=2).abs().mean(2, keepdim=True)


def _jitter(f0: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """Compute the bend (B, n) of the unsmoothed pitch over its neighbours in semitones; a steady rise or fall
    has none.
    """
    after, before = _neighbours(f0, voiced)
    return (after - 2 * f0 + before).abs().clamp_max(OCTAVE_ERROR) * voiced


def _formants(autocorrelation: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute frequency and bandwidth in Hz, and level in dB, of the envelope around three formants: (B, n, 9).

    They are the centre, the width and the mass of the envelope within a window on each formant's range.
    """
    r = autocorrelation / autocorrelation[..., :1]
    predictor, error = r[..., :0], r[..., :1] + 1e-6
    for order in range(1, LPC_ORDER + 1):  # Levinson-Durbin
        ahead = predictor.flip(2)
        reflection = (r[..., order : order + 1] - (predictor * r[..., 1:order].flip(2)).sum(2, keepdim=True)) / error
        predictor = torch.cat([predictor - reflection * ahead, reflection], dim=2)
        error = error * (1 - reflection.square()).clamp_min(1e-6)
    response = torch.cat([torch.ones_like(error), -predictor], dim=2) @ c["lpc_response"]
    cosine, sine = response.split(LPC_GRID + 1, dim=2)
    envelope = 1 / (cosine.square() + sine.square()).clamp_min(1e-6)
    mass, first, second = (envelope @ c["formants"]).split(len(FORMANTS), dim=2)
    away = first / mass
    spread = (second / mass - away.square()).clamp_min(1e-6).sqrt()
    level = _decibel(mass * error * autocorrelation[..., :1])
    middle, width = r.new_tensor(FORMANTS).unbind(1)
    return torch.cat([middle + width * away, width * spread, level], dim=2)


# ------------------------------------------------------------------------------------------------ contours


def _neighbours(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the frame after and the frame before each frame of x (B, U), itself in place of one outside the mask."""
    after = torch.where(F.pad(mask[:, 1:], (0, 1)), F.pad(x[:, 1:], (0, 1)), x)
    before = torch.where(F.pad(mask[:, :-1], (1, 0)), F.pad(x[:, :-1], (1, 0)), x)
    return after, before


def _smooth(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the mean over each frame and its neighbours that lie in the mask; x (B, U, K), mask (B, U); 0 outside the
    mask.
    """
    weight = mask[..., None].to(x.dtype)
    padded, weights = F.pad(x * weight, (0, 0, 1, 1)), F.pad(weight, (0, 0, 1, 1))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    count = weights[:, :-2] + weights[:, 1:-1] + weights[:, 2:]
    return weight * total / count.clamp_min(1)


def _delta(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute half the difference of the two neighbours of each frame of x (B, U), itself in place of one outside the
    mask.
    """
    after, before = _neighbours(x, mask)
    return torch.where(mask, (after - before) / 2, 0.0)


def _mean_std(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute mean and standard deviation (B, K) over the frames of x (B, U, K) in mask (B, U); 0 without frames."""
    weight = mask[..., None].to(x.dtype)
    count = weight.sum(1).clamp_min(1)
    mean = (x * weight).sum(1) / count
    variance = ((x - mean[:, None]) * weight).square().sum(1) / count
    return mean, (variance + 1e-12).sqrt()


def _percentiles(x: torch.Tensor, mask: torch.Tensor, points: tuple[float, ...]) -> torch.Tensor:
    """Compute interpolated percentiles (B, P) of x (B, U) over the mask."""
    ordered = torch.where(mask, x, torch.inf).sort(dim=1).values
    last = (mask.sum(1, keepdim=True) - 1).clamp_min(0)
    position = last * x.new_tensor(points)
    low = position.floor()
    left, right = ordered.gather(1, low.long()), ordered.gather(1, torch.minimum(low.long() + 1, last))
    value = left + (position - low) * (right - left)
    return torch.where(mask.any(1, keepdim=True), value, 0.0)


def _changes(x: torch.Tensor, mask: torch.Tensor, largest: float = math.inf) -> torch.Tensor:
    """Compute changes (B, U - 1) of x (B, U) between frames, 0 unless both lie in the mask, `largest` at most."""
    change = torch.where(mask[:, 1:] & mask[:, :-1], x[:, 1:] - x[:, :-1], 0.0)
    return change.clamp(-largest, largest)


def _slope_statistics(change: torch.Tensor) -> torch.Tensor:
    """Compute mean and deviation of rising and of falling slopes (B, 4) per second, from changes (B, U - 1).

    Every change counts by its size: these are statistics of the slope met on a unit of the way up or down, whatever
    ripple lies on the way.
    """
    statistics = []
    for size in (change.clamp_min(0.0), (-change).clamp_min(0.0)):
        total = size.sum(1, keepdim=True) + 1e-3
        mean = size.square().sum(1, keepdim=True) / total
        std = ((size * (size - mean).square()).sum(1, keepdim=True) / total + 1e-12).sqrt()
        statistics += [mean * SAMPLING_RATE / HOP, std * SAMPLING_RATE / HOP]
    return torch.cat(statistics, dim=1)


def _peaks_per_second(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the rate (B, 1) of the frames of x (B, U) that are the highest within 50 ms.

    A peak counts in full if x rises to it and falls from it by a tenth of the range of x within these 50 ms, else for
    less. Of two that are almost as high either counts, so that rounding does not change the rate.
    """
    reach = 5
    high, low = torch.where(mask, x, -torch.inf), torch.where(mask, -x, -torch.inf)
    frames = x.shape[1]

    def within(side: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Return the largest value of (B, U) from `first` to `last` frames from each one."""
        padded = F.pad(side, (reach, reach), value=-torch.inf)
        near = [padded[:, reach + i : reach + i + frames] for i in range(first, last + 1)]
        return torch.stack(near).amax(0)

    peak = mask & (high > within(high, -reach, -1)) & (high >= within(high, 1, reach))
    lowest = torch.minimum(within(low, -reach, 0), within(low, 0, reach))
    spread = (high.amax(1, keepdim=True) + low.amax(1, keepdim=True)).clamp_min(1e-3)
    height = torch.where(peak, high + lowest, 0.0)
    seconds = mask.sum(1, keepdim=True) * (HOP / SAMPLING_RATE)
    return (height / (0.1 * spread)).clamp(0.0, 1.0).sum(1, keepdim=True) / seconds


@torch.no_grad()
def _run_statistics(on: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute number, mean length and deviation of length in seconds (B, 3) of the runs of `on` (B, U).

    As in eGeMAPS a gap of one frame does not end a run and a run has at least three frames.
    """
    on = on & mask
    bridged = F.pad(on | (F.pad(on[:, :-1], (1, 0)) & F.pad(on[:, 1:], (0, 1)) & mask), (2, 2))
    core = bridged[:, :-2] & bridged[:, 1:-1] & bridged[:, 2:]  # middles of three: (B, U + 2)
    run = F.pad(core[:, :-2] | core[:, 1:-1] | core[:, 2:], (1, 1))  # (B, U) with one frame off at both ends
    time = torch.arange(run.shape[1] - 1, device=run.device, dtype=torch.float32)
    begin, end = run[:, 1:] & ~run[:, :-1], run[:, :-1] & ~run[:, 1:]
    # the k-th run is from the k-th begin to the k-th end
    begins, ends = (torch.where(x, time, torch.inf).sort(dim=1).values for x in (begin, end))
    kept = begins < torch.inf
    length = torch.where(kept, ends - begins, 0.0)
    mean, std = _mean_std(((length - 1) * (HOP / SAMPLING_RATE))[..., None], kept)
    count = kept.sum(1, keepdim=True)
    return torch.cat([count.float(), mean, torch.where(count > 1, std, 0.0)], dim=1)


# ------------------------------------------------------------------------------------------------ functionals

_VOICED_SPECTRAL = ("alpha_ratio", "hammarberg", "slope_0_500", "slope_500_1500", "spectral_flux", *_SHORT_NAMES[7:])
_UNVOICED_SPECTRAL = ("alpha_ratio", "hammarberg", "slope_0_500", "slope_500_1500", "spectral_flux")
_OVERALL = ("spectral_flux", *_SHORT_NAMES[7:])


def _contour_names(name: str) -> tuple[str, ...]:
    statistics = (
        "mean",
        "std_norm",
        "p20",
        "p50",
        "p80",
        "range",
        "rising_mean",
        "rising_std",
        "falling_mean",
        "falling_std",
    )
    return tuple(f"{name}.{s}" for s in statistics)


FUNCTIONAL_NAMES = (
    *_contour_names("f0"),
    *_contour_names("loudness"),
    *(f"{n}.{s}" for s in ("mean", "std") for n in _OVERALL),
    *(f"voiced.{n}.{s}" for s in ("mean", "std") for n in (*_VOICE_NAMES, *_VOICED_SPECTRAL)),
    *(f"unvoiced.{n}.mean" for n in _UNVOICED_SPECTRAL),
    "loudness.peaks_per_second",
    "voiced.segments_per_second", "voiced.segment_mean", "voiced.segment_std",
    "unvoiced.segment_mean", "unvoiced.segment_std",
    "sound_level",
    *(f"voiced.mfcc_{i}_delta.std" for i in range(1, N_MFCC + 1)),
    "loudness_delta.std", "f0_delta.std",
)  # fmt: skip

CUES = {
    "f0_level": {"f0.mean": 1, "f0.p20": 1, "f0.p50": 1, "f0.p80": 1},
    "f0_variability": {"f0.range": 1},
    "loudness": {"loudness.mean": 1, "loudness.p50": 1, "loudness.p80": 1, "sound_level": 1},
    "high_frequency_energy": {
        "voiced.alpha_ratio.mean": 1,
        "voiced.hammarberg.mean": -1,
        "voiced.slope_500_1500.mean": 1,
        "mfcc_1.mean": -1,
    },
    "tempo": {"voiced.segments_per_second": 1, "voiced.segment_mean": -1, "loudness.peaks_per_second": 1},
}


def _contour_statistics(x: torch.Tensor, mask: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Compute the ten statistics of `_contour_names` (B, 10) of x (B, U) over a mask, and of its changes (B, U - 1)."""
    mean, std = _mean_std(x[..., None], mask)
    points = _percentiles(x, mask, (0.2, 0.5, 0.8))
    spread = points[:, 2:] - points[:, :1]
    return torch.cat([mean, std / mean.abs().clamp_min(1e-3), points, spread, _slope_statistics(change)], dim=1)


class SereDynamics(nn.Module):
    """Pitch, loudness and timbre of clips; no parameters, no buffers, float32 whatever the autocast."""

    def __init__(self):
        super().__init__()
        self.constants = _constants(torch.device("cpu"))  # for graphs: what a tracer makes must not be kept

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> DynamicsOutput:
        """Describe clips.

        Args:
            input_values: (B, N) waveforms in [-1, 1] at 16 kHz; a constant offset of a clip counts for nothing.
            attention_mask: (B, N), nonzero at real samples, right padded; None if all are real.

        Returns:
            DynamicsOutput: frames (B, T, len(FRAME_NAMES)), T = max(1, N // 320), zero at padding; their mask (B, T);
            functionals (B, len(FUNCTIONAL_NAMES)). F0 and the voice quality are 0 where a frame is unvoiced.

        Raises:
            ValueError: input_values is not (B, N), or attention_mask has another shape.
        """
        if input_values.ndim != 2:
            raise ValueError(f"input_values must be (clips, samples), not {tuple(input_values.shape)}.")
        if attention_mask is not None and attention_mask.shape != input_values.shape:
            raise ValueError(
                f"attention_mask must have the shape of input_values, {tuple(input_values.shape)}, "
                f"not {tuple(attention_mask.shape)}."
            )
        with torch.autocast(device_type=input_values.device.type, enabled=False):
            waveform = input_values.float()
            real = torch.ones_like(waveform) if attention_mask is None else attention_mask
            return self._describe(without_offset(waveform, real), real.bool().sum(1))

    def _describe(self, waveform: torch.Tensor, length: torch.Tensor) -> DynamicsOutput:
        """Describe waveforms (B, N), zeros beyond the length (B,) of each."""
        if waveform.shape[1] < 2 * HOP:
            waveform = F.pad(waveform, (0, 2 * HOP - waveform.shape[1]))
        samples = waveform.shape[1]
        if torch.compiler.is_compiling():
            c = {name: value.to(waveform.device) for name, value in self.constants.items()}
        else:
            c = _constants(waveform.device)
        pairs = samples // (2 * HOP)
        n = 2 * pairs
        frame = torch.arange(n, device=waveform.device)
        mask = frame < (length // HOP - 1).clamp_min(1)[:, None]  # (B, n)
        padded = F.pad(waveform, (LEAD, HOP * (n - 1) + LONG - LEAD - samples))
        power = waveform.square().sum(1, keepdim=True) / length.clamp_min(1)[:, None]

        analysed = self._analyse(padded.reshape(padded.shape[0], n + LONG // HOP - 1, HOP), power[..., None], c)
        spectral, frequency, voicing, loud, quality = analysed
        spectral = torch.cat([spectral[..., :6], spectral[..., 6:7] * (frame > 0)[:, None], spectral[..., 7:]], dim=2)
        choice = _choose_pitch(frequency, voicing, mask)
        voiced = (choice < N_CANDIDATES) & (loud[..., 0] > 0) & mask
        chosen = choice.clamp_max(N_CANDIDATES - 1)[..., None]
        f0 = 12 * (frequency.gather(2, chosen)[..., 0] - math.log2(SEMITONE_BASE)) * voiced
        voicing = torch.where(voiced, voicing.gather(2, chosen)[..., 0], voicing.amax(2))
        quality = self._voice_quality(quality, f0, voiced, power[..., None])

        raw = spectral
        spectral = _smooth(spectral, mask)
        f0 = _smooth(f0[..., None], voiced)[..., 0]
        functionals = self._functionals(spectral, raw, f0, quality, mask, voiced, power)
        deltas = [_delta(spectral[..., 0], mask), _delta(f0, voiced)]
        contours = torch.cat([torch.stack([f0, voicing], dim=2), spectral, torch.stack(deltas, dim=2)], dim=2)
        contours = _others(contours)
        frames = torch.cat([contours[..., :-2], quality, contours[..., -2:]], dim=2)
        frame_mask = torch.arange(pairs, device=waveform.device) < (length // (2 * HOP)).clamp_min(1)[:, None]
        return DynamicsOutput(frames * frame_mask[..., None], frame_mask, functionals)

    def _analyse(self, blocks: torch.Tensor, power: torch.Tensor, c: dict) -> tuple[torch.Tensor, ...]:
        """Analyse all frames, on a CPU some at a time.

        blocks (B, hops, HOP) of the padded waveforms, power (B, 1, 1) of the clips -> spectral descriptors (B, n, S),
        frequency and voicing of the pitch candidates (B, n, K) each, loud or silent (B, n, 1), and what the voice
        quality is made of, of every other frame (B, n / 2, Q).
        """
        clips, n = blocks.shape[0], blocks.shape[1] - LONG // HOP + 1
        if blocks.device.type == "cpu" and not torch.compiler.is_compiling():
            steps = min(n, BLOCK)
            rows = max(1, BLOCK // steps)
            parts = [
                [self._analyse_block(blocks[k : k + rows], power[k : k + rows], i, min(n, i + steps), c)
                 for i in range(0, n, steps)]
                for k in range(0, clips, rows)
            ]  # fmt: skip
            every, others = (
                torch.cat([torch.cat([block[i] for block in row], dim=1) for row in parts]) for i in (0, 1)
            )
        else:
            every, others = self._analyse_block(blocks, power, 0, n, c)
        return *every.split([len(_SHORT_NAMES), N_CANDIDATES, N_CANDIDATES, 1], dim=2), others

    def _analyse_block(self, blocks, power, first: int, last: int, c: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Analyse frames `first` (even) to `last`: what is known of every frame, and of every other one."""
        nothing = RELATIVE_FLOOR * power + SAMPLE_FLOOR
        floor = nothing * c["hamming"].square().sum()
        lead = LEAD // HOP
        before = max(0, first - 1)
        short = power_spectrum(_frames(blocks[:, lead:], before, last, c["hamming"]), SHORT_FFT, c["short_basis"])
        past, short = short[:, :1], short[:, first - before :]
        descriptors = _short_descriptors(short, floor, c)
        long = power_spectrum(_frames(blocks, first, last, c["gauss"]), LONG_FFT, c["long_basis"])
        energy = 2 * long.sum(2, keepdim=True) - long[..., :1] - long[..., -1:]  # Parseval
        loud = energy > SILENCE_RMS**2 * LONG * LONG_FFT
        every = [descriptors[..., :6], _flux(short, past), descriptors[..., 6:], _pitch_candidates(long, c), loud]
        short, long = _others(short), _others(long)
        correlation = long @ c["periods"]
        correlation = correlation[..., 1:] / (correlation[..., :1] + LONG * nothing)
        harmonics = torch.maximum(torch.maximum(long[..., :-2], long[..., 1:-1]), long[..., 2:])
        formants = _formants((short[..., : len(c["lpc_cosine"])] + floor) @ c["lpc_cosine"], c)
        fine = blocks.unflatten(2, (HOP // FINE, FINE)).square().sum(3)
        fine = _others(torch.cat([fine[:, first + i : last + i] for i in range(LONG // HOP)], dim=2))
        return torch.cat(every, dim=2), torch.cat([formants, correlation, harmonics[..., :HARMONIC_BINS], fine], dim=2)

    def _voice_quality(self, parts, f0, voiced, power) -> torch.Tensor:
        """Compute the voice quality (B, n / 2, V) of every other frame, 0 where it is unvoiced."""
        jitter, f0, voiced = (_others(x[..., None]) for x in (_jitter(f0, voiced), f0, voiced))
        period = SAMPLING_RATE / (SEMITONE_BASE * torch.exp2(f0 / 12))
        sizes = [3 * len(FORMANTS), PERIOD_MAX - PERIOD_MIN + 1, HARMONIC_BINS, LONG // FINE]
        formants, correlation, harmonics, fine = parts.split(sizes, dim=2)
        lags = period.round().long() - PERIOD_MIN + torch.arange(-2, 3, device=f0.device)
        periodic = correlation.gather(2, lags.clamp(0, sizes[1] - 1)).amax(2, keepdim=True).clamp(1e-5, 1 - 1e-5)
        hnr = 10 * torch.log10(periodic / (1 - periodic))
        bins = LONG_FFT / period * period.new_tensor([1.0, 2.0]) - 1
        first, second = _decibel(_between(harmonics, bins)).split(1, dim=2)
        frequency, bandwidth, level = formants.split(len(FORMANTS), dim=2)
        amplitude = level - first
        shimmer = _shimmer(fine, period[..., 0], RELATIVE_FLOOR * power + SAMPLE_FLOOR)
        resonances = torch.stack([frequency, bandwidth, amplitude], dim=3).flatten(2)
        quality = torch.cat([jitter, shimmer, hnr, first - second, -amplitude[..., 2:], resonances], dim=2)
        return torch.where(voiced, quality, 0.0)

    def _functionals(self, spectral, raw, f0, quality, mask, voiced, power) -> torch.Tensor:
        """Compute the functionals (B, F) in the order of FUNCTIONAL_NAMES."""
        unvoiced = mask & ~voiced
        column = {name: i for i, name in enumerate(_SHORT_NAMES)}
        loudness = spectral[..., 0]
        seconds = mask.sum(1, keepdim=True) * (HOP / SAMPLING_RATE)
        first = column["spectral_flux"]
        overall = _mean_std(spectral[..., first:], mask)
        in_voiced = _mean_std(_smooth(raw[..., column["alpha_ratio"] :], voiced), voiced)
        quality = _mean_std(quality, _others(voiced[..., None])[..., 0])
        in_unvoiced = _mean_std(_smooth(raw[..., column["alpha_ratio"] : first + 1], unvoiced), unvoiced)[0]
        voiced_runs, unvoiced_runs = _run_statistics(voiced, mask), _run_statistics(unvoiced, mask)
        cepstrum = spectral[..., -N_MFCC:]
        changes = _mean_std(
            F.pad(cepstrum[:, 1:] - cepstrum[:, :-1], (0, 0, 1, 0)), voiced & F.pad(mask[:, :-1], (1, 0))
        )[1]
        return torch.cat(
            [
                _contour_statistics(f0, voiced, _changes(f0, voiced, OCTAVE_ERROR)),
                _contour_statistics(loudness, mask, _changes(loudness, mask)),
                *overall,
                torch.cat([quality[0], in_voiced[0], quality[1], in_voiced[1]], dim=1),
                in_unvoiced,
                _peaks_per_second(loudness, mask),
                voiced_runs[:, :1] / seconds,
                voiced_runs[:, 1:],
                unvoiced_runs[:, 1:],
                _decibel(power),
                changes,
                _mean_std(_delta(loudness, mask)[..., None], mask)[1],
                _mean_std(_delta(f0, voiced)[..., None], voiced)[1],
            ],
            dim=1,
        )

"""The dynamics stream: pitch, loudness and timbre of a batch of clips, in torch, without parameters.

Descriptors and functionals follow the extended Geneva minimalistic acoustic parameter set (eGeMAPSv02; Eyben et al.,
"The Geneva Minimalistic Acoustic Parameter Set for voice research and affective computing", IEEE Trans. Affective
Computing 2016); changes of cepstrum, loudness and pitch are added. Pitch is subharmonic summation (Hermes, JASA
1988) with a Viterbi path through its candidates.

Analysis runs on a grid of 100 frames a second (hop 160 samples, frame u centred on sample 160 u + 160); every other
frame of it is a frame of the model's 50 Hz grid.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# Raised by whoever moves the raw features of a clip, here or in any other file: it is in the key of every cache of
# them, and tests/test_feature_version.py fails when they move without it.
FEATURE_VERSION = 1

SAMPLING_RATE = 16000
HOP = 160
SHORT, SHORT_FFT = 320, 512  # 20 ms frames: loudness and spectrum
LONG, LONG_FFT = 960, 1024  # 60 ms frames: pitch, harmonics, period marks
LEAD = (LONG - SHORT) // 2  # both frames share their centre, so long ones start this many samples before the clip
CHUNK = 512  # frames analysed at a time: bounds the memory and keeps the work in cache

PITCH_MIN, PITCH_MAX = 55.0, 1000.0
N_CANDIDATES = 6
N_HARMONICS, HARMONIC_DECAY = 15, 0.85
VOICING_THRESHOLD = 0.7
SILENCE_RMS = 1e-3
SEMITONE_BASE = 27.5
LPC_RATE, LPC_ORDER, LPC_GRID = 11000, 11, 128
PRE_EMPHASIS = 0.97
N_MEL, N_MFCC, N_LOG_MEL = 26, 12, 80
FLOOR = 1e-10

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


# ------------------------------------------------------------------------------------------------ constants


def _mel(hertz):
    return 1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0)


def _mel_filters(n_bands: int, low: float, high: float) -> np.ndarray:
    """Triangular filters on the mel scale over the bins of the short spectrum: (bins, bands)."""
    edges = np.linspace(_mel(low), _mel(high), n_bands + 2)
    bins = _mel(np.arange(SHORT_FFT // 2 + 1) * SAMPLING_RATE / SHORT_FFT)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rise, fall))


def _equal_loudness(n_bands: int, low: float, high: float) -> np.ndarray:
    """Hermansky's equal-loudness weights (JASA 1990, with the term above 5 kHz) at the centres of the mel bands."""
    centres = 700.0 * np.expm1(np.linspace(_mel(low), _mel(high), n_bands + 2)[1:-1] / 1127.0)
    w = (2 * np.pi * centres) ** 2
    return (w + 56.8e6) * w**2 / ((w + 6.3e6) ** 2 * (w + 0.38e9)) / (1 + w**3 / 9.58e26)


def _spline_operator(knots: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The matrix (points, knots) that evaluates the natural cubic spline through values at the knots."""
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
    """The operator (bins, P + 1) from a long magnitude spectrum to its subharmonic sum at P pitches, and its mean.

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


def _slope_operator(low: float, high: float) -> np.ndarray:
    """Weights (bins,) of the regression slope of a log spectrum over the bins from low to high Hz."""
    frequency = np.arange(SHORT_FFT // 2 + 1) * SAMPLING_RATE / SHORT_FFT
    inside = (frequency >= low) & (frequency <= high)
    centred = np.where(inside, frequency - frequency[inside].mean(), 0.0)
    return centred / (centred**2).sum()


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> dict[str, torch.Tensor]:
    """All windows and filters. Not buffers: models are built on the meta device, where those would be lost."""
    frequency = np.arange(SHORT_FFT // 2 + 1) * SAMPLING_RATE / SHORT_FFT
    centre = (LONG - 1) / 2
    order = np.arange(1, N_MFCC + 1)
    cosine = np.cos(np.pi * order * (np.arange(N_MEL)[:, None] + 0.5) / N_MEL) * math.sqrt(2 / N_MEL)
    lifter = 1 + 11 * np.sin(np.pi * order / 22)
    mel = _mel_filters(N_MEL, 20, 8000)
    below = frequency[frequency <= LPC_RATE / 2]
    emphasis = 1 + PRE_EMPHASIS**2 - 2 * PRE_EMPHASIS * np.cos(2 * np.pi * below / LPC_RATE)
    lags = np.arange(LPC_ORDER + 1)
    grid = np.pi * lags[:, None] * np.arange(LPC_GRID + 1) / LPC_GRID
    arrays = {
        "hamming": np.hamming(SHORT),
        "gauss": np.exp(-0.5 * ((np.arange(LONG) - centre) / (0.4 * centre)) ** 2),
        "bands": np.concatenate(
            [
                mel,
                _mel_filters(N_LOG_MEL, 0, 8000),
                ((frequency >= 50) & (frequency <= 1000))[:, None],
                ((frequency > 1000) & (frequency <= 5000))[:, None],
            ],
            axis=1,
        ),
        "equal_loudness": np.log(_equal_loudness(N_MEL, 20, 8000)),
        "cosine": cosine * lifter,
        "slopes": np.stack([_slope_operator(0, 500), _slope_operator(500, 1500)], axis=1),
        "subharmonic_summation": _subharmonic_summation(),
        "lpc_cosine": 2 * np.cos(2 * np.pi * below[:, None] * lags / LPC_RATE) * emphasis[:, None],
        "lpc_response": np.concatenate([np.cos(grid), np.sin(grid)], axis=1),
    }
    with torch.inference_mode(False):  # inference tensors could not be used in a later training step
        return {k: torch.tensor(np.asarray(v, dtype=np.float32), device=device) for k, v in arrays.items()}


# ------------------------------------------------------------------------------------------------ frames


def _decibel(power: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(power.clamp_min(FLOOR))


def _frames(waveform: torch.Tensor, clip: torch.Tensor, start: torch.Tensor, length: int) -> torch.Tensor:
    """Frames (n, length) of waveform (B, N) that begin at `start` (n,) of row `clip` (n,)."""
    view = waveform.unfold(1, length, HOP)
    return view[clip, start]


def _power_spectrum(frames: torch.Tensor, n: int) -> torch.Tensor:
    spectrum = torch.fft.rfft(frames, n=n)
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)


def _short_descriptors(frames: torch.Tensor, c: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectral descriptors (n, S) of 20 ms frames (n, SHORT), all but the flux, and their power spectrum."""
    power = _power_spectrum(frames * c["hamming"], SHORT_FFT)
    bands = power @ c["bands"]
    mel, log_mel, low, high = bands.split([N_MEL, N_LOG_MEL, 1, 1], dim=1)
    mel = mel.clamp_min(FLOOR).log()
    loudness = (0.33 * (mel + c["equal_loudness"])).exp().mean(1, keepdim=True)  # cube root of what the ear gets
    mfcc = mel @ c["cosine"]
    level = _decibel(power)
    slopes = level @ c["slopes"]
    two, five = 2000 * SHORT_FFT // SAMPLING_RATE, 5000 * SHORT_FFT // SAMPLING_RATE
    hammarberg = level[:, : two + 1].amax(1, keepdim=True) - level[:, two + 1 : five + 1].amax(1, keepdim=True)
    alpha = _decibel(high) - _decibel(low)
    energy = log_mel.clamp_min(FLOOR).log10().mean(1, keepdim=True)
    return torch.cat([loudness, energy, alpha, hammarberg, slopes, mfcc], dim=1), power


def _pitch_candidates(frames: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log2 frequency (K) and voicing (K) of the best peaks of the subharmonic sum, 1 unless silent: (n, 2 K + 1).

    A missing candidate has voicing 0.
    """
    windowed = frames * c["gauss"]
    power = _power_spectrum(windowed, LONG_FFT)
    magnitude = (power + 1e-20).sqrt()  # the square root has no finite slope at 0
    peak = torch.empty_like(magnitude)
    rising = magnitude[:, 1:] > magnitude[:, :-1]
    peak[:, 0], peak[:, -1] = ~rising[:, 0], rising[:, -1]
    peak[:, 1:-1] = rising[:, :-1] > rising[:, 1:]
    near_peak = F.max_pool1d(peak[:, None], 5, 1, 2)[:, 0]
    summed = F.relu((magnitude * near_peak) @ c["subharmonic_summation"])
    summed, mean = summed[:, :-1], summed[:, -1:]
    inner = summed[:, 1:-1]
    is_peak = (inner > summed[:, :-2]) & (inner > summed[:, 2:])
    score, index = torch.where(is_peak, inner, 0.0).topk(N_CANDIDATES, dim=1)
    before, after = summed.gather(1, index), summed.gather(1, index + 2)
    bend = (before - 2 * score + after).clamp_max(-1e-12)
    offset = (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    height = score - 0.25 * (before - after) * offset
    frequency = _PITCH_LOWEST + _PITCH_STEP * (_PITCH_FIRST + index + offset)
    voicing = torch.where(score > 0, 1 - mean / height.clamp_min(FLOOR), 0.0).clamp(0, 1)
    energy = 2 * power.sum(1, keepdim=True) - power[:, :1] - power[:, -1:]  # Parseval: DC and Nyquist have no twin
    loud = energy > SILENCE_RMS**2 * LONG * LONG_FFT
    return torch.cat([frequency, voicing, loud], dim=1)


# ------------------------------------------------------------------------------------------------ pitch path


def _min_plus(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Product of cost matrices (S, S, ...): the cheapest way through b, then a."""
    product = (a[:, :, None] + b[None]).amin(1)
    return product - product.amin((0, 1))  # only differences matter: stays small on long audio


def _best_path(steps: torch.Tensor) -> torch.Tensor:
    """States (B, U) of the cheapest path; steps[i, j, b, u] is the cost of being in i at u coming from j.

    A tree over time instead of a loop: products of neighbouring cost matrices on the way up, the cheapest way to reach
    and to leave each node on the way down. Time is the last axis because only long inner loops are fast.
    """
    states, _, batch, n = steps.shape
    size = 1 << max(0, (n - 1).bit_length())
    identity = torch.full((states, states), 1e9, device=steps.device).fill_diagonal_(0.0)[..., None, None]
    tree = [torch.cat([steps, identity.expand(-1, -1, batch, size - n)], dim=3)]
    while tree[-1].shape[3] > 1:
        tree.append(_min_plus(tree[-1][..., 1::2], tree[-1][..., ::2]))
    reach = leave = torch.zeros_like(tree[-1][0])  # (S, B, nodes)
    for level in reversed(tree[:-1]):
        reach_right = (level[..., ::2] + reach).amin(1)
        leave_left = (level[..., 1::2] + leave[:, None]).amin(0)
        reach = torch.stack([reach, reach_right], dim=3).flatten(2)
        leave = torch.stack([leave_left, leave], dim=3).flatten(2)
        reach, leave = reach - reach.amin(0), leave - leave.amin(0)
    here = (tree[0] + reach).amin(1)
    return (here + leave).argmin(0)[:, :n]


@torch.no_grad()
def _choose_pitch(frequency: torch.Tensor, voicing: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Index (B, U) of the candidate on the best path, N_CANDIDATES where unvoiced; inputs (B, U, K), mask (B, U).

    Costs as in eGeMAPS (after Luengo et al., ICASSP 2007): for a weak or unusual candidate, for changing between voiced
    and unvoiced, for the size of a jump in pitch, and for leaving a candidate that the next better one was far from.
    """
    frequency, voicing = frequency.permute(2, 0, 1).contiguous(), voicing.permute(2, 0, 1).contiguous()  # (K, B, U)
    hertz = 2**frequency
    out_of_range = (1 - hertz / 100).clamp_min(0) + ((hertz - 350) / 250).clamp(0, 1.2)
    local = 2 * (-voicing.clamp_min(0.01).log() + 4.0 * (voicing < VOICING_THRESHOLD)) + out_of_range
    local = torch.where(voicing > 0, local, 1e3)
    unvoiced = 8.0 * (voicing >= VOICING_THRESHOLD).any(0, keepdim=True)
    past = torch.cat([frequency[..., :1], frequency[..., :-1]], dim=2)
    jump = math.log(2) * (frequency[:, None] - past[None]).abs()  # (to, from, B, U)
    apart = math.log(2) * past.diff(dim=0).abs()
    apart = torch.cat([jump[:, :1], apart[None].expand(N_CANDIDATES, -1, -1, -1)], dim=1)
    cost = F.pad(10 * (jump + apart), (0, 0, 0, 0, 0, 1, 0, 1), value=10.0)
    cost[-1, -1] = 1.0
    cost[..., 0] = 0.0
    steps = cost + torch.cat([local, unvoiced])[:, None]
    identity = torch.full(steps.shape[:2], 1e9, device=steps.device).fill_diagonal_(0.0)[..., None, None]
    return _best_path(torch.where(mask, steps, identity))


# ------------------------------------------------------------------------------------------------ voice quality


def _take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return x.gather(1, index.clamp(0, x.shape[1] - 1))


def _nearest_extreme(
    frames: torch.Tensor, around: torch.Tensor, reach: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Position (to a fraction of a sample) and height, both (n,), of the highest sample of frames (n, L) `around`."""
    width = int(reach.max()) + 1
    offset = torch.arange(-width, width + 1, device=frames.device)
    index = (around.round().long()[:, None] + offset).clamp(1, frames.shape[1] - 2)
    values = torch.where(offset.abs() <= reach[:, None], frames.gather(1, index), -torch.inf)
    peak = index.gather(1, values.argmax(1, keepdim=True))
    before, top, after = frames.gather(1, peak - 1), frames.gather(1, peak), frames.gather(1, peak + 1)
    shift = (0.5 * (before - after) / (before - 2 * top + after).clamp_max(-1e-9)).clamp(-0.5, 0.5)
    return (peak + shift)[:, 0], top[:, 0]


def _jitter_shimmer(frames: torch.Tensor, period: torch.Tensor) -> torch.Tensor:
    """Relative change of period and change of level in dB between neighbouring periods of frames (n, LONG): (n, 2)."""
    centre = torch.full_like(period, LONG / 2)
    mark, height = _nearest_extreme(frames, centre, period / 2)
    marks, heights = [mark], [height]
    for direction in (-1, 1):
        position = mark
        position, height = _nearest_extreme(frames, position + direction * period, 0.1 * period)
        marks.insert(0 if direction < 0 else 2, position)
        heights.insert(0 if direction < 0 else 2, height)
    first, second = marks[1] - marks[0], marks[2] - marks[1]
    jitter = 2 * (second - first).abs() / (second + first)
    level = 20 * torch.log10(torch.stack(heights, dim=1).clamp_min(1e-5))
    shimmer = level.diff(dim=1).abs().mean(1)
    return torch.stack([jitter, shimmer], dim=1)


def _formants(autocorrelation: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """Frequency and bandwidth in Hz of the three lowest peaks of the all-pole envelope: (n, 3, 2), 0 if missing."""
    r = autocorrelation / autocorrelation[:, :1].clamp_min(FLOOR)
    predictor, error = r.new_zeros(len(r), 0), r[:, 0] + 1e-6
    for order in range(1, LPC_ORDER + 1):  # Levinson-Durbin
        reflection = (r[:, order] - (predictor * r[:, 1:order].flip(1)).sum(1)) / error
        predictor = torch.cat([predictor - reflection[:, None] * predictor.flip(1), reflection[:, None]], dim=1)
        error = error * (1 - reflection.square()).clamp_min(1e-6)
    response = torch.cat([torch.ones_like(predictor[:, :1]), -predictor], dim=1) @ c["lpc_response"]
    envelope = -response.unflatten(1, (2, -1)).square().sum(1).clamp_min(FLOOR).log()  # ln |H|^2 on a linear grid
    middle = envelope[:, 1:-1]
    passed = ((middle > envelope[:, :-2]) & (middle >= envelope[:, 2:])).cumsum(1)
    index = (passed[:, None] < torch.arange(1, 4, device=r.device)[:, None]).sum(2)  # (n, 3): the k-th peak
    found = index < middle.shape[1]
    index = index.clamp_max(middle.shape[1] - 1)
    before, top, after = (envelope.gather(1, index + d) for d in (0, 1, 2))
    bend = (before - 2 * top + after).clamp_max(-1e-6)
    frequency = (index + 1 + 0.5 * (before - after) / bend) * LPC_RATE / 2 / LPC_GRID
    bandwidth = (8 / -bend).sqrt() * LPC_RATE / 2 / LPC_GRID  # ln |H|^2 = top - (2 (f - f0) / bandwidth)^2 nearby
    return torch.where(found[..., None], torch.stack([frequency, bandwidth.clamp_max(2000)], dim=2), 0.0)


def _voice_quality(frames: torch.Tensor, hertz: torch.Tensor, autocorrelation: torch.Tensor, c: dict) -> torch.Tensor:
    """Descriptors (n, len(_VOICE_NAMES)) of voiced 60 ms frames (n, LONG) with pitch `hertz` (n,)."""
    period = SAMPLING_RATE / hertz
    power = _power_spectrum(frames * c["gauss"], LONG_FFT)
    correlation = torch.fft.irfft(power, n=LONG_FFT)
    lag = period.round().long()[:, None] + torch.arange(-2, 3, device=frames.device)
    periodic = (_take(correlation, lag).amax(1) / correlation[:, 0].clamp_min(FLOOR)).clamp(1e-5, 1 - 1e-5)
    hnr = 10 * torch.log10(periodic / (1 - periodic))

    nearby = F.max_pool1d(power[:, None], 3, 1, 1)[:, 0]
    formants = _formants(autocorrelation, c)
    per_bin = LONG_FFT / SAMPLING_RATE

    def harmonics(k: torch.Tensor) -> torch.Tensor:
        return _decibel(_take(nearby, (k.clamp_min(1) * hertz[:, None] * per_bin).round().long()))

    first_two = harmonics(hertz.new_tensor([[1.0, 2.0]]))
    nearest = (formants[..., 0] / hertz[:, None]).round()
    amplitude = torch.stack([harmonics(nearest + d) for d in (-1, 0, 1)]).amax(0) - first_two[:, :1]
    shape = torch.stack([hnr, first_two[:, 0] - first_two[:, 1], -amplitude[:, 2]], dim=1)
    resonances = torch.cat([formants, amplitude[..., None]], dim=2).flatten(1)
    return torch.cat([_jitter_shimmer(frames, period), shape, resonances], dim=1)


# ------------------------------------------------------------------------------------------------ contours


def _smooth(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over each frame and its neighbours that lie in the mask; x (B, U, K), mask (B, U); 0 outside the mask."""
    weight = mask[..., None].to(x.dtype)
    padded, weights = F.pad(x * weight, (0, 0, 1, 1)), F.pad(weight, (0, 0, 1, 1))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    count = weights[:, :-2] + weights[:, 1:-1] + weights[:, 2:]
    return weight * total / count.clamp_min(1)


def _delta(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Half the difference of the two neighbours of each frame of x (B, U), itself in place of one outside the mask."""
    after = torch.where(F.pad(mask[:, 1:], (0, 1)), F.pad(x[:, 1:], (0, 1)), x)
    before = torch.where(F.pad(mask[:, :-1], (1, 0)), F.pad(x[:, :-1], (1, 0)), x)
    return torch.where(mask, (after - before) / 2, 0.0)


def _mean_std(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (B, K) over the frames of x (B, U, K) in mask (B, U); 0 where there are none."""
    weight = mask[..., None].to(x.dtype)
    count = weight.sum(1).clamp_min(1)
    mean = (x * weight).sum(1) / count
    variance = ((x - mean[:, None]) * weight).square().sum(1) / count
    return mean, (variance + 1e-12).sqrt()


def _percentiles(x: torch.Tensor, mask: torch.Tensor, points: tuple[float, ...]) -> torch.Tensor:
    """Interpolated percentiles (B, P) of x (B, U) over the mask."""
    ordered = torch.where(mask, x, torch.inf).sort(dim=1).values
    last = (mask.sum(1, keepdim=True) - 1).clamp_min(0)
    position = last * x.new_tensor(points)
    low = position.floor()
    left, right = ordered.gather(1, low.long()), ordered.gather(1, torch.minimum(low.long() + 1, last))
    value = left + (position - low) * (right - left)
    return torch.where(mask.any(1, keepdim=True), value, 0.0)


def _pack(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames of x (B, U) in the mask moved to the front, and their mask."""
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    return x.gather(1, order), mask.gather(1, order)


def _previous(value: torch.Tensor, event: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """The value (B, U) at the last event before each frame, 0 if there was none."""
    latest = torch.cummax(torch.where(event, time, -1), dim=1).values
    latest = F.pad(latest[:, :-1], (1, 0), value=-1)
    return torch.where(latest >= 0, value.gather(1, latest.clamp_min(0)), 0)


def _turning_points(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Swings of more than a tenth of the range of x (B, U); mask (B, U) is true at the front.

    Returns (rising, falling, slope), all (B, U + 1): at the frame where a swing is known to have ended, whether it rose
    or fell, and its slope per second, positive either way. The swing under way at the end counts at the last frame. The
    entry after it is the way from the last turning point to the last frame; as in eGeMAPS that keeps its sign.
    """
    n = x.shape[1]
    with torch.no_grad():
        inside = torch.where(mask, x, x[:, :1])
        width = 0.1 * (inside.amax(1, keepdim=True) - inside.amin(1, keepdim=True))
        # Backlash y_t = clamp(y_{t-1}, x_t - width, x_t): it turns when x has turned by more than the width. Clamps
        # compose to clamps, so all prefixes come from log2(U) rounds of doubling.
        direction = torch.sign(x.diff(dim=1))
        extreme = F.pad(direction[:, :-1] * direction[:, 1:] < 0, (1, 1)) & F.pad(mask[:, 1:], (0, 1))
        low, high = torch.where(extreme, x - width, -torch.inf), torch.where(extreme, x, torch.inf)
        step = 1
        while step < n:
            new_low = low[:, :-step].clamp(low[:, step:], high[:, step:])
            new_high = high[:, :-step].clamp(low[:, step:], high[:, step:])
            low, high = torch.cat([low[:, :step], new_low], dim=1), torch.cat([high[:, :step], new_high], dim=1)
            step *= 2
        follow = x[:, :1].clamp(low, high)
        direction = torch.sign(F.pad(follow.diff(dim=1), (1, 0)))
        last = (mask.sum(1, keepdim=True) - 1).clamp_min(0)
        time = torch.arange(n, device=x.device).expand_as(x)
        moved = torch.cummax(torch.where(direction != 0, time, 0), dim=1).values
        before = F.pad(moved[:, :-1], (1, 0))  # the last frame before this one that moved, 0 if none
        turned = (before > 0) & (direction == -direction.gather(1, before)) & (direction != 0)
        # a swing ends where it turns, or at the last frame; the one from the first frame can be too small to count
        final = time == last
        heading = direction.gather(1, torch.where(turned, before, moved))
        end = torch.where(turned, before, moved)
        ended = turned | final
        start = _previous(before, turned, time)
        ended = ended & ((x.gather(1, end) - x.gather(1, start)).abs() >= width) & (end > start)
        start = _previous(before, turned & ended, time)
        finished = torch.where(final & ended, end, 0).amax(1, keepdim=True)
        tail_falls = (final & ended & (heading > 0)).any(1, keepdim=True)
        tail = (final & ended).any(1, keepdim=True) & (last > finished)
        rising, falling = ended & (heading > 0), ended & (heading < 0)
        rising, falling = torch.cat([rising, tail & ~tail_falls], dim=1), torch.cat([falling, tail & tail_falls], dim=1)
        start, end = torch.cat([start, finished], dim=1), torch.cat([end, last], dim=1)
    rise = x.gather(1, end) - x.gather(1, start)
    slope = rise / ((end - start).clamp_min(1) * (HOP / SAMPLING_RATE))
    return rising, falling, torch.cat([slope[:, :-1].abs(), slope[:, -1:]], dim=1)


def _slope_statistics(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of rising and of falling slopes (B, 4) of x (B, U) per second; the number of peaks (B,)."""
    rising, falling, slope = _turning_points(x, mask)
    statistics = []
    for chosen in (rising, falling):
        mean, std = _mean_std(slope[..., None], chosen)
        statistics += [mean, torch.where(chosen.sum(1, keepdim=True) > 1, std, 0.0)]
    return torch.cat(statistics, dim=1), rising[:, :-1].sum(1).to(x.dtype)


@torch.no_grad()
def _run_statistics(on: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Number, mean length and deviation of length in seconds (B, 3) of the runs of `on` (B, U).

    As in eGeMAPS a gap of one frame does not end a run and a run has at least three frames.
    """
    on = on & mask
    bridged = on | (F.pad(on[:, :-1], (1, 0)) & F.pad(on[:, 1:], (0, 1)) & mask)
    start = bridged & ~F.pad(bridged[:, :-1], (1, 0))
    run = start.long().cumsum(1) * bridged  # 0 outside runs
    frames = torch.zeros(on.shape[0], on.shape[1] + 1, device=on.device)
    solid = frames.scatter_add(1, run, on.float())[:, 1:]
    length = frames.scatter_add(1, run, bridged.float())[:, 1:]
    kept = solid >= 3
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
    "f0_variability": {"f0.range": 1, "f0.rising_mean": 1, "f0.falling_mean": 1},
    "loudness": {"loudness.mean": 1, "loudness.p50": 1, "loudness.p80": 1, "sound_level": 1},
    "high_frequency_energy": {
        "voiced.alpha_ratio.mean": 1,
        "voiced.hammarberg.mean": -1,
        "voiced.slope_500_1500.mean": 1,
        "mfcc_1.mean": -1,
    },
    "tempo": {"voiced.segments_per_second": 1, "voiced.segment_mean": -1, "loudness.peaks_per_second": 1},
}


def _contour_statistics(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The ten statistics of `_contour_names` (B, 10) of x (B, U) over a mask, and the number of peaks (B,)."""
    packed, front = _pack(x, mask)
    packed = torch.where(front, packed, 0.0)
    mean, std = _mean_std(packed[..., None], front)
    points = _percentiles(packed, front, (0.2, 0.5, 0.8))
    slopes, peaks = _slope_statistics(packed, front)
    spread = points[:, 2:] - points[:, :1]
    return torch.cat([mean, std / mean.abs().clamp_min(1e-3), points, spread, slopes], dim=1), peaks


class SereDynamics(nn.Module):
    """Pitch, loudness and timbre of clips; no parameters, no buffers, float32 whatever the autocast."""

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> DynamicsOutput:
        """Describe clips.

        Args:
            input_values: (B, N) waveforms in [-1, 1] at 16 kHz.
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
            return self._describe(input_values.float(), attention_mask)

    def _describe(self, waveform: torch.Tensor, attention_mask: torch.Tensor | None) -> DynamicsOutput:
        batch, samples = waveform.shape
        device = waveform.device
        c = _constants(device)
        if attention_mask is None:
            length = torch.full((batch,), samples, device=device)
        else:
            length = attention_mask.long().sum(1)
            waveform = torch.where(attention_mask.bool(), waveform, 0.0)
        n = max(1, samples // HOP - 1)
        mask = torch.arange(n, device=device) < (length // HOP - 1).clamp_min(1)[:, None]  # (B, n)
        padded = F.pad(waveform, (LEAD, max(0, HOP * (n - 1) + LONG - LEAD - samples)))

        spectral, frequency, voicing, loud, autocorrelation = self._analyse(padded, mask, c)
        choice = _choose_pitch(frequency, voicing, mask)
        voiced = (choice < N_CANDIDATES) & (loud[..., 0] > 0)
        chosen = choice.clamp_max(N_CANDIDATES - 1)[..., None]
        f0 = 12 * (frequency.gather(2, chosen)[..., 0] - math.log2(SEMITONE_BASE)) * voiced
        voicing = torch.where(voiced, voicing.gather(2, chosen)[..., 0], voicing.amax(2))
        even = (torch.arange(n, device=device) % 2 == 0) & voiced
        quality = self._voice_quality(padded, f0, even, autocorrelation, c)

        raw = spectral
        spectral = _smooth(spectral, mask)
        f0 = _smooth(f0[..., None], voiced)[..., 0]
        functionals = self._functionals(spectral, raw, f0, quality, mask, voiced, even, waveform, length)
        deltas = [_delta(spectral[..., 0], mask)[..., None], _delta(f0, voiced)[..., None]]
        frames = torch.cat([f0[..., None], voicing[..., None], spectral, quality, *deltas], dim=2)
        t = max(1, samples // (2 * HOP))
        frame_mask = torch.arange(t, device=device) < (length // (2 * HOP)).clamp_min(1)[:, None]
        return DynamicsOutput(frames[:, ::2][:, :t] * frame_mask[..., None], frame_mask, functionals)

    def _analyse(self, padded: torch.Tensor, mask: torch.Tensor, c: dict) -> tuple[torch.Tensor, ...]:
        """Of the real frames: spectral descriptors (B, n, S), frequency and voicing of the pitch candidates
        (B, n, K) each, loud or silent (B, n, 1) and autocorrelations (B, n, P + 1).
        """
        clip, frame = mask.nonzero(as_tuple=True)
        parts, previous = [], None
        for rows, times in zip(clip.split(CHUNK), frame.split(CHUNK), strict=True):
            descriptors, power = _short_descriptors(_frames(padded[:, LEAD:], rows, times, SHORT), c)
            magnitude = (power[:, : 5000 * SHORT_FFT // SAMPLING_RATE + 1] + 1e-20).sqrt()
            past = torch.cat([magnitude[:1] if previous is None else previous, magnitude[:-1]])
            previous = magnitude[-1:]
            flux = ((magnitude - past).square().mean(1, keepdim=True) + 1e-20).sqrt() * (times > 0)[:, None]
            pitch = _pitch_candidates(_frames(padded, rows, times, LONG), c)
            lags = power[:, : len(c["lpc_cosine"])] @ c["lpc_cosine"]
            parts.append(torch.cat([descriptors[:, :6], flux, descriptors[:, 6:], pitch, lags], dim=1))
        joined = torch.cat(parts)
        grid = joined.new_zeros(*mask.shape, joined.shape[1])
        grid[mask] = joined
        return grid.split([len(_SHORT_NAMES), N_CANDIDATES, N_CANDIDATES, 1, LPC_ORDER + 1], dim=2)

    def _voice_quality(self, padded, f0, chosen, autocorrelation, c) -> torch.Tensor:
        """Voice quality (B, n, V) of the frames in `chosen` (B, n), 0 elsewhere."""
        clip, frame = chosen.nonzero(as_tuple=True)
        hertz = SEMITONE_BASE * 2 ** (f0[chosen] / 12)
        grid = f0.new_zeros(*f0.shape, len(_VOICE_NAMES))
        if len(clip) == 0:
            return grid
        parts = zip(*(x.split(CHUNK) for x in (clip, frame, hertz, autocorrelation[chosen])), strict=True)
        grid[chosen] = torch.cat([_voice_quality(_frames(padded, i, t, LONG), h, r, c) for i, t, h, r in parts])
        return grid

    def _functionals(self, spectral, raw, f0, quality, mask, voiced, even, waveform, length) -> torch.Tensor:
        """Functionals (B, F) in the order of FUNCTIONAL_NAMES."""
        unvoiced = mask & ~voiced
        column = {name: i for i, name in enumerate(_SHORT_NAMES)}
        f0_statistics, _ = _contour_statistics(f0, voiced)
        loudness_statistics, peaks = _contour_statistics(spectral[..., 0], mask)
        seconds = mask.sum(1, keepdim=True) * (HOP / SAMPLING_RATE)
        overall = _mean_std(spectral[..., [column[k] for k in _OVERALL]], mask)
        selected = [column[k] for k in _VOICED_SPECTRAL]
        in_voiced = _mean_std(_smooth(raw[..., selected], voiced), voiced)
        quality = _mean_std(quality, even)
        in_unvoiced = _mean_std(_smooth(raw[..., [column[k] for k in _UNVOICED_SPECTRAL]], unvoiced), unvoiced)[0]
        voiced_runs, unvoiced_runs = _run_statistics(voiced, mask), _run_statistics(unvoiced, mask)
        cepstrum = spectral[..., -N_MFCC:]
        changes = _mean_std(
            F.pad(cepstrum[:, 1:] - cepstrum[:, :-1], (0, 0, 1, 0)), voiced & F.pad(mask[:, :-1], (1, 0))
        )[1]
        energy = waveform.square().sum(1, keepdim=True) / length.clamp_min(1)[:, None]
        return torch.cat(
            [
                f0_statistics,
                loudness_statistics,
                *overall,
                torch.cat([quality[0], in_voiced[0], quality[1], in_voiced[1]], dim=1),
                in_unvoiced,
                peaks[:, None] / seconds,
                voiced_runs[:, :1] / seconds,
                voiced_runs[:, 1:],
                unvoiced_runs[:, 1:],
                _decibel(energy),
                changes,
                _mean_std(_delta(spectral[..., 0], mask)[..., None], mask)[1],
                _mean_std(_delta(f0, voiced)[..., None], voiced)[1],
            ],
            dim=1,
        )

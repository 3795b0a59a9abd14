"""Changes of the audio that a listener hears little or nothing of: how many answers change, and what it costs.

    python -m benchmarks.robustness --corpora DIR DIR [DIR ...] --encoder DIR|id|none --draws 0-0 --clips 100

Every directed pair of corpora is a task. It is adapted once to the target as it is; the saved map then answers single
target clips as they are and changed: an offset, the other polarity, dither of 16 bits, silence put before the clip,
another gain, another sampling rate (8 kHz is a telephone's band), MP3, Vorbis, Opus, noise 10 dB below the speech, and
reverberation. "changed" is the share of answers that differ, "UAR" that of the changed clips, "lost" what it lost.
"""

import io
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tqdm.auto import tqdm

from benchmarks.command import CorpusParser, report
from benchmarks.experiment import chosen, encode, kept_rows
from modeling_sere.audio_sere import to_mono_16k
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.episodes import shared_labels
from modeling_sere.training.encoding.features import collate
from modeling_sere.training.encoding.pool import Pool
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.running.models import build_model

RATE = 16_000


def dithered(clip: np.ndarray) -> np.ndarray:
    """Add the triangular dither of 16 bits and round to them."""
    random = np.random.default_rng(0)
    noise = random.random(len(clip)) - random.random(len(clip))
    return (np.round(clip * 2**15 + noise) / 2**15).astype(np.float32)


def resampled(clip: np.ndarray, rate: int) -> np.ndarray:
    """Give a clip as a file of another rate is read."""
    import soxr

    return to_mono_16k(soxr.resample(clip, RATE, rate), rate)


def coded(clip: np.ndarray, form: str, subtype: str, rate: int = RATE) -> np.ndarray:
    """Give a clip as it comes back from a lossy file of libsndfile's."""
    import soundfile
    import soxr

    file = io.BytesIO()
    samples = np.clip(clip if rate == RATE else soxr.resample(clip, RATE, rate), -1, 1)
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    file.seek(0)
    return to_mono_16k(*soundfile.read(file, dtype="float32"))


def noisy(clip: np.ndarray, decibel: float = 10) -> np.ndarray:
    """Add white noise so many decibel below the clip."""
    noise = np.random.default_rng(0).standard_normal(len(clip))
    level = np.sqrt(np.square(clip).mean()) * 10 ** (-decibel / 20)
    return (clip + level * noise).astype(np.float32)


def reverberant(clip: np.ndarray, seconds: float = 0.5) -> np.ndarray:
    """Put a clip into a synthetic room: its sound, and noise that dies away by 60 dB in so many seconds after it."""
    time = np.arange(int(RATE * seconds)) / RATE
    room = np.random.default_rng(0).standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    room *= 0.5 / np.sqrt(np.square(room).sum())
    room[0] = 1.0
    size = 1 << (len(clip) + len(room) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(room, size), size)
    return wet[: len(clip)].astype(np.float32)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "offset 0.001": lambda clip: clip + np.float32(0.001),
    "offset 0.02": lambda clip: clip + np.float32(0.02),
    "offset 0.1": lambda clip: clip + np.float32(0.1),
    "polarity": np.negative,
    "dither": dithered,
    "1 ms of silence": lambda clip: np.pad(clip, (16, 16)),
    "5 ms of silence": lambda clip: np.pad(clip, (80, 80)),
    "gain +6 dB": lambda clip: 2 * clip,
    "gain -6 dB": lambda clip: clip / 2,
    "8 kHz": partial(resampled, rate=8_000),
    "44.1 kHz": partial(resampled, rate=44_100),
    "48 kHz": partial(resampled, rate=48_000),
    "MP3": partial(coded, form="MP3", subtype="MPEG_LAYER_III", rate=44_100),
    "Vorbis": partial(coded, form="OGG", subtype="VORBIS"),
    "Opus": partial(coded, form="OGG", subtype="OPUS", rate=48_000),
    "noise 10 dB": noisy,
    "reverberation": reverberant,
}


@torch.inference_mode()
def answers(model, waveforms: list[np.ndarray]) -> np.ndarray:
    """Classes (n,) of single clips by the statistics of the domain."""
    classes = []
    for start in range(0, len(waveforms), 16):
        values, mask = collate(waveforms[start : start + 16], "cpu")
        classes.append(model(values, mask, return_dict=True).logits.argmax(1))
    return torch.cat(classes).numpy()


def uar(predictions: np.ndarray, references: np.ndarray) -> float:
    """Mean recall over the classes of the references."""
    return float(np.mean([(predictions[references == k] == k).mean() for k in np.unique(references)]))


def measure(arguments) -> list[dict]:
    """One row per change, task and draw."""
    rows = []
    encoded = encode(arguments)
    for source, target in itertools.permutations(encoded, 2):
        labels = shared_labels(source.corpus.labels, target.corpus.labels)
        pools = [
            Pool(one.corpus, chosen(one.features, kept_rows(one, labels)), labels, False) for one in (source, target)
        ]
        for draw in arguments.draws:
            rows += task(arguments, labels, *pools, target.corpus, draw)
    return rows


def task(arguments, labels: list[str], source: Pool, target: Pool, corpus: Corpus, draw: int) -> list[dict]:
    """Adapt once, and answer for some clips of the target as they are and under each change."""
    model = build_model(SereArguments(encoder=arguments.encoder), labels, speaker_ids=False).eval()
    adaptation = Adaptation(model, source.domain, target.domain)
    adaptation.install(adaptation.organise(source.shots(arguments.shots, draw)))
    scored = np.random.default_rng(draw).permutation(len(target))[: arguments.clips]
    scored = scored[(target.references[scored] != UNLABELLED).numpy()]
    references = target.references[scored].numpy()
    indices = [target.clips[row].index for row in scored]
    waveforms = {clip.index: clip.waveform for clip in corpus.iter_audio(sorted(indices))}
    clips = [waveforms[index] for index in indices]
    plain = answers(model, clips)
    names = {"source": source.name, "target": target.name, "draw": draw, "clips": len(clips)}
    rows = []
    for name, change in tqdm(CHANGES.items(), desc=f"{source.name} to {target.name}", unit="change"):
        changed = answers(model, [change(clip) for clip in clips])
        rows.append(
            names
            | {"change": name, "changed": float((changed != plain).mean()), "uar": uar(changed, references)}
            | {"lost": uar(plain, references) - uar(changed, references)}
        )
    return rows


def summary(rows: list[dict]) -> str:
    """Mean over tasks and draws, in percent."""
    tasks = {(row["source"], row["target"], row["draw"]) for row in rows}
    count = sum(row["clips"] for row in rows) // len(CHANGES)
    lines = [f"{len(tasks)} tasks and draws, {count} clips, one by one", f"{'':<20}{'changed':>8}{'UAR':>8}{'lost':>8}"]
    for name in CHANGES:
        of_it = [row for row in rows if row["change"] == name]
        changed, score, lost = (100 * np.mean([row[key] for row in of_it]) for key in ("changed", "uar", "lost"))
        lines.append(f"{name:<20}{changed:>8.1f}{score:>8.1f}{lost:>8.1f}")
    return "\n".join(lines)


def main():
    """Run the command."""
    parser = CorpusParser(__doc__, draws="0-0")
    parser.add_argument("--clips", type=int, default=100, help="clips of each target")
    report(parser.parse_args(), measure, summary)


if __name__ == "__main__":
    main()

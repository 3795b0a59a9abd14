"""Damaged and odd recordings through the pipeline, through dataset loading and through a training run.

    python -m reliability.audio

Recordings of samples/ are written in every format, rate, width and number of channels, containers of phones, browsers
and video included, with every kind of sound that is no speech, and are then damaged; all of it follows from --seed.
Each file goes through the pipeline (by its path and as bytes, with a timeline) and through `Corpus.iter_audio` with the
features of a model, in a process of its own that has ten seconds of computing per file: it must give finite numbers, or
one error in one line that begins with the file's name. Then train_sere.py adapts to the folder: it must name and count
exactly the files that cannot be used, and finish.
"""

import argparse
import csv
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from tqdm.auto import tqdm

from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.audio_sere import AudioError
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding.features import collate
from reliability.outcomes import Outcomes
from testing.containers import CONTAINERS, container
from testing.runs import command

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 10.0  # of computing for one file in all
PATIENCE = 60.0  # seconds by the clock: others may share the machine
EMOTIONS = ("anger", "neutral", "sadness")  # that both corpora of samples/ have
RATES = (4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)
# extension -> format and widths; what can be written of them at a rate or with a number of channels is asked below
FORMATS = {
    "wav": ("WAV", ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "MS_ADPCM")),
    "flac": ("FLAC", ("PCM_S8", "PCM_16", "PCM_24")),
    "ogg": ("OGG", ("VORBIS", "OPUS")),
    "mp3": ("MP3", ("MPEG_LAYER_III",)),
    "aiff": ("AIFF", ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
}


# Sounds: (n,) float64 from a recording (n,)


def as_recorded(samples, random):
    return samples


def silence(samples, random):
    return np.zeros_like(samples)


def constant(samples, random):
    return np.full_like(samples, random.uniform(-1, 1))


def clipped(samples, random):
    return np.clip(samples * 10 ** random.uniform(1, 4), -1, 1)


def nothing(samples, random):
    return samples[:0]


def one_sample(samples, random):
    return samples[:1]


def barely_long_enough(samples, random):
    return samples[: random.integers(1_500, 1_700)]


def faint(samples, random):
    return samples * 10 ** random.uniform(-300, -3)


def not_a_number(samples, random):
    return _with(samples, random, np.nan)


def infinite(samples, random):
    return _with(samples, random, random.choice([np.inf, -np.inf]))


def enormous(samples, random):
    return samples * 10 ** random.uniform(1, 30)


def _with(samples, random, value):
    samples = samples.copy()
    samples[random.integers(len(samples), size=random.integers(1, 50))] = value
    return samples


SOUNDS = (
    as_recorded, silence, constant, clipped, nothing, one_sample, barely_long_enough, faint, not_a_number, infinite,
    enormous,
)  # fmt: skip
FLOAT_ONLY = (not_a_number, infinite, enormous)


# Damage: bytes of a file -> bytes, and an extension


def intact(data, extension, random):
    return data, extension


def bit_flips(data, extension, random):
    return _flipped(data, random, len(data)), extension


def header_bit_flips(data, extension, random):
    return _flipped(data, random, min(len(data), 96)), extension


def truncated(data, extension, random):
    return data[: int(len(data) * random.uniform(0, 1) ** 2)], extension


def wrong_header(data, extension, random):
    """Put the first bytes of another format in place of its own."""
    starts = (
        b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3\4\0\0", b"FORM\0\0\0\0AIFFCOMM", b"",
    )  # fmt: skip
    start = starts[random.integers(len(starts))]
    return start + data[random.integers(0, 64) :], extension


def wrong_field(data, extension, random):
    """Write another number into two or four bytes of the header: a rate, a width, a size."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place, size = random.integers(4, 64), int(random.choice([2, 4]))
        value = int(random.choice([0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1])) % 256**size
        changed[place : place + size] = value.to_bytes(size, str(random.choice(["little", "big"])))
    return bytes(changed), extension


def wrong_extension(data, extension, random):
    return data, random.choice([*FORMATS, "raw", "txt", "m4a", "sd2", "voc"])


def bytes_lost(data, extension, random):
    """Take a piece out, or put it there twice."""
    start, size = random.integers(len(data)), random.integers(1, 5_000)
    again = data[start : start + size] * int(random.choice([0, 2]))
    return data[:start] + again + data[start + size :], extension


def zeroed(data, extension, random):
    start, size = random.integers(len(data)), random.integers(1, 5_000)
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :], extension


def noise(data, extension, random):
    """Keep the first bytes, and put random ones after them."""
    kept = random.integers(0, 64)
    return data[:kept] + random.bytes(random.integers(0, 20_000)), extension


def empty_file(data, extension, random):
    return b"", extension


def _flipped(data, random, reach):
    changed = np.frombuffer(data, np.uint8).copy()
    places = random.integers(reach, size=int(2 ** random.uniform(0, 7)))
    changed[places] ^= (1 << random.integers(8, size=len(places))).astype(np.uint8)
    return changed.tobytes()


DAMAGES = (
    bit_flips, header_bit_flips, truncated, wrong_header, wrong_field, wrong_extension, bytes_lost, zeroed, noise,
    empty_file,
)  # fmt: skip


# Files


def recordings() -> list[tuple[np.ndarray, str]]:
    """Return short recordings (n,) at 16 kHz from samples/, with their emotion."""
    found = []
    for folder in (ROOT / "samples" / "english", ROOT / "samples" / "polish"):
        corpus = load_corpus(folder)
        chosen = [clip.index for clip in corpus.clips if clip.label in EMOTIONS][::5]
        found += [(clip.waveform, corpus.clips[clip.index].label) for clip in corpus.iter_audio(chosen)]
    return found


def encoded(samples: np.ndarray, random, needs_float: bool) -> tuple[bytes, str]:
    """Return a file in a random format, width, rate and number of channels, and its extension."""
    while True:
        extension = str(random.choice(["wav", "aiff"] if needs_float else [*FORMATS, *CONTAINERS]))
        if extension in CONTAINERS:
            if len(samples) < 1_600:  # less than one frame of a codec
                continue
            wave = soxr.resample(samples, 16_000, CONTAINERS[extension][2]).clip(-1, 1)
            return container(extension, np.tile(wave, (random.integers(1, 3), 1))), extension.split()[0]
        kind, widths = FORMATS[extension]
        width = random.choice(["FLOAT", "DOUBLE"] if needs_float else widths)
        rate, channels = int(random.choice(RATES)), int(random.integers(1, 9))
        wave = samples if rate == 16_000 else soxr.resample(samples, 16_000, rate)
        wave = np.outer(wave, random.uniform(0.3, 1, channels))
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, wave if needs_float else wave.clip(-1, 1), rate, str(width), format=kind)
        except soundfile.SoundFileError:  # not at this rate, or not with so many channels
            continue
        return buffer.getvalue(), extension


def mutation(index: int, seed: int, found: list[tuple[np.ndarray, str]]) -> tuple[str, str, bytes, str]:
    """Return what was done, the extension, the bytes and the emotion of file number `index`.

    Every other file is an odd sound, whole; the others are damaged. Both lists are gone through in turn.
    """
    random = np.random.default_rng([seed, index])
    samples, emotion = found[random.integers(len(found))]
    sound = SOUNDS[index // 2 % len(SOUNDS)] if index % 2 else as_recorded
    damage = intact if index % 2 else DAMAGES[index // 2 % len(DAMAGES)]
    data, extension = encoded(sound(samples.astype(np.float64), random), random, sound in FLOAT_ONLY)
    data, extension = damage(data, extension, random)
    name = (sound if index % 2 else damage).__name__
    return name, str(extension), data, emotion


def write_mutations(folder: Path, count: int, seed: int) -> list[str]:
    """Fill a folder with `count` files and their metadata.csv. Returns what was done to each."""
    found, done = recordings(), []
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "emotion"])
        for index in tqdm(range(count), desc="Writing", unit="file"):
            name, extension, data, emotion = mutation(index, seed, found)
            (folder / f"{index:05}.{extension}").write_bytes(data)
            table.writerow([f"{index:05}.{extension}", emotion])
            done.append(name)
    return done


# One file


def tiny_pipeline() -> SerePipeline:
    """Return the smallest model: the dynamics stream alone, with a classifier that tells clips apart."""
    torch.manual_seed(0)
    model = SereForAudioClassification(SereConfig(id2label=dict(enumerate(EMOTIONS)))).eval()
    torch.nn.init.normal_(model.classifier.weight, std=3.0)
    return SerePipeline(model=model, feature_extractor=feature_extractor(), task="audio-classification", device="cpu")


def through_pipeline(pipe: SerePipeline, source: Path | bytes, name: str) -> list[str]:
    """Return what is wrong with the outcome for a file, or for its bytes."""
    try:
        timeline = pipe(source, return_timestamps=True)
    except AudioError as error:
        return wrong_with(error, name)
    numbers = [entry["score"] for entry in timeline["scores"]] + timeline["highlights"]["weights"]
    numbers += [entry["score"] for chunk in timeline["chunks"] for entry in chunk["scores"]]
    failures = [] if np.isfinite(numbers).all() else ["the pipeline gave NaN"]
    if not abs(sum(entry["score"] for entry in timeline["scores"]) - 1) < 1e-4:
        failures.append("the scores do not sum to one")
    return failures


def through_corpus(pipe: SerePipeline, corpus: Corpus, index: int) -> list[str]:
    """Return what is wrong with the clip, and with the features that a run would cache."""
    (clip,) = corpus.iter_audio([index])
    if clip.error is not None:
        return wrong_with(clip.error, corpus.clips[index].name)
    model = pipe.model.sere
    with torch.inference_mode():
        _, features = model.pool(model.frames(*collate([clip.waveform], "cpu")))
    finite = np.isfinite(clip.waveform).all() and bool(features.isfinite().all())
    return [] if finite else ["dataset loading gave NaN"]


def wrong_with(error: AudioError, name: str) -> list[str]:
    text = str(error)
    return [] if text.startswith(f"{name} ") and "\n" not in text else [f"the error is no line about it: {text!r}"]


def work(folder: Path, asked: Connection):
    """Open the files in a process of its own: it answers each index with failures, and says first that it is ready."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # decoders in C comment on what they read
    pipe, corpus = tiny_pipeline(), load_corpus(folder)
    asked.send([])
    while (index := asked.recv()) is not None:
        path, start = folder / corpus.clips[index].name, time.process_time()
        try:
            answer = through_pipeline(pipe, path, str(path))
            answer += through_pipeline(pipe, path.read_bytes(), "<bytes>") + through_corpus(pipe, corpus, index)
        except Exception as error:  # noqa: BLE001 - whatever is raised here is what this script looks for
            answer = [f"{type(error).__name__}: {error}"]
        if (seconds := time.process_time() - start) > SECONDS:
            answer.append(f"took {seconds:.0f} s")
        asked.send(answer)


class Worker:
    """A process that is replaced when it dies or takes too long."""

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None

    def __call__(self, index: int) -> list[str]:
        """Return what is wrong with the outcome for one file."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.line, other = context.Pipe()
            self.process = context.Process(target=work, args=(self.folder, other), daemon=True)
            self.process.start()
            other.close()
            self.line.recv()
        self.line.send(index)
        if not self.line.poll(PATIENCE):
            self.end()
            return [f"gave no answer in {PATIENCE:g} s"]
        try:
            return self.line.recv()
        except EOFError:
            self.process.join()
            status = self.process.exitcode
            self.end()
            return [f"the process died with status {status}"]

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.line.close()
            self.process = None


def try_files(folder: Path, done: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield for each file what was done to it, and what is wrong with the outcome."""
    worker = Worker(folder)
    for index, name in enumerate(tqdm(done, desc="Trying", unit="file")):
        yield name, [f"file {index}: {failure}" for failure in worker(index)]
    worker.end()


# A run


def through_training(folder: Path, place: Path, **options) -> list[str]:
    """Return what is wrong with a run of train_sere.py that adapts to the folder, in a place for all that it writes."""
    corpus = load_corpus(folder)
    unusable = [corpus.clips[clip.index].name for clip in corpus.iter_audio() if clip.error is not None]
    flags = {
        "target": folder, "output_dir": place / "run", "cache_dir": place / "cache", "max_skipped": 1, "draws": 1,
        "report_to": "none", **options,
    }  # fmt: skip
    done = subprocess.run(command(**flags), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [f"the run ended with {done.stderr.strip().splitlines()[-1:]}"]
    results = json.loads((place / "run" / "results.json").read_text())
    named = [clip["name"] for clip in results["skipped_clips"]]
    failures = [] if named == unusable else [f"the run named {len(named)} files, not {len(unusable)}"]
    told = re.search(r"Left out as unusable: (\d+) clip", done.stdout)
    if (0 if told is None else int(told[1])) != len(unusable):
        failures.append(f"the run told of {told and told[1]} unusable clips, not of {len(unusable)}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000, help="number of files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "mutations"
        folder.mkdir()
        done = write_mutations(folder, arguments.count, arguments.seed)
        for what, failures in try_files(folder, done):
            outcomes.add(what, failures)
        outcomes.add("a training run", through_training(folder, Path(name)))
    outcomes.close()


if __name__ == "__main__":
    main()

"""Scale: what time and memory do when there is more of everything. Every figure is a ratio of two runs of this command.

    python -m benchmarks.scale --json scale.json

memory_long     peak memory of a process that takes one recording of an hour through the pipeline, and of one minute
field_growth    time to adapt to 100,000 unlabelled clips, and to 10,000: embedding, voice groups, field and nuisance
                rounds, and what of them stays in the model; 256 features, 30 labelled clips
field_memory    peak memory that the former adds to its process, beside one GiB
dataset_memory  peak memory of `train_sere.py` on 20 hours of clips, and on one; what the process has mapped from files
                is left out

All are measured in new processes, five times in turns; dataset_memory once, as a run takes minutes. The audio is the
sample's, repeated; in dataset_memory every copy is shifted, so that each counts as a recording of its own.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.command import report
from benchmarks.ratios import ROOT, Ratio, fresh_process, in_turns, table
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.loading import load_corpus

SAMPLE = ROOT / "samples" / "polish"
RATE = 16000

PEAK = """
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 2**10
"""

LONG = (
    PEAK
    + """
from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline
model = SereForAudioClassification(SereConfig()).eval()
SerePipeline(model=model, feature_extractor=feature_extractor(), device="cpu")(sys.argv[1], return_timestamps=True)
print(peak())
"""
)

FIELD = (
    PEAK
    + """
import json, time
from benchmarks.scale import adaptation_task
adapt = adaptation_task(int(sys.argv[1]))
before, start = peak(), time.perf_counter()
adapt()
print(json.dumps({"seconds": time.perf_counter() - start, "mebibytes": peak() - before}))
"""
)


def adaptation_task(count: int):
    """Return a function that adapts a model of 256 features to as many random clips of six emotions."""
    import torch
    from transformers import Wav2Vec2Config

    from modeling_sere import SereConfig, SereForAudioClassification
    from modeling_sere.training.encoding.domain import Domain
    from modeling_sere.training.organising.adaptation import Adaptation

    emotions = ["anger", "disgust", "fear", "happiness", "neutral", "sadness"]
    # 171 features of the dynamics, 85 of the encoder, which is never run
    encoder = Wav2Vec2Config(
        hidden_size=85, num_hidden_layers=1, num_attention_heads=5, num_conv_pos_embedding_groups=5, intermediate_size=8
    )
    config = SereConfig(encoder_config=encoder, encoder_layers=[1], id2label=dict(enumerate(emotions)), num_sources=30)
    model = SereForAudioClassification(config).eval()
    torch.manual_seed(0)
    means = torch.randn(len(emotions), 256)

    def domain(size: int) -> tuple[Domain, torch.Tensor]:
        labels = torch.arange(size) % len(emotions)
        return Domain(0.3 * means[labels] + torch.randn(size, 256)), labels

    (source, shots), (target, _) = domain(30), domain(count)

    def adapt():
        adaptation = Adaptation(model, source, target)
        adaptation.install(adaptation.organise(shots))

    return adapt


def sample() -> list[np.ndarray]:
    """Return waveforms of one language of the sample."""
    return [clip.waveform for clip in _corpus().iter_audio()]


def _corpus() -> Corpus:
    return load_corpus(SAMPLE)


def write_recording(path: Path, seconds: int):
    """Return one recording: the sample's clips one after the other, again and again."""
    once = np.concatenate(sample())
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        left = seconds * RATE
        while left > 0:
            file.write(once[:left])
            left -= len(once)


def write_clips(folder: Path, hours: float):
    """Return a corpus of that many hours."""
    folder.mkdir()
    corpus, waveforms = _corpus(), sample()
    left, number = hours * 3600 * RATE, 0
    with open(folder / "metadata.csv", "w", newline="") as metadata:
        writer = csv.writer(metadata)
        writer.writerow(["file_name", "emotion", "speaker"])
        while left > 0:
            index = number % len(waveforms)
            name, clip = f"{number}.wav", corpus.clips[index]
            soundfile.write(folder / name, np.roll(waveforms[index], 100 * (number // len(waveforms))), RATE)
            writer.writerow([name, clip.label, clip.speaker])
            left -= len(waveforms[index])
            number += 1


def anonymous_peak(command: list[str]) -> float:
    """Return highest memory, in MiB, of a process that was not mapped from a file.

    Raises:
        RuntimeError: the process fails.
    """
    highest = 0
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        while process.poll() is None:
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except FileNotFoundError:
                break
            highest = max([highest, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
            time.sleep(0.02)
        process.wait()
        log.seek(0)
        if process.returncode:
            raise RuntimeError(f"the measured process failed: {log.read()[-2000:]}")
    return highest / 2**10


def memory_long(folder: Path) -> Ratio:
    """Measure an hour beside a minute."""
    hour, minute = folder / "hour.flac", folder / "minute.flac"
    write_recording(hour, 3600)
    write_recording(minute, 60)
    calls = [lambda path=path: float(fresh_process(LONG, path)) for path in (hour, minute)]
    return Ratio("memory_long", "MiB", *in_turns("memory_long", *calls), most=1.2)


def field(count: int, few: int) -> list[Ratio]:
    """Measure field_growth and field_memory."""
    runs = {count: [], few: []}

    def run(size: int) -> float:
        runs[size].append(json.loads(fresh_process(FIELD, size)))
        return runs[size][-1]["seconds"]

    growth = Ratio("field_growth", "s", *in_turns("field", partial(run, count), partial(run, few)), most=15)
    added = [done["mebibytes"] / 2**10 for done in runs[count]]
    return [growth, Ratio("field_memory", "GiB", added, [1.0] * len(added), most=2)]


def dataset_memory(folder: Path, hours: float, few: float, encoder: str) -> Ratio:
    """Measure runs of `train_sere.py`."""
    peaks = []
    for size in (hours, few):
        corpus = folder / f"corpus{size}"
        write_clips(corpus, size)
        flags = "--encoder", encoder, "--target", corpus, "--cache_dir", folder / "cache", "--draws", "1"
        command = [sys.executable, ROOT / "train_sere.py", *flags, "--output_dir", folder / f"out{size}"]
        peaks.append(anonymous_peak(list(map(str, command))))
    return Ratio("dataset_memory", "MiB", [peaks[0]], [peaks[1]], most=1.3)


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Measure all rows."""
    with tempfile.TemporaryDirectory() as place:
        rows = [memory_long(Path(place)), *field(100_000, 10_000)]
        rows.append(dataset_memory(Path(place), 20, 1, arguments.encoder))
    return [row.row() for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="none", help="of dataset_memory: encoder folder, Hub id, or none")
    parser.add_argument("--json", help="write all rows to this file")
    parser.add_argument("--document", metavar="BLOCK", help="put command and table into this block of README.md here")
    report(parser.parse_args(), measure, table)


if __name__ == "__main__":
    main()

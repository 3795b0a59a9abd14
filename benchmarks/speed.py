"""Speed: every figure is a ratio of two things timed in turns in this run, on the same clips and cores.

    python -m benchmarks.speed --corpus DIR [DIR] --encoder DIR|id|none --json speed.json

adapt_cold, adapt_warm   whole `train_sere.py` runs in new processes, from the end of the imports to the saved model,
                         with an empty and a full cache; the reference is one pass of the bare encoder over the clips
                         that take part. With one corpus, it is source and target.
forward_whisper          `SereForAudioClassification` on a batch of waveforms; the reference is the bare encoder on the
                         batch's real frames, its input features made before. Only for a Whisper --encoder.
forward_wavlm, _wav2vec2 the same with random weights in the base architectures
..._same_depth           the same beside the bare encoder without the upper layers that SERE does not use
short_clips              our pipeline and the stock pipeline, with transformers' WhisperForAudioClassification on the
                         same weights, on 200 clips: each repeat has its share of them
batching                 both pipelines with batch_size=16 on clips of mixed length, wav2vec2-base architecture
dynamics                 the model without encoder and openSMILE's eGeMAPS functionals, both on one thread
realtime                 the model without encoder, seconds of audio per second
help                     CPU seconds of `train_sere.py --help` in a new process
live                     the model without encoder on a minute that is pushed to a stream in chunks of 0.1 s at 48 kHz;
                         the reference is the timeline of the whole minute, windows of 3 s every 1.5 s in both

The bare encoder has all its layers, gets batches of similar length in which no padding is masked, and neither decodes
nor makes input features in the measured time. Rows that need an --encoder are left out without one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    pipeline,
)
from transformers.utils import logging as transformers_logging

from benchmarks.baselines import egemaps_functionals
from benchmarks.command import report
from benchmarks.ratios import REPEATS, ROOT, Ratio, fresh_process, in_turns, seconds, table
from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.encoder_sere import whisper_features
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.episodes import shared_labels
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding.features import collate, length_batches
from modeling_sere.training.encoding.pool import kept_clips
from modeling_sere.training.errors import RunError
from modeling_sere.training.running.models import build_model

LABELS = ["anger", "happiness", "neutral", "sadness"]
BATCH = 16  # clips of the pipelines' batches
FORWARD_CLIPS = 8
SHORT_CLIPS = 200

ADAPT = """
import sys, time
import train_sere
start = time.perf_counter()
train_sere.main()
print(time.perf_counter() - start)
"""


class Clips:
    """The audio of a benchmark: `source` and `target` folders, and the waveforms of the clips that take part."""

    def __init__(self, folders: list[str]):
        if len(folders) > 2:
            raise RunError("--corpus takes one folder, or a source and a target.")
        self.folders = folders[0], folders[-1]
        corpora = [load_corpus(folder) for folder in dict.fromkeys(folders)]
        labels = shared_labels(corpora[0].labels, corpora[-1].labels)
        self.waveforms = [
            clip.waveform
            for corpus in corpora
            for clip in corpus.iter_audio(kept_clips(corpus, labels))
            if clip.error is None
        ]
        if len(self.waveforms) < BATCH:
            raise RunError(f"--corpus {folders[0]} has {len(self.waveforms)} usable clips: {BATCH} are needed.")

    def mixed(self, count: int) -> list[np.ndarray]:
        """Return some of the clips, the same in every run, in an order that has nothing to do with their length."""
        order = np.random.default_rng(0).permutation(len(self.waveforms))
        return [self.waveforms[i] for i in order[:count]]


def audio_seconds(waveforms: list[np.ndarray]) -> float:
    """Return the seconds of all together."""
    return sum(map(len, waveforms)) / 16000


class BareEncoder:
    """A transformers encoder alone, with no more done in `run` than its forward passes.

    Args:
        model: the encoder. depth: how many of its layers to keep, all by default.
    """

    def __init__(self, model: torch.nn.Module, depth: int | None = None):
        self.whisper = model.config.model_type == "whisper"
        self.model = model.encoder if self.whisper else model
        layers = self.model.layers if self.whisper else self.model.encoder.layers
        if depth is not None:
            del layers[depth:]
        self.model.eval()

    def inputs(self, waveforms: list[np.ndarray]) -> torch.Tensor:
        """Return what one batch of clips is fed as."""
        values, mask = collate(waveforms, "cpu")
        if not self.whisper:
            return values
        frames = mask.sum(1) // 320
        size = int(frames.max()) * 320
        values = F.pad(values, (0, max(0, size - values.shape[1])))[:, :size]
        return whisper_features(values, frames, self.model.config.num_mel_bins)

    @torch.inference_mode()
    def run(self, batches: list[torch.Tensor]):
        for batch in batches:
            self._whisper(batch) if self.whisper else self.model(batch)

    def _whisper(self, features):
        """Run the layers: the own forward pass refuses anything but 30 s."""
        model = self.model
        hidden = F.gelu(model.conv2(F.gelu(model.conv1(features)))).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        for layer in model.layers:
            hidden = layer(hidden, attention_mask=None)
        return model.layer_norm(hidden)


def adapt(clips: Clips, encoder: str) -> list[Ratio]:
    """Measure adapt_cold and adapt_warm."""
    bare = BareEncoder(AutoModel.from_pretrained(encoder, dtype=torch.float32))
    batches = [
        bare.inputs([clips.waveforms[i] for i in batch]) for batch in length_batches(list(map(len, clips.waveforms)))
    ]

    def run(cache: str) -> float:
        source, target = clips.folders
        with tempfile.TemporaryDirectory() as place:
            flags = "--encoder", encoder, "--source", source, "--target", target, "--cache_dir", cache
            return float(fresh_process(ADAPT, *flags, "--output_dir", Path(place) / "out"))

    def cold() -> float:
        with tempfile.TemporaryDirectory() as cache:
            return run(cache)

    reference = partial(seconds, partial(bare.run, batches))
    rows = [Ratio("adapt_cold", "s", *in_turns("adapt_cold", cold, reference), most=1.5)]
    with tempfile.TemporaryDirectory() as cache:
        run(cache)
        rows.append(Ratio("adapt_warm", "s", *in_turns("adapt_warm", partial(run, cache), reference), most=0.25))
    return rows


def forward(name: str, model: SereForAudioClassification, bare, waveforms: list[np.ndarray], most: float):
    """Time a model beside its bare encoder, whole and cut to the depth that the model uses.

    bare: gives a new bare encoder.
    """
    values, mask = collate(waveforms, "cpu")
    whole, cut = BareEncoder(bare()), BareEncoder(bare(), max(model.config.encoder_layers))
    inputs = [whole.inputs(waveforms)]
    calls = lambda: run(model, [(values, mask)]), lambda: whole.run(inputs), lambda: cut.run(inputs)
    for call in calls:
        call()
    ours, all_layers, used_layers = in_turns(name, *(partial(seconds, call) for call in calls))
    return [Ratio(name, "s", ours, all_layers, most=most), Ratio(f"{name}_same_depth", "s", ours, used_layers)]


def random_model(config) -> SereForAudioClassification:
    """Return SERE around an encoder with random weights, or None."""
    torch.manual_seed(0)
    labels = dict(enumerate(LABELS))
    options = {} if config is None else {"encoder_config": config}
    return SereForAudioClassification(SereConfig(id2label=labels, **options)).eval()


def pretrained_model(encoder: str) -> SereForAudioClassification:
    """Return SERE around a pretrained encoder."""
    return build_model(SereArguments(encoder=encoder), LABELS, speaker_ids=False)


def ours(model: SereForAudioClassification) -> SerePipeline:
    return SerePipeline(model=model, feature_extractor=feature_extractor(), device="cpu")


def stock(model: torch.nn.Module, extractor):
    return pipeline("audio-classification", model=model.eval(), feature_extractor=extractor, device="cpu")


def short_clips(clips: Clips, encoder: str) -> Ratio:
    """Measure clips per second, one by one as both pipelines do by default."""
    chosen = clips.mixed(SHORT_CLIPS)
    first = ours(pretrained_model(encoder))
    model = AutoModelForAudioClassification.from_pretrained(encoder, num_labels=len(LABELS), dtype=torch.float32)
    second = stock(model, AutoFeatureExtractor.from_pretrained(encoder))
    first(chosen[0]), second(chosen[0])
    parts = [chosen[k::REPEATS] for k in range(REPEATS)]
    todo = {first: iter(parts), second: iter(parts)}

    def rate(pipe) -> float:
        part = next(todo[pipe])
        return len(part) / seconds(lambda: pipe(part))

    rates = in_turns("short_clips", partial(rate, first), partial(rate, second))
    return Ratio("short_clips", "clips/s", *rates, least=8)


def batching(clips: Clips) -> Ratio:
    """Measure clips per second with batch_size=16."""
    chosen = clips.mixed(2 * BATCH)
    config = Wav2Vec2Config(num_labels=len(LABELS))
    first, second = (
        ours(random_model(Wav2Vec2Config())),
        stock(AutoModelForAudioClassification.from_config(config), Wav2Vec2FeatureExtractor()),
    )

    def rate(pipe) -> float:
        return len(chosen) / seconds(lambda: pipe(chosen, batch_size=BATCH))

    rates = in_turns("batching", partial(rate, first), partial(rate, second))
    return Ratio("batching", "clips/s", *rates, least=1.3)


def dynamics(clips: Clips) -> Ratio:
    """Measure seconds of audio per second on one thread."""
    chosen = clips.mixed(SHORT_CLIPS)
    model, length = random_model(None), audio_seconds(chosen)
    batches = batches_of(chosen)
    egemaps_functionals(chosen[0])

    def first() -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with threadpool_limits(1):
                return length / seconds(lambda: run(model, batches))
        finally:
            torch.set_num_threads(threads)

    def second() -> float:
        return length / seconds(lambda: [egemaps_functionals(waveform) for waveform in chosen])

    return Ratio("dynamics", "audio s/s", *in_turns("dynamics", first, second), least=3)


def realtime(clips: Clips) -> Ratio:
    """Measure seconds of audio per second, beside one second."""
    chosen = clips.mixed(SHORT_CLIPS)
    model, batches = random_model(None), batches_of(chosen)
    run(model, batches)
    rates = [audio_seconds(chosen) / seconds(lambda: run(model, batches)) for _ in range(REPEATS)]
    return Ratio("realtime", "audio s/s", rates, [1.0] * REPEATS, least=150)


def show_help() -> Ratio:
    """Measure CPU seconds of --help, beside one second."""
    command = [sys.executable, str(ROOT / "train_sere.py"), "--help"]

    def cpu() -> float:
        return sum(os.times()[2:4])  # of child processes that have ended

    values = []
    for _ in range(REPEATS):
        start = cpu()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        values.append(cpu() - start)
    return Ratio("help", "CPU s", values, [1.0] * REPEATS, most=2)


def live(clips: Clips) -> Ratio:
    """Measure seconds of audio per second, in a stream and with `return_timestamps=True`."""
    rate, chunk = 48_000, 4_800
    minute = np.resize(np.concatenate(clips.mixed(SHORT_CLIPS)), 60 * 16_000).repeat(rate // 16_000)
    pipe = ours(random_model(None))

    def streamed():
        stream = pipe.stream()
        for start in range(0, len(minute), chunk):
            stream.push(minute[start : start + chunk], rate)
        stream.finish()

    def whole():
        pipe({"array": minute, "sampling_rate": rate}, return_timestamps=True)

    streamed(), whole()
    rates = in_turns("live", lambda: 60 / seconds(streamed), lambda: 60 / seconds(whole))
    return Ratio("live", "audio s/s", *rates)


def batches_of(waveforms: list[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of similar length, as adaptation makes them."""
    groups = length_batches(list(map(len, waveforms)))
    return [collate([waveforms[i] for i in group], "cpu") for group in groups]


@torch.inference_mode()
def run(model: SereForAudioClassification, batches):
    for values, mask in batches:
        model(values, mask)


def measure(arguments: argparse.Namespace) -> list[dict]:
    """Measure all rows, or those that were asked for."""
    clips, encoder = Clips(arguments.corpus), arguments.encoder
    batch = clips.mixed(FORWARD_CLIPS)

    def random_forward(name: str, config: type) -> list[Ratio]:
        return forward(name, random_model(config()), lambda: AutoModel.from_config(config()), batch, most=1.06)

    def pretrained_forward() -> list[Ratio]:
        bare = partial(AutoModel.from_pretrained, encoder, dtype=torch.float32)
        return forward("forward_whisper", pretrained_model(encoder), bare, batch, most=1.25)

    parts = {
        "forward_wavlm": lambda: random_forward("forward_wavlm", WavLMConfig),
        "forward_wav2vec2": lambda: random_forward("forward_wav2vec2", Wav2Vec2Config),
        "batching": lambda: [batching(clips)],
        "dynamics": lambda: [dynamics(clips)],
        "realtime": lambda: [realtime(clips)],
        "live": lambda: [live(clips)],
        "help": lambda: [show_help()],
    }
    if encoder != "none":
        if AutoConfig.from_pretrained(encoder).model_type == "whisper":
            parts |= {"forward_whisper": pretrained_forward, "short_clips": lambda: [short_clips(clips, encoder)]}
        parts["adapt"] = lambda: adapt(clips, encoder)
    chosen = arguments.rows or list(parts)
    unknown = set(chosen) - set(parts)
    if unknown:
        raise RunError(f"--rows {' '.join(sorted(unknown))} cannot be measured here, only {', '.join(parts)}.")
    return [row.row() for name in chosen for row in parts[name]()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", required=True, help="folder with metadata.csv, or source and target")
    parser.add_argument("--encoder", default="none", help="encoder folder, Hub id, or none")
    parser.add_argument("--rows", nargs="+", help="which to measure; all by default, for about 20 minutes")
    parser.add_argument("--json", help="write all rows to this file")
    parser.add_argument("--document", metavar="BLOCK", help="put command and table into this block of README.md here")
    transformers_logging.set_verbosity_error()  # of the stock pipeline's new head
    report(parser.parse_args(), measure, table)


if __name__ == "__main__":
    main()

"""Half and double precision on real clips: finite, and the answers of single precision for 99 of 100.

    python -m reliability.precision --source DIR --target DIR --encoder DIR|id|none

A run adapts from source to target; the saved model then answers for target clips one by one in single precision, under
bfloat16 and float16 autocast, and in double precision, all on the CPU.
"""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from modeling_sere import SereForAudioClassification
from modeling_sere.training.arguments import DEFAULT_CACHE
from modeling_sere.training.corpora.loading import load_corpus
from reliability.outcomes import Outcomes
from testing import runs

LEAST_AGREEMENT = 0.99


def compare(folder: Path, waveforms: list[np.ndarray]) -> Outcomes:
    """Return the answers of a saved model in all precisions."""
    single, double = (SereForAudioClassification.from_pretrained(folder).eval() for _ in range(2))
    double.double()
    expected = _answers("single", single, waveforms, nullcontext, torch.float32)
    outcomes = Outcomes()
    for name, model, context, dtype in (
        ("bfloat16 autocast", single, lambda: torch.autocast("cpu", torch.bfloat16), torch.float32),
        ("float16 autocast", single, lambda: torch.autocast("cpu", torch.float16), torch.float32),
        ("double", double, nullcontext, torch.float64),
    ):
        logits = _answers(name, model, waveforms, context, dtype)
        for row in logits:
            outcomes.add(name, [] if row.isfinite().all() else ["logits are not finite"])
        agreement = float((logits.argmax(1) == expected.argmax(1)).float().mean())
        if agreement < LEAST_AGREEMENT:
            outcomes.failures[name].append(f"only {agreement:.1%} of the answers are those of single precision")
    return outcomes


@torch.inference_mode()
def _answers(name: str, model, waveforms: list[np.ndarray], context, dtype: torch.dtype) -> torch.Tensor:
    """Return (n, C) logits."""
    clips = (torch.from_numpy(waveform)[None].to(dtype) for waveform in waveforms)
    with context():
        return torch.cat([model(clip).logits for clip in tqdm(clips, desc=name, total=len(waveforms), unit="clip")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--encoder", default="none")
    parser.add_argument("--clips", type=int, default=200, help="of the target, evenly spread over its metadata")
    parser.add_argument("--cache_dir", default=str(DEFAULT_CACHE))
    options = vars(parser.parse_args())
    count = options.pop("clips")
    corpus = load_corpus(options["target"], require_labels=False)
    chosen = sorted(set(np.linspace(0, len(corpus) - 1, count).astype(int).tolist()))
    waveforms = [clip.waveform for clip in corpus.iter_audio(chosen) if clip.error is None]
    with tempfile.TemporaryDirectory() as name:
        flags = options | {"draws": 1, "report_to": "none", "output_dir": Path(name) / "out"}
        ended = runs.finished(runs.command(**flags), runs.environment(Path(name) / "hf"))
        if ended.status:
            raise SystemExit(f"the run failed: {ended.last_line}")
        compare(Path(name) / "out", waveforms).close()


if __name__ == "__main__":
    main()

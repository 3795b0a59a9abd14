"""What a run leaves behind: the output folder, results.json, the table on the screen."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from modeling_sere.audio_sere import SAMPLING_RATE
from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.encoding.pool import Pool

SCORES = ("uar", "uar_before", "uar_prototype", "uar_single_clip", "war", "macro_f1", "per_class_recall", "confusion")
NOT_SCORED = dict.fromkeys(SCORES)
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface-hub", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    return {package: version(package) for package in PACKAGES}


def highlight_example(model: SereForAudioClassification, corpus: Corpus, pool: Pool) -> dict | None:
    """The clip in the middle of the corpus, for the card's picture: waveform, highlights, prediction, and no name.

    None if it cannot be read any more: the card does without, and the run does not end here.
    """
    row = len(pool) // 2
    waveform = next(corpus.iter_audio([pool.clips[row].index])).waveform
    if waveform is None:
        return None
    with torch.inference_mode():
        output = model(torch.from_numpy(waveform)[None])
    return {
        "waveform": waveform,
        "sampling_rate": SAMPLING_RATE,
        "highlights": output.highlights[0].numpy(),
        "label": model.config.id2label[int(output.logits.argmax())],
    }


def save_results(results: dict, folder: Path):
    """results.json; NumPy numbers become plain ones."""
    text = json.dumps(results, indent=2, ensure_ascii=False, default=lambda value: np.asarray(value).tolist())
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def load_results(folder: Path) -> dict:
    """What `save_results` wrote."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def table(results: dict) -> str:
    """The closing table."""
    rows = [("chance", results["chance"])]
    if results["uar"] is not None:
        rows = [
            ("nearest class mean of the shots", results["uar_prototype"]),
            ("ridge on the shots (before the field)", results["uar_before"]),
            ("SERE (after the field)", results["uar"]),
            ("the saved model, one clip at a time", results["uar_single_clip"]),
            *rows,
        ]
    source, drawn = results["source"] or "unknown source", f"seed {results['seed']}"
    lines = [
        f"{source} -> {results['target']}, {results['shots']} shots per emotion, "
        f"{'source-free' if results['source_free'] else drawn}, {results['setting']}, "
        f"speaker ids: {'yes' if results['speaker_ids'] else 'no'}"
    ]
    lines += [f"  {name:<40} {100 * value:5.1f} % UAR" for name, value in rows if value is not None]
    spread = results.get("spread")
    if spread:
        values = ", ".join(f"{100 * value:.1f}" for value in spread["uar"])
        lines.append(
            f"  SERE over {len(spread['seeds'])} draws of the shots: "
            f"{100 * spread['uar_mean']:.1f} +- {100 * spread['uar_std']:.1f} ({values})"
        )
    if results["uar"] is None:
        lines.append("  The target has no labels: the model is adapted, and nothing can be scored.")
    return "\n".join([*lines, *_caveats(results)])


def _caveats(results: dict) -> list[str]:
    """What a reader of the scores has to know; the clips are named in results.json."""
    lines = []
    if skipped := len(results["skipped_clips"]):
        lines.append(f"  Left out as unusable: {_clips(skipped)}, named in results.json.")
    if shared := results.get("same_audio_in_both"):
        shots = len(results["shots_in_target"])
        lines.append(
            f"  NOT ANOTHER LANGUAGE: the audio of {_clips(len(shared))} of the target is in the source too, that of "
            f"{shots} as a shot with its label; results.json names them. Remove them to get an honest score."
        )
    if results["source_free"] and results["source"] == results["target"]:
        lines.append(
            f"  PERHAPS NOT ANOTHER LANGUAGE: the labelled clips in the model come from {results['source']} too, with "
            "their labels; without their audio it cannot be told whether they are among the target's."
        )
    return lines


def _clips(count: int) -> str:
    return f"{count} clip{'' if count == 1 else 's'}"

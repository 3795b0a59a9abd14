"""The end of a run on the screen: the closing lines on the screen, and one clip for the picture of the card."""

from collections.abc import Iterable
from typing import TypedDict

import numpy as np
import torch

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.names import number, shown
from modeling_sere.training.encoding.pool import Pool
from modeling_sere.training.reporting.results import Answer, Results


class HighlightExample(TypedDict):
    """A clip without its name: waveform (N,) at 16 kHz, highlights (T,), and the emotion predicted for it."""

    waveform: np.ndarray
    highlights: np.ndarray
    label: str


def highlight_example(model: SereForAudioClassification, corpus: Corpus, pool: Pool) -> HighlightExample | None:
    """Return the clip in the middle of the corpus.

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
        "highlights": output.highlights[0].numpy(),
        "label": model.config.id2label[int(output.logits.argmax())],
    }


def table(results: Results) -> str:
    """Return the closing lines: scores where there are labels, what was predicted, and what a reader has to know."""
    source = results["source"] or "unknown source"
    drawn = "source-free" if results["source_free"] else f"seed {results['seed']}"
    head = (
        f"{source} -> {results['target']}, {results['shots']} shots per emotion, {drawn}, {results['setting']}, "
        f"speaker ids: {'yes' if results['speaker_ids'] else 'no'}"
    )
    return "\n".join([head, *_scores(results), *_predictions(results), *_caveats(results)])


def _scores(results: Results) -> list[str]:
    if results["uar"] is None:
        return []
    rows = {
        "nearest class mean of the shots": results["uar_prototype"],
        "ridge on the shots (before the field)": results["uar_before"],
        "SERE (after the field)": results["uar"],
        "the saved model, one clip at a time": results["uar_single_clip"],
        "chance": results["chance"],
    }
    lines = [f"  {name:<40} {100 * value:5.1f} % UAR" for name, value in rows.items()]
    if (spread := results["spread"]) and len(spread["seeds"]) > 1:
        values = ", ".join(f"{100 * value:.1f}" for value in spread["uar"])
        lines.append(
            f"  SERE over {len(spread['seeds'])} draws of the shots: "
            f"{100 * spread['uar_mean']:.1f} +- {100 * spread['uar_std']:.1f} ({values})"
        )
    return lines


def _predictions(results: Results) -> list[str]:
    lines = []
    if results["uar"] is None:
        lines.append("  The target has no labels: the model is adapted, and nothing can be scored.")
    shares = sorted(results["shares"].items(), key=lambda item: -item[1])
    shares = ", ".join(f"{emotion} {100 * share:.0f} %" for emotion, share in shares)
    lines.append(f"  Emotions given to {number(results['num_target_clips'], 'clip')}: {shares}")
    lines.append(f"  surest:     {_answers(results['surest'])}")
    lines.append(f"  least sure: {_answers(results['least_sure'])}")
    return lines


def _answers(answers: Iterable[Answer]) -> str:
    return ", ".join(f"{shown(answer['file'])} {answer['emotion']} {answer['score']:.2f}" for answer in answers)


def _caveats(results: Results) -> list[str]:
    """Return what a reader of the scores has to know; the clips are named in results.json."""
    lines = []
    if skipped := len(results["skipped_clips"]):
        lines.append(f"  Left out as unusable: {number(skipped, 'clip')}, named in results.json.")
    if shared := results["same_audio_in_both"]:
        shots = len(results["shots_in_target"])
        lines.append(
            f"  NOT ANOTHER LANGUAGE: the audio of {number(len(shared), 'clip')} of the target is in the source too, "
            f"that of {shots} as a shot with its label; results.json names them. Remove them to get an honest score."
        )
    if results["source_free"] and results["source"] == results["target"]:
        lines.append(
            f"  PERHAPS NOT ANOTHER LANGUAGE: the labelled clips in the model come from {results['source']} too, with "
            "their labels; without their audio it cannot be told whether they are among the target's."
        )
    return lines

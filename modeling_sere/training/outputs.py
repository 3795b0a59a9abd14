"""What a run leaves behind: the output folder, results.json, the table on the screen."""

import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from modeling_sere.audio_sere import SAMPLING_RATE
from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.errors import RunError, writing
from modeling_sere.training.pool import Pool

STATE, HALF_STATE = "run_state.json", "run_state.json.partial"
# what a resumed run may change without becoming another run
FREE = (
    "resume", "overwrite_output_dir", "report_to", "output_dir", "cache_dir",
    "push_to_hub", "hub_model_id", "hub_private", "hub_revision_tag",
)  # fmt: skip
SCORES = ("uar", "uar_before", "uar_prototype", "uar_single_clip", "war", "macro_f1", "per_class_recall", "confusion")
NOT_SCORED = dict.fromkeys(SCORES)
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface-hub", "safetensors", "numpy")


class OutputFolder:
    """An output directory that appears only when everything in it is whole.

    Work goes on in `<output_dir>.partial`; its folder `result` takes the name of the output directory at the end, and
    the rest goes when the run is over. `--resume` goes on with an unfinished run, wherever it was killed. Only a
    finished run is ever replaced: a folder of other files stays even if it is to be overwritten.

    Attributes:
        final: the output directory. result: where it is made. checkpoint: where refining keeps its state.
        published: whether the run that is resumed was killed after `publish`, so that nothing is left to compute.

    Raises:
        RunError: the folder cannot be used, holds another run or other files, or has an unfinished run beside it that
            is not to be resumed or was made with other arguments.
    """

    def __init__(self, arguments: SereArguments):
        self.final = Path(arguments.output_dir).expanduser().resolve()
        self.partial = self.final.parent / f"{self.final.name}.partial"
        self.result, self.checkpoint = self.partial / "result", self.partial / "checkpoint"
        self.resume = arguments.resume
        self.identity = {key: value for key, value in asdict(arguments).items() if key not in FREE}
        at_its_end = self._state() is not None and not self.result.exists() and self._is_run(self.final)
        self.published = self.resume and at_its_end
        self._check(arguments.overwrite_output_dir)

    def _check(self, overwrite: bool):
        if self.final.is_file() or self.final.is_mount():
            raise RunError(f"{self.final} is a file or a mounted disk: give a new folder as --output_dir.")
        if self._is_run(self.final) and not overwrite and not self.published:
            raise RunError(f"{self.final} already holds a run: give another --output_dir, or --overwrite_output_dir.")
        if self.final.is_dir() and any(self.final.iterdir()) and not self._is_run(self.final):
            raise RunError(f"{self.final} holds files that are not of a run: give another --output_dir.")
        if self._is_begun() and not self.resume and not overwrite:
            raise RunError(f"{self.partial} is an unfinished run: add --resume to go on with it, or delete it.")
        if self._is_begun() and self.resume and self._state() != self.identity:
            raise RunError(f"{self.partial} was made with other arguments: resume with those, or delete it.")

    def _is_run(self, folder: Path) -> bool:
        return (folder / "results.json").is_file()

    def _is_begun(self) -> bool:
        """Not if it was killed on its first step, or while it was being emptied: `open` writes the state last."""
        known = {self.result.name, self.checkpoint.name, HALF_STATE}
        return self.partial.exists() and not {path.name for path in self.partial.iterdir()} <= known

    def _state(self) -> dict | None:
        try:
            return json.loads((self.partial / STATE).read_text())
        except (OSError, ValueError):
            return None

    def open(self):
        """Create the working folder; a run that is not resumed starts empty. Raises RunError: not writable."""
        with writing(str(self.partial), "free some space or give another --output_dir"):
            if self.partial.exists() and not (self.resume and self._is_begun()):
                (self.partial / STATE).unlink(missing_ok=True)
                shutil.rmtree(self.partial)
            self.result.mkdir(parents=True, exist_ok=True)
            (self.partial / HALF_STATE).write_text(json.dumps(self.identity, indent=1))
            (self.partial / HALF_STATE).replace(self.partial / STATE)

    def publish(self):
        """Let the result appear under its own name. The run it replaces, if any, goes with `close`."""
        if self._is_run(self.final):
            self.final.rename(self.partial / "replaced")
        elif self.final.exists():
            self.final.rmdir()
        self.result.rename(self.final)

    def close(self):
        """Drop what only a resume needs, the state last."""
        for path in self.partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        shutil.rmtree(self.partial)


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

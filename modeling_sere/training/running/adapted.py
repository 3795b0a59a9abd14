"""Adaptation from Python: what is given as flags and corpora of a run, and what comes of it."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.columns import NamedColumns
from modeling_sere.training.corpora.files import AUDIO_SUFFIXES, suffix
from modeling_sere.training.corpora.labels import Spellings, parse_label_map
from modeling_sere.training.corpora.names import listed
from modeling_sere.training.corpora.objects import corpus_of
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.errors import RunError, writing
from modeling_sere.training.refining.tracking import trackers
from modeling_sere.training.reporting.hub import Destination
from modeling_sere.training.reporting.outputs import table
from modeling_sere.training.reporting.predictions import Predictions
from modeling_sere.training.reporting.results import Results, load_results
from modeling_sere.training.running.run_folder import OutputFolder

SIDES = ("source", "target")


class Adapted:
    """A finished run.

    Attributes:
        model: in evaluation mode, on the CPU. predictions: for each clip of the target; iterating gives one dictionary
            for each. results: as in results.json (docs/results.md). folder: where model, card, predictions.csv and
            results.json lie, for as long as this object lives if no `output_dir` was given.
    """

    def __init__(self, model: SereForAudioClassification, predictions: Predictions, folder: Path, kept: Any = None):
        self.model, self.predictions, self.folder = model, predictions, folder
        self.results: Results = load_results(folder)
        self._kept = kept  # a temporary folder, which goes with its last owner

    def __str__(self) -> str:
        return table(self.results)

    def __repr__(self) -> str:
        return f"Adapted({self.results['source']} -> {self.results['target']}, {len(self.predictions)} predictions)"

    def save(self, folder: str | os.PathLike) -> Path:
        """Copy the model with its code and card, predictions.csv and results.json into a new folder; return its path.

        Raises:
            RunError: the folder is not empty, or cannot be written.
        """
        place = Path(folder).expanduser()
        with writing(str(place), "give another folder"):
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise RunError(f"{place} is not empty: give another folder")
            shutil.copytree(self.folder, place, dirs_exist_ok=True)
        return place

    def push(self, name: str, *, private: bool = False, tag: str | None = None, predictions: bool = False) -> str:
        """Put the model and its card on the Hub as `owner/name`; return the address.

        Args:
            private: whether others must not see it. tag: of the commit. predictions: push predictions.csv too, which
                names clips.

        Raises:
            RunError: no token, no right to write there, a tag that is taken, or a push that broke off.
        """
        destination = Destination(name, private, tag, predictions)
        destination.content(self.folder)
        destination.prepare()
        return destination.push(self.folder)


def adapted(run: Callable, source: Any, target: Any, flags: Mapping[str, Any]) -> Adapted | None:
    """Carry out `run` of train_sere.py with what was given to `modeling_sere.training.adapt`.

    Returns:
        None on all processes but the main one.

    Raises:
        RunError: a flag, a corpus or the run.
    """
    known = {field.name for field in fields(SereArguments)} - {*SIDES, "resume"}
    if unknown := sorted(flags.keys() - known):
        raise RunError(f"adapt has no argument {listed(unknown)}: train_sere.py --help lists all")
    if target is None:
        raise RunError("adapt needs a target: clips in the new language")
    if source is None and flags.get("model") is None:
        raise RunError("adapt needs a source of labelled clips, or a model that carries some")
    kept = None if flags.get("output_dir") else tempfile.TemporaryDirectory(prefix="sere-")
    options = {"report_to": "none"} | {name: _flag(value) for name, value in flags.items()}
    if kept is not None:
        options["output_dir"] = str(Path(kept.name) / "result")
    given = {"source": _corpora(source), "target": [] if target is None else [target]}
    names = {
        side: [side if len(values) == 1 else f"{side}[{place}]" for place in range(len(values))]
        for side, values in given.items()
    }
    addresses = {
        side: [
            os.fspath(value) if _is_address(value) else name for value, name in zip(values, names[side], strict=True)
        ]
        for side, values in given.items()
    }
    try:
        arguments = SereArguments(source=addresses["source"] or None, target=addresses["target"][0], **options)
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from error
    corpora = {
        (side, place): corpus_of(value, names[side][place], _read_options(arguments, side))
        for side, values in given.items()
        for place, value in enumerate(values)
        if not _is_address(value)
    }
    with OutputFolder(arguments) as folder:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(), log_with=trackers(arguments.report_to) or None,
            project_dir=folder.result,
        )  # fmt: skip
        outcome = run(arguments, folder, accelerator, corpora, show=lambda _: None)  # `str` of the result gives it
        return None if outcome is None else Adapted(*outcome, folder.final, kept)


def _corpora(source: Any) -> list[Any]:
    """Return the corpora that a source is: one, but for a list of corpora that are not all datasets."""
    if source is None:
        return []
    several = isinstance(source, list) and any(_is_address(part) or isinstance(part, list) for part in source)
    return source if several and not any(_is_clip(part) for part in source) else [source]


def _is_clip(value: Any) -> bool:
    return isinstance(value, tuple) or (_is_address(value) and suffix(os.fspath(value)) in AUDIO_SUFFIXES)


def _is_address(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _flag(value: Any) -> Any:
    """Write a value as the flag has it: a mapping is JSON, a list is separated by commas, a path is a text."""
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _read_options(arguments: SereArguments, side: str) -> ReadOptions:
    label_map = parse_label_map(arguments.label_map) if arguments.label_map else None
    columns = NamedColumns(arguments.audio_column, arguments.label_column, arguments.speaker_column)
    return ReadOptions(columns=columns, spellings=Spellings(label_map), require_labels=side == "source")

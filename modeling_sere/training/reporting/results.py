"""The contract of results.json, which everything that tells of a run writes and reads (docs/results.md)."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from modeling_sere.training.errors import RunError

FILE, PREDICTIONS = "results.json", "predictions.csv"


class SkippedClip(TypedDict):
    """A clip left out as unusable."""

    name: str
    reason: str


class Sides(TypedDict):
    """Numbers of clips by label, for the source and the target."""

    source: dict[str, int]
    target: dict[str, int]


class Spellings(TypedDict):
    """Labels as they were written, and the emotions they were read as, for the source and the target."""

    source: dict[str, str]
    target: dict[str, str]


class Parameters(TypedDict):
    """Numbers of the method that a user can set."""

    prior_weight: float
    field_balance: float


class Answer(TypedDict):
    """The answer for one target clip; `strongest` is its strongest moment in seconds."""

    file: str
    emotion: str
    score: float
    strongest: float


class Calibration(TypedDict):
    """The temperature of the scores, and what they are off as probabilities where there are labels to tell it."""

    temperature: float
    ece_before: float | None
    ece_after: float | None


class Spread(TypedDict):
    """UAR over several draws of the shots."""

    seeds: list[int]
    uar: list[float]
    uar_mean: float
    uar_std: float


class Results(TypedDict):
    """The results of a run. Every key is always there; None stands for what docs/results.md says of that key."""

    source: str | None
    source_language: str | None
    source_license: str | None
    target: str
    target_language: str | None
    target_license: str | None
    encoder: str | None
    base_model: str | None
    base_license: str | None
    license: str | None
    licenses_of_clips: Sides

    labels: list[str]
    labels_left_out: Sides
    labels_read_as: Spellings
    source_free: bool
    shots: int
    seed: int | None
    shot_files: list[str] | None
    setting: Literal["transductive", "inductive"]
    speaker_ids: bool
    source_speaker_ids: bool | None
    num_source_clips: int
    num_unlabelled_source: int
    num_target_clips: int
    skipped_clips: list[SkippedClip]
    same_audio_in_both: list[str] | None
    shots_in_target: list[str] | None
    parameters: Parameters
    refine_steps: int
    train_encoder: Literal["none", "full", "lora"]

    shares: dict[str, float]
    surest: list[Answer]
    least_sure: list[Answer]
    agreement: float | None
    speaker_emotion_tie: float | None
    emotions_not_heard: list[str]
    target_shot_files: list[str]

    chance: float
    uar: float | None
    uar_before: float | None
    uar_prototype: float | None
    uar_single_clip: float | None
    war: float | None
    macro_f1: float | None
    per_class_recall: dict[str, float | None] | None
    confusion: list[list[int]] | None
    calibration: Calibration
    spread: Spread | None

    seconds: dict[str, float]
    versions: dict[str, str]


# None together, where the target has no labels
SCORES = ("uar", "uar_before", "uar_prototype", "uar_single_clip", "war", "macro_f1", "per_class_recall", "confusion")


def save_results(results: Results, folder: Path) -> None:
    """Write results.json; NumPy numbers become plain ones."""
    import numpy as np  # the command that pushes starts without it

    text = json.dumps(results, indent=2, ensure_ascii=False, default=lambda value: np.asarray(value).tolist())
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def load_results(folder: Path) -> Results:
    """Read results.json. Raises RunError: it is not of this version."""
    results = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if wrong := list(problems(results)):
        raise RunError(f"{folder / FILE} is of another version, {wrong[0]}: run the same command again")
    return results


def problems(value: Any, kind: Any = Results, place: str = FILE) -> Iterator[str]:
    """Tell where a value differs from a type of the contract, one phrase each."""
    if is_typeddict(kind):
        yield from _problems_of_keys(value, get_type_hints(kind), place)
    elif get_origin(kind) in (UnionType, Literal):
        choices = get_args(kind)
        if get_origin(kind) is Literal:
            fits = value in choices
        else:
            fits = any(not list(problems(value, choice, place)) for choice in choices)
        if not fits:
            yield f"{place} is {value!r}"
    elif get_origin(kind) is list:
        if not isinstance(value, list):
            yield f"{place} is {value!r}"
            return
        for number, item in enumerate(value):
            yield from problems(item, get_args(kind)[0], f"{place}[{number}]")
    elif get_origin(kind) is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            yield f"{place} is {value!r}"
            return
        for key, item in value.items():
            yield from problems(item, get_args(kind)[1], f"{place}/{key}")
    else:
        number = {float: (float, int)}.get(kind, kind)
        if not isinstance(value, number) or (isinstance(value, bool) and kind in (int, float)):
            yield f"{place} is {value!r}" if kind is not NoneType else f"{place} is not null"


def _problems_of_keys(value: Any, hints: dict[str, Any], place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place} is {value!r}"
        return
    for key in hints.keys() - value.keys():
        yield f"{place} lacks {key}"
    for key in value.keys() - hints.keys():
        yield f"{place} has {key}, which is unknown"
    for key in hints.keys() & value.keys():
        yield from problems(value[key], hints[key], f"{place}/{key}")

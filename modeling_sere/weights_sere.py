"""The file of weights before any of it is loaded: whether its header tells the truth, and fits the configuration.

A model's files may come from anybody. What is refused here would else end in an error of some library, in numbers that
mean nothing, or in memory for tensors that the file does not hold.
"""

import copy
import json
import math
import os
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers.utils import cached_file

MAX_HEADER = 2**22  # bytes: a thousand tensors take 2**17
BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
HEAD = ("classifier.",)  # may be drawn anew, for other emotions
# exponents of e; parts of vectors of unit length; standardised cues, which are clipped
FORMER = "cue_classifier.weight"
LARGEST = {"log_gain": 40.0, "source_embeddings": 1.01, "source_cues": 10.0}
UNBUILDABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class MismatchedSizes(ValueError, RuntimeError):
    """A tensor of another shape than the configuration's; transformers' own error for it is a RuntimeError."""


def check_weights(path: str, name: str, model_class: type[nn.Module], config, new_head: bool = False):
    """Pass if all that a model needs is in the file, in the shapes and kinds of number it needs.

    Args:
        path: of a safetensors file. name: what messages call its repository.
        model_class, config: of the model, which is built without memory for its weights.
        new_head: whether the classifier may have another shape.

    Raises:
        ValueError: the header is damaged or lies, the configuration describes no model, or the two do not fit.
    """
    held = {tensor.removeprefix("sere."): entry for tensor, entry in read_header(path, name).items()}
    bare = not any(tensor.startswith(HEAD) for tensor in held)  # a base model's
    model = _needed(name, model_class, config)
    if FORMER in held and not new_head and any(tensor.startswith(HEAD) for tensor in model):
        _check_former(path, name)
    for tensor, needed in model.items():
        short = tensor.removeprefix("sere.")
        kind, shape = held.get(short, (None, None))
        if kind is None:
            if needed.numel() and not (bare and short.startswith(HEAD)):
                raise ValueError(f"{name}: model.safetensors lacks {tensor}, which config.json calls for.")
        elif shape != tuple(needed.shape) and not (new_head and short.startswith(HEAD)):
            remedy = "; for other emotions give ignore_mismatched_sizes=True" if short.startswith(HEAD) else ""
            raise MismatchedSizes(
                f"{name}: {tensor} has the shape {shape} in model.safetensors, {tuple(needed.shape)} by config.json"
                f"{remedy}."
            )
        elif (kind[0] in "FB" and kind != "BOOL") != needed.is_floating_point():
            raise ValueError(f"{name}: {tensor} holds numbers of type {kind} in model.safetensors, not {needed.dtype}.")


def _check_former(path: str, name: str):
    """Pass if the classifier of the cues, which models of earlier versions have, says nothing."""
    with safe_open(path, framework="pt") as file:
        if bool(file.get_tensor(FORMER).any()):
            raise ValueError(
                f"{name}: {FORMER} is not zero: the model was trained with an earlier version of SERE, whose scores "
                "this one does not give; load it with the code that lies beside it."
            )


def check_finite(model: nn.Module, name: str):
    """Pass if the weights can give answers.

    Raises:
        ValueError: the name of a weight that is NaN or infinite, or beyond what its kind can be (`LARGEST`).
    """
    for tensor, values in model.state_dict().items():
        if not values.is_floating_point() or values.is_meta:
            continue
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: {tensor} holds NaN or infinite numbers, so the model can answer nothing.")
        largest = LARGEST.get(tensor.rpartition(".")[2])
        found = float(values.abs().max()) if largest is not None and values.numel() else 0.0
        if largest is not None and found > largest:
            raise ValueError(
                f"{name}: {tensor} holds numbers of {found:.3g}, where {largest:g} is the most that means anything, "
                "so the model can answer nothing."
            )


def check_beside(name: str, place: dict, extractor: dict | None = None) -> None:
    """Pass if no file beside the weights has transformers run foreign code, add weights, or change the audio.

    Args:
        name: a folder or a repository. place: where transformers looks for its files (revision, token, ...).
        extractor: the feature extractor that the model was made with; None for a plain encoder, whose own is taken.

    Raises:
        ValueError: adapters, or a feature extractor of another kind or with code of its own.
    """
    if _beside(name, "adapter_config.json", place) is not None:
        raise ValueError(
            f"{name} has adapters (adapter_config.json), which would change its weights without a word: merge them "
            "into the weights, or remove them."
        )
    if extractor is None:
        return
    for file in ("preprocessor_config.json", "processor_config.json"):
        path = _beside(name, file, place)
        try:
            with open(path or os.devnull, "rb") as opened:
                values = json.loads(opened.read(MAX_HEADER) or b"{}")
            parts = [values, values.get("feature_extractor") or {}]
            odd = [
                key for part in parts for key in part if key == "auto_map" or part[key] != extractor.get(key, part[key])
            ]
        except (AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: {file} is no feature extractor's ({_line(error)}).") from error
        if odd:
            raise ValueError(
                f"{name}: {file} has a feature extractor with {odd[0]!r} of its own, which would run other code than "
                "the model's or give it other samples."
            )


def _beside(name: str, file: str, place: dict) -> str | None:
    try:
        return cached_file(name, file, _raise_exceptions_for_missing_entries=False, **place)
    except OSError:  # offline, and never fetched: transformers will not find it either
        return None


def read_header(path: str, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read {tensor: (type of number, shape)} from a safetensors file, whose data must be just what the header says.

    Raises:
        ValueError: as `check_weights`.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise ValueError(
                f"{name}: model.safetensors claims a header of {length} bytes in a file of {size}: it is damaged, or "
                "no safetensors file at all."
            )
        text = file.read(length)
    try:
        header = json.loads(text)
        facts = header.pop("__metadata__", None) or {"format": "pt"}
        if text[:1] != b"{" or facts.get("format") != "pt":
            raise ValueError("not made with PyTorch")
        entries = {tensor: _entry(tensor, entry) for tensor, entry in header.items()}
        place = 0
        for tensor, (_, _, start, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
            if start != place:
                raise ValueError(f"{tensor} starts at {start}, not where the one before it ends")
            place = end
        if place != size - 8 - length:
            raise ValueError(f"its tensors end at {place}, its data at {size - 8 - length}")
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: the header of model.safetensors is not true to its file ({error}).") from error
    return {tensor: (kind, shape) for tensor, (kind, shape, _, _) in entries.items()}


def _entry(tensor: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    kind, shape, (start, end) = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if kind not in BYTES:
        raise ValueError(f"{tensor} is of the unknown type {str(kind)[:20]!r}")
    if len(shape) > 8 or not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, start, end)):
        raise ValueError(f"{tensor} has an impossible shape or place")
    if end - start != math.prod(shape) * BYTES[kind]:
        raise ValueError(f"{tensor} does not have the size of its shape")
    return kind, tuple(shape), start, end


def _needed(name: str, model_class: type[nn.Module], config) -> dict[str, torch.Tensor]:
    """Return the model's tensors, without their numbers."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return model_class(copy.deepcopy(config)).state_dict()
    except UNBUILDABLE as error:
        raise ValueError(f"{name}: config.json describes no model that can be built ({_line(error)}).") from error


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

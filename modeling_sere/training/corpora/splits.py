"""Splits of a corpus: what they are called, and which one is to be read."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from modeling_sere.training.corpora.names import listed, normal_name, shown
from modeling_sere.training.errors import RunError

Part = TypeVar("Part")
WORDS = {
    word: split
    for split, words in {
        "train": "train training",
        "validation": "validation valid val dev devel",
        "test": "test testing eval evaluation",
    }.items()
    for word in words.split()
}
SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}(-\w+)?")  # as `datasets` names files: train-00000-of-00002.parquet


def split_key(name: str) -> str:
    """Return the form in which names of splits are compared: dev and validation are the same."""
    name = normal_name(name)
    return WORDS.get(name, name)


def split_in(path: str) -> str | None:
    """Return the split that the name of a file, or else that of a folder on the way to it, tells, if any."""
    *folders, name = path.split("/")
    stem = name.rpartition(".")[0]
    if (shard := SHARD.fullmatch(stem)) and shard["split"] != "data":
        return shard["split"].rpartition("-")[2]
    for part in (stem, *reversed(folders)):
        for word in re.split(r"[^a-z]+", normal_name(part)):
            if word in WORDS:
                return WORDS[word]
    return None


def chosen(title: str, parts: Mapping[str, Part], split: str | None) -> dict[str, Part]:
    """Return the parts of a corpus that are to be read: those of `split` (also a+b, or all), else the only one.

    Raises:
        RunError: no such split, or several and none was chosen.
    """
    if split is None:
        if len(parts) > 1:
            raise RunError(
                f"{title} has the splits {listed(parts)}: choose one, a+b or all with --source_split or --target_split"
            )
        return dict(parts)
    if normal_name(split) == "all":
        return dict(parts)
    found = {}
    for wanted in split.split("+"):
        alike = [name for name in parts if name == wanted.strip()] or [
            name for name in parts if split_key(name) == split_key(wanted)
        ]
        if not alike:
            raise RunError(f"{title} has no split {shown(wanted.strip())!r}, only {listed(parts)}")
        found |= {name: parts[name] for name in alike}
    return found


def are_splits(names: Iterable[str]) -> bool:
    """Tell whether all of these, at least one, are usual names of splits."""
    return bool(keys := {split_key(name) for name in names}) and keys <= set(WORDS.values())

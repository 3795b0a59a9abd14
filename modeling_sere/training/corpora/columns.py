"""Columns of a corpus, from whichever source, and the corpus that is made of them."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modeling_sere.training.corpora.corpus import AudioBytes, Clip, Corpus
from modeling_sere.training.corpora.labels import LABEL_ALIASES, normal_label, normalised_map
from modeling_sere.training.errors import RunError

logger = logging.getLogger(__name__)
_LABEL_COLUMNS = ("emotion", "label", "labels")
_SPEAKER_COLUMNS = ("speaker", "speaker_id")
_LANGUAGE_COLUMNS = ("language",)


@dataclass(frozen=True, slots=True)
class NamedColumns:
    """Column names as the user gave them."""

    audio: str | None
    label: str | None
    speaker: str
    language: str


@dataclass(slots=True)
class Table:
    """Columns of text, one entry per clip, before labels are understood."""

    title: str  # for messages
    corpus: str
    columns: list[str]
    names: list[str]
    labels: list[str | None] | None
    speakers: list[str | None] | None
    languages: list[str | None] | None
    audio: AudioBytes


def build_corpus(table: Table, label_map: Mapping[str, str], require_labels: bool) -> Corpus:
    if require_labels and table.labels is None:
        raise RunError(
            f"{table.title} has no column named {_either(_LABEL_COLUMNS)}, only {listed(table.columns)}:"
            " name the one with the emotions as label column"
        )
    if require_labels and not any(table.labels):
        raise RunError(f"{table.title} has an emotion column, but every cell of it is empty")
    spellings = {**LABEL_ALIASES, **normalised_map(label_map.items())}
    raw = table.labels or [None] * len(table.names)
    emotion_of = {text: spellings.get(normal_label(text), normal_label(text)) for text in set(raw) - {None}}
    relabelled = {text: emotion for text, emotion in sorted(emotion_of.items()) if emotion != normal_label(text)}
    if relabelled:
        logger.warning("%s: labels read as %s", table.corpus, ", ".join(f"{a} -> {b}" for a, b in relabelled.items()))
    speakers = table.speakers or [None] * len(table.names)
    if table.speakers and 0 < (missing := speakers.count(None)) < len(speakers):
        logger.warning("%s: %d of %d clips have no speaker", table.corpus, missing, len(speakers))
    emotion_of[None] = None
    clips = [
        Clip(index, name, emotion_of[text], speaker)
        for index, (name, text, speaker) in enumerate(zip(table.names, raw, speakers, strict=True))
    ]
    languages = set(table.languages or [])
    return Corpus(table.corpus, clips, languages.pop() if len(languages) == 1 else None, relabelled, table.audio)


def _column(title: str, columns: list[str], named: str | None, usual: tuple[str, ...]) -> str | None:
    """The column to use: the named one, else the first usual one there is. A named one that is unusual must exist."""
    if named is not None and named in columns:
        return named
    if named is not None and named != usual[0]:
        raise RunError(f"{title} has no column {named!r}: it has {listed(columns)}")
    return next((name for name in usual if name in columns), None)


def label_speaker_language(title: str, columns: list[str], named: NamedColumns) -> list[str | None]:
    if named.label is not None and named.label not in columns:
        raise RunError(f"{title} has no column {named.label!r}: it has {listed(columns)}")
    return [
        _column(title, columns, named.label, _LABEL_COLUMNS),
        _column(title, columns, named.speaker, _SPEAKER_COLUMNS),
        _column(title, columns, named.language, _LANGUAGE_COLUMNS),
    ]


def cell_text(value: Any) -> str | None:
    """A cell as text; None for an empty one and for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, names)) or "no columns"


def shown(text: str) -> str:
    """What a file says, fit for a message of one line."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)

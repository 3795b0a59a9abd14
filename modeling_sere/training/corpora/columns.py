"""Columns of a corpus, from whichever source: which of them is which, and the corpus that is made of them."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from modeling_sere.training.corpora.corpus import AudioBytes, Clip, Corpus
from modeling_sere.training.corpora.labels import Spellings
from modeling_sere.training.corpora.names import clean_name, compact_name, counted, listed, normal_name, number, shown
from modeling_sere.training.errors import RunError

# usual names of columns, as `compact_name` has them; the first one that is there is taken
FILES = (
    "filename", "file", "filepath", "path", "audio", "audiofile", "audiofilename", "audiofilepath", "audiopath", "wav",
    "wavfile", "wavfilename", "wavpath", "clip", "clipname", "recording",
)  # fmt: skip
LABELS = ("emotion", "label", "labels", "emotions", "emotionlabel", "emo", "cls")
SPEAKERS = ("speaker", "speakerid", "spk", "spkid", "speakername", "actor", "actorid", "clientid")
LANGUAGES = ("language", "lang", "locale")
LICENSES = ("license", "licence", "licenses")
CORPORA = ("dataset", "corpus")  # of which a dataset is put together
SPLITS = ("split", "subset", "partition")
# what to do about a corpus without labels
LABELLED = (
    "put the clips of each emotion into a folder of its own, or add a metadata.csv with the columns file_name and"
    " emotion"
)


@dataclass(frozen=True, slots=True)
class NamedColumns:
    """Column names as the user gave them; None stands for the usual ones."""

    audio: str | None = None
    label: str | None = None
    speaker: str | None = None


@dataclass(slots=True)
class Table:
    """Columns of text, one entry per clip, before labels are understood.

    title: what messages call the table. corpus: its name. names: of the clips, unique. labels, speakers, languages,
    licenses, corpora (of which it is put together): None where there is no such column. reading, notes: as in `Corpus`.
    """

    title: str
    corpus: str
    columns: list[str]
    names: list[str]
    labels: list[str | None] | None
    speakers: list[str | None] | None
    languages: list[str | None] | None
    licenses: list[str | None] | None
    corpora: list[str | None] | None
    audio: AudioBytes
    reading: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_column(title: str, columns: Sequence[str], named: str | None, usual: Iterable[str] = ()) -> str | None:
    """Return the column that the user named, else the first usual one, else None.

    Case, blanks, underscores, hyphens and the Unicode form do not matter, unless two columns differ by nothing else.

    Raises:
        RunError: a named column that is not there, or two that could be meant.
    """
    if named in columns:
        return named
    for name in usual if named is None else [compact_name(named)]:
        found = [column for column in columns if compact_name(column) == name]
        if len(found) > 1:
            raise RunError(f"{title} has two columns that could be meant, {listed(found)}: rename or remove one")
        if found:
            return found[0]
    if named is not None:
        raise RunError(f"{title} has no column {shown(named)!r}: it has {listed(columns)}")
    return None


def columns_of_clips(title: str, columns: Sequence[str], named: NamedColumns) -> list[str | None]:
    """Return the columns of labels, speakers, languages, licences and corpora, None where there is none.

    Raises as `find_column`.
    """
    wanted = ((named.label, LABELS), (named.speaker, SPEAKERS), (None, LANGUAGES), (None, LICENSES), (None, CORPORA))
    return [
        find_column(title, columns, None if is_folder(name) and name not in columns else name, usual)
        for name, usual in wanted
    ]


def is_folder(column: str | None) -> bool:
    """Tell whether a column is one of a corpus without a table, whose columns are its folders: folder1, folder2.

    The user names columns for both corpora of a run, and either may have a table or none.
    """
    return re.fullmatch(r"folder\d+", compact_name(column or "")) is not None


def told_columns(used: Sequence[str | None]) -> dict[str, str]:
    """Return what to say of the columns that `columns_of_clips` gave."""
    subjects = zip(("emotions", "speakers", "language", "licences"), used, strict=False)
    return {subject: f"column {shown(column)}" for subject, column in subjects if column is not None}


def cell_text(value: Any) -> str | None:
    """Return a cell as text without invisible characters; None for an empty one and for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # numbers with gaps come as floats
    return clean_name(str(value)) or None


def build_corpus(table: Table, spellings: Spellings, require_labels: bool) -> Corpus:
    """Make the corpus of a table.

    Raises:
        RunError: no rows, or no labels where some are required.
    """
    if not table.names:
        raise RunError(f"{table.title} has no rows")
    if require_labels and table.labels is None:
        raise RunError(
            f"{table.title} has no column named emotion or label, only {listed(table.columns)}: name the one with the"
            " emotions as --label_column"
        )
    if require_labels and not any(table.labels):
        raise RunError(f"{table.title} has an emotion column, but every cell of it is empty")
    labels, relabelled = _understood(table, spellings)
    speakers = _people(table)
    clips = [Clip(index, *row) for index, row in enumerate(zip(table.names, labels, speakers, strict=True))]
    languages, licenses = _languages(table), _licenses(table)
    _note_repeated_names(table)
    language = languages[0] if len(languages) == 1 and None not in table.languages else None
    corpus = Corpus(table.corpus, clips, language, relabelled, table.audio, table.reading, table.notes)
    corpus.languages, corpus.licenses = languages, licenses
    return corpus


def _understood(table: Table, spellings: Spellings) -> tuple[list[str | None], dict[str, str]]:
    """Return the emotion of each clip, and the spellings that stand for another one than themselves."""
    raw = table.labels or [None] * len(table.names)
    counts = Counter(raw)
    emotion_of = {text: spellings.emotion(text) for text in counts if text is not None}
    relabelled = {text: emotion for text, emotion in sorted(emotion_of.items()) if emotion != normal_name(text)}
    emotions = Counter()
    for text, emotion in emotion_of.items():
        emotions[emotion] += counts[text]
    told = [counted(emotions)] if emotions else []
    if relabelled:
        told.append("read as " + ", ".join(f"{shown(a)} -> {b} ({counts[a]})" for a, b in relabelled.items()))
    if emotions and counts[None]:
        told.append(f"{counts[None]} without")
    _tell(table, "emotions", told)
    emotion_of[None] = None
    return [emotion_of[text] for text in raw], relabelled


def _people(table: Table) -> list[str | None]:
    """Return the speaker of each clip: spellings that are one name are one person, under the first of them."""
    raw = _distinct(table) or [None] * len(table.names)
    first: dict[str, str] = {}
    person = {text: first.setdefault(normal_name(text), text) for text in dict.fromkeys(raw) if text is not None}
    if joined := [f"{shown(text)} and {shown(name)}" for text, name in person.items() if text != name]:
        table.notes.append(f"{table.corpus}: taken for one speaker each: {listed(joined)}.")
    missing = raw.count(None)
    told = [f"{len(first)} ({listed(first.values(), 5)})"] if first else []
    if first and missing:
        share = "they count as one more speaker" if 2 * missing <= len(raw) else "so the ids are not used"
        told.append(f"{missing} of {len(raw)} clips without, {share}")
    _tell(table, "speakers", told)
    person[None] = None
    return [person[text] for text in raw]


def _languages(table: Table) -> list[str]:
    """The languages of the clips, each once."""
    languages = {normal_name(text): text for text in table.languages or [] if text is not None}
    if table.languages is not None:
        _tell(table, "language", [listed(languages.values(), 5)])
    return list(languages.values())


def _licenses(table: Table) -> dict[str, int]:
    """How many clips have each licence, by its name on the Hub where that can be told: CC BY 4.0 is cc-by-4.0."""
    counts = Counter(text for text in table.licenses or [] if text is not None)
    found = Counter()
    for text, count in counts.items():
        name = re.sub(r"[\s_]+", "-", text.strip().lower())
        found[name if name.startswith("cc") else text] += count
    if table.licenses is not None:
        _tell(table, "licences", [counted(found)] if found else [])
    return dict(found.most_common())


def _distinct(table: Table) -> list[str | None] | None:
    """The speakers, where one id in two corpora that were put together is two people."""
    if table.speakers is None or table.corpora is None:
        return table.speakers
    places: dict[str, set[str | None]] = {}
    for speaker, corpus in zip(table.speakers, table.corpora, strict=True):
        if speaker is not None:
            places.setdefault(speaker, set()).add(corpus)
    return [
        f"{speaker} of {corpus}" if speaker is not None and len(places[speaker]) > 1 else speaker
        for speaker, corpus in zip(table.speakers, table.corpora, strict=True)
    ]


def _tell(table: Table, subject: str, told: list[str]):
    """Say what was found of a subject where."""
    where = [table.reading[subject]] if subject in table.reading else []
    table.reading[subject] = ": ".join([*where, "; ".join(told) or "none"])


def _note_repeated_names(table: Table):
    """Note names that look the same on the screen: they are different clips, but the user should know."""
    if all(name.isascii() for name in table.names):
        return
    seen: dict[str, str] = {}
    alike = [name for name in table.names if seen.setdefault(clean_name(name), name) != name]
    if alike:
        have = f"{number(len(alike), 'file')} {'has' if len(alike) == 1 else 'have'}"
        table.notes.append(
            f"{table.corpus}: {have} the name of another one but for its Unicode form, and counts as a clip of its own:"
            f" {listed(alike, 3)}."
        )

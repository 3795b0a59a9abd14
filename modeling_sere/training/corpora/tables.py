"""Tables: which files of a folder list its clips."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from modeling_sere.training.corpora.files import Locator, locate_file, suffix
from modeling_sere.training.corpora.metadata import Part, file_column
from modeling_sere.training.corpora.names import listed, normal_name, shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.corpora.splits import are_splits, split_in
from modeling_sere.training.corpora.text_table import JSON_LINES, SEPARATED, holds_audio, read_rows
from modeling_sere.training.errors import RunError

TABLES = (*SEPARATED, *JSON_LINES, ".parquet")
MANY = 20  # tables: then each is of one clip, and none lists them
# a table of such a name that cannot be read ends the run; another one may be anything
_LISTING = re.compile(r"metadata|manifest|labels|train|valid|dev|test")


class Tables:
    """Finds the tables of a corpus, by their split; one that is of no split stands under an empty name.

    Attributes:
        unused: tables that were looked at and are not used, and why.
    """

    def __init__(self, corpus: str, locate: Locator, options: ReadOptions):
        self.corpus, self.locate, self.options = corpus, locate, options
        self.unused: list[str] = []

    def at_the_top(self, names: list[str]) -> dict[str, Part]:
        """Return the tables among the files at the top of the folder: metadata.csv, or one per split, or the only one.

        Raises:
            RunError: several tables that could be meant, or one that cannot be read.
        """
        parts = self._in_one_folder(self._tables(names))
        by_split = _by_split(parts)
        if by_split is None:
            raise RunError(
                f"{self.corpus} has several tables of audio files, {listed(parts)}: give one of them instead"
            )
        return by_split

    def further_down(self, names: list[str]) -> dict[str, Part]:
        """Return the tables in folders of the folder, one for each, by the name of their folder or their split.

        Args:
            names: all files, relative to the folder.

        Raises:
            RunError: one that cannot be read.
        """
        tables = self._tables(name for name in names if "/" in name)
        if len(tables) > MANY:
            others = [name for name in tables if not _is_metadata(name)]
            tables = [name for name in tables if _is_metadata(name)]
            self.unused.append(f"{len(others)} tables further down, too many to list the clips")
        inside: dict[str, list[str]] = defaultdict(list)
        for name in tables:
            inside[posixpath.dirname(name)].append(name)
        found: dict[str, Part] = {}
        last = [posixpath.basename(folder) for folder in inside]
        for folder, own in inside.items():
            title = folder if last.count(posixpath.basename(folder)) > 1 else posixpath.basename(folder)
            parts = self._in_one_folder(own)
            by_split = _by_split(parts)
            if by_split is None:
                self.unused += [f"{name} (one of several tables in {folder})" for name in parts]
            else:
                found |= {posixpath.join(title, split).rstrip("/"): part for split, part in by_split.items()}
        # one table alone is no split, unless it is called so
        return found if len(found) != 1 or are_splits(found) else dict(zip([""], found.values(), strict=True))

    def _tables(self, names: Iterable[str]) -> list[str]:
        """Return those that may be tables of clips; of files that are mostly of one clip, only if there are few."""
        tables = [name for name in names if self.is_table(name)]
        doubtful = [name for name in tables if suffix(name) in (".txt", ".json") and not _is_listing(name)]
        return tables if len(doubtful) <= MANY else sorted(set(tables) - set(doubtful))

    def _in_one_folder(self, tables: list[str]) -> dict[str, Part]:
        """Return the tables of a folder that name audio files, by their name: metadata.csv alone if it is there."""
        if metadata := [name for name in tables if _is_metadata(name)]:
            if len(metadata) > 1:
                raise RunError(f"{self.corpus} has both {' and '.join(metadata)}: keep one")
            self.unused += [f"{name} ({metadata[0]} goes before it)" for name in tables if name != metadata[0]]
            return {metadata[0]: self.part(metadata[0])}
        if len(tables) > MANY:
            self.unused.append(f"{len(tables)} tables, too many to list the clips")
            return {}
        parts = {}
        for name in tables:
            try:
                part = self.part(name)
            except RunError:
                if _is_listing(name):
                    raise
                self._leave_out(name, "not read as a table")
                continue
            if file_column(part, self.corpus, self.options) is None:
                self._leave_out(name, "no column of file names")
            else:
                parts[name] = part
        return parts

    def _leave_out(self, name: str, why: str):
        if suffix(name) not in (".txt", ".json") or _is_listing(name):  # others may be anything
            self.unused.append(f"{name} ({why})")

    def is_table(self, name: str) -> bool:
        """Tell whether a file may be a table of clips, by its name and, of parquet, its columns."""
        base = posixpath.basename(name)
        if base.startswith(".") or suffix(name) not in TABLES or re.match(r"readme|licen[cs]e", normal_name(base)):
            return False
        return suffix(name) != ".parquet" or not self.holds_audio(name)

    def holds_audio(self, name: str) -> bool:
        """Tell whether a file is parquet with audio in it. Raises RunError: it is damaged."""
        return suffix(name) == ".parquet" and holds_audio(self.path(name), f"{shown(name)} of {self.corpus}")

    def part(self, name: str) -> Part:
        """Return a table. Raises RunError: it cannot be read."""
        return Part(name, read_rows(self.path(name), f"{shown(name)} of {self.corpus}"))

    def path(self, name: str) -> Path:
        """Return the path of a file. Raises RunError: it is no regular file in the folder."""
        locate_file(self.locate, name, "", lambda: self.corpus)
        return Path(self.locate.path(name))


def _by_split(parts: dict[str, Part]) -> dict[str, Part] | None:
    """Return tables by the split in their name, or the only one as that of no split; None if it is not clear."""
    by_split = {split_in(posixpath.basename(name)): part for name, part in parts.items()}
    if None not in by_split and len(by_split) == len(parts):
        return by_split
    return None if len(parts) > 1 else dict(zip([""], parts.values(), strict=False))


def _is_metadata(name: str) -> bool:
    return normal_name(posixpath.splitext(posixpath.basename(name))[0]) == "metadata"


def _is_listing(name: str) -> bool:
    return _LISTING.search(normal_name(posixpath.basename(name))) is not None

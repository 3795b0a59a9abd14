"""Corpora on disk: what a folder or a file holds, and which reader it is for."""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from modeling_sere.training.corpora.archive import archive_table
from modeling_sere.training.corpora.columns import LABELLED, Table
from modeling_sere.training.corpora.configs import configured_files
from modeling_sere.training.corpora.files import AUDIO_SUFFIXES, Locator, locate_file, suffix, walk
from modeling_sere.training.corpora.metadata import Part, metadata_table
from modeling_sere.training.corpora.names import clean_name, listed, normal_name, shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.corpora.splits import chosen, split_in
from modeling_sere.training.corpora.strict_json import parse_json
from modeling_sere.training.corpora.tables import TABLES, Tables
from modeling_sere.training.corpora.tree import tree_table
from modeling_sere.training.errors import RunError

DATA = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".tar": "tar"}
PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def local_table(path: Path, options: ReadOptions) -> Table:
    """Read a corpus on disk: a folder, or one file that is a table beside its audio or a dataset.

    Raises:
        RunError: it is neither, or cannot be used.
    """
    if path.is_dir():
        return Folder(path, options).table()
    folder = Folder(path.parent, options)
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", clean_name(path.stem))
    folder.name += "" if normal_name(stem) in ("metadata", "manifest", "data") else f"-{stem}"
    return folder.table_of_file(path.name)


class Folder:
    """A corpus in a folder, read by the first of these that is there.

    1. tables at its top that name audio files: metadata.csv before others, or one for each split
    2. tables further down, one in each of some folders, or one for each split
    3. parquet, arrow or tar files, at any depth
    4. audio files, at any depth: the folders on the way to them tell emotions and speakers
    """

    def __init__(self, path: Path, options: ReadOptions):
        self.path, self.options = path, options
        self.name = clean_name(path.resolve().name)
        self.locate = Locator(path, options.outside_files)
        self._saved: dict[str, set[str]] = {}  # folder -> files of the dataset that is saved in it

    def table(self) -> Table:
        """Return the table of its clips.

        Raises:
            RunError: nothing of these, several splits and none was chosen, or anything that cannot be used.
        """
        tables = Tables(self.name, self.locate, self.options)
        table = self._read(tables)
        if tables.unused:
            told = [listed(tables.unused, 5), table.reading.get("not used")]
            table.reading["not used"] = "; ".join(filter(None, told))
        return table

    def table_of_file(self, name: str) -> Table:
        """Return the table of the clips that one file at the top lists or holds. Raises as `table`."""
        tables = Tables(self.name, self.locate, self.options)
        tables.path(name)
        if suffix(name) in TABLES and not tables.holds_audio(name):
            return metadata_table(self.name, self.path, [tables.part(name)], self.options, self.options.split)
        if suffix(name) in DATA:
            return self._data_table(DATA[suffix(name)], {split_in(name) or "train": [name]})
        if suffix(name) in AUDIO_SUFFIXES:
            raise RunError(f"{shown(name)} is one recording: give the folder in which it lies")
        if suffix(name) in PACKED:
            raise RunError(f"{shown(name)} is packed: unpack it and give the folder")
        raise RunError(f"{shown(name)} is no folder, table ({listed(TABLES)}), arrow or tar file: give one of these")

    def _read(self, tables: Tables) -> Table:
        if self.options.config is None and (parts := tables.at_the_top(self._names_at_the_top())):
            return self._metadata(parts)
        names = list(walk(self.path, self.options.outside_files))
        if self.options.config is None and (parts := tables.further_down(names)):
            return self._metadata(parts)
        data = [name for name in names if suffix(name) in DATA and not tables.is_table(name)]
        if data or self.options.config is not None:
            return self._data(data)
        if any(suffix(name) in AUDIO_SUFFIXES for name in names):
            return tree_table(self.name, self.locate, names, self.options)
        if packed := [name for name in names if suffix(name) in PACKED]:
            raise RunError(f"{self.name} has nothing but packed files ({listed(packed, 3)}): unpack them")
        remedy = LABELLED if self.options.require_labels else "add a metadata.csv with the column file_name"
        raise RunError(f"{self.name} has neither a table nor audio, parquet, arrow or tar files: {remedy}")

    def _names_at_the_top(self) -> list[str]:
        try:
            return [name for name in sorted(os.listdir(self.path)) if os.path.isfile(self.path / name)]
        except OSError as error:
            raise RunError(f"{shown(str(self.path))} cannot be looked into ({error.strerror})") from error

    def _metadata(self, parts: Mapping[str, Part]) -> Table:
        if set(parts) == {""}:
            return metadata_table(self.name, self.path, [parts[""]], self.options, self.options.split)
        taken = chosen(self.name, parts, self.options.split)
        table = metadata_table(self.name, self.path, list(taken.values()), self.options)
        table.reading["split"] = listed(taken) + (f", of {listed(parts)}" if len(parts) > len(taken) else "")
        return table

    def _data(self, names: list[str]) -> Table:
        """Return the clips in files of data, of which these are there."""
        parts = configured_files(self.name, self.path, names, self.options.config)
        if parts is None:
            parts = defaultdict(list)
            for name in names:
                if self._is_saved(name):
                    parts[self._split(name)].append(name)
        taken = chosen(self.name, parts, self.options.split)
        kinds = {DATA[suffix(name)] for part in taken.values() for name in part}
        if not kinds:
            raise RunError(f"{self.name} has files of data, but its state.json names others: save the dataset again")
        if len(kinds) > 1:
            raise RunError(f"{self.name} has data in files of several kinds, {listed(sorted(kinds))}: keep one of them")
        return self._data_table(kinds.pop(), taken)

    def _data_table(self, kind: str, parts: Mapping[str, list[str]]) -> Table:
        paths = {name: self._path(name) for part in parts.values() for name in part}
        if kind == "tar":
            table = archive_table(self.name, paths, self.options)
            table.reading["split"] = listed(parts)
            return table
        from modeling_sere.training.corpora.dataset import files_table  # slow to import

        return files_table(self.name, kind, list(paths.values()), "+".join(parts), self.locate, self.options)

    def _path(self, name: str) -> Path:
        """Return the path of a file, which has to be a regular one in the folder."""
        locate_file(self.locate, name, "", lambda: self.name)
        return Path(self.locate.path(name))

    def _is_saved(self, name: str) -> bool:
        """Tell whether a file is of a dataset: in a folder that `save_to_disk` wrote others can lie about."""
        folder, base = posixpath.split(name)
        state = posixpath.join(folder, "state.json")
        if suffix(name) != ".arrow" or not (self.path / state).is_file():
            return True
        if folder not in self._saved:
            self._saved[folder] = _saved_files(self._path(state), f"{state} of {self.name}")
        return base in self._saved[folder]

    def _split(self, name: str) -> str:
        """Return the split of a file of data; of a saved `DatasetDict` the name of its folder."""
        above, folder = posixpath.split(posixpath.dirname(name))
        if folder and (self.path / above / "dataset_dict.json").is_file():
            return folder
        return split_in(name) or "train"


def _saved_files(state: Path, title: str) -> set[str]:
    """Return the files that the state of a saved dataset names."""
    try:
        return {str(file["filename"]) for file in parse_json(state.read_text(encoding="utf-8"))["_data_files"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{title} is not what `save_to_disk` writes: save the dataset again") from error

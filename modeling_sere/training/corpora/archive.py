"""Corpora in tar archives, as the library webdataset writes them.

The files of one clip share their path up to the first dot of its last part: 0001.flac, 0001.json, 0001.cls. `datasets`
could read them too, but copies all audio into its cache first, refuses archives whose first clips differ in what they
have, and unpacks strangers' tensors.
"""

import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from modeling_sere.audio_sere import AudioError
from modeling_sere.training.corpora.columns import Table, cell_text, columns_of_clips, find_column, told_columns
from modeling_sere.training.corpora.corpus import Recording
from modeling_sere.training.corpora.files import AUDIO_SUFFIXES, check_size, check_writable
from modeling_sere.training.corpora.names import clean_name, listed, number, shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.corpora.strict_json import parse_json
from modeling_sere.training.errors import RunError, first_line

MAX_TEXT_BYTES = 2**20  # of a file that is no audio
BLOCK = 512  # bytes; two of zeros end an archive


class _Sample(NamedTuple):
    """One clip of an archive: its audio files by their suffix, and what else is told of it."""

    archive: str  # relative to the folder of the corpus
    key: str
    audio: dict[str, tarfile.TarInfo]
    cells: dict[str, Any]


class _Members:
    """The audio of clips that are files in archives."""

    def __init__(self, members: list[tuple[Path, tarfile.TarInfo]]):
        self._members = members

    def recordings(self, indices: Iterable[int]) -> Iterator[Recording]:
        for index in indices:
            archive, member = self._members[index]
            yield Recording(member.name, partial(_read_member, archive, member), [index])


def _read_member(archive: Path, member: tarfile.TarInfo) -> bytes:
    check_size(member.size, member.name)
    try:
        with tarfile.open(archive, "r:") as tar:
            return tar.extractfile(member).read()
    except (tarfile.TarError, OSError) as error:
        raise AudioError(f"{member.name} of {archive.name} cannot be read ({first_line(error)})") from error


def archive_table(corpus: str, archives: Mapping[str, Path], options: ReadOptions) -> Table:
    """Read the clips of archives.

    Args:
        archives: {name relative to the folder of the corpus: path}.

    Raises:
        RunError: an archive that is damaged or compressed, or a file in it that cannot be used.
    """
    samples = [sample for name, path in archives.items() for sample in _samples(name, path, corpus)]
    columns = list(dict.fromkeys(column for sample in samples for column in sample.cells))
    title = f"{listed(archives, 3)} of {corpus}"
    if not samples:
        raise RunError(f"{title} has no audio files")
    used = columns_of_clips(title, columns, options.columns)
    members = [_audio(sample, options.columns.audio, title) for sample in samples]
    names = [
        member.name if len(archives) == 1 else f"{sample.archive}/{member.name}"
        for sample, member in zip(samples, members, strict=True)
    ]
    cells = [None if column is None else [cell_text(sample.cells.get(column)) for sample in samples] for column in used]
    reading = {"files": f"{number(len(members), 'audio file')} in {listed(archives, 3)}"} | told_columns(used)
    audio = _Members([(archives[sample.archive], member) for sample, member in zip(samples, members, strict=True)])
    return Table(title, corpus, columns, names, *cells, audio, reading)


def _audio(sample: _Sample, named: str | None, title: str) -> tarfile.TarInfo:
    suffix = next(iter(sample.audio)) if len(sample.audio) == 1 else find_column(title, list(sample.audio), named)
    if suffix is None:
        raise RunError(
            f"{title}: {shown(sample.key)} has several audio files, {listed(sample.audio)}: choose by --audio_column"
        )
    return sample.audio[suffix]


def _samples(name: str, path: Path, corpus: str) -> list[_Sample]:
    samples: dict[str, _Sample] = {}
    title = f"{shown(name)} of {corpus}"
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, base = posixpath.split(member.name)
                stem, dot, suffix = base.partition(".")
                if not member.isreg() or not stem or not dot:
                    continue  # folders, links, hidden files
                check_writable(member.name, title)
                key = clean_name(posixpath.join(folder, stem))  # its files may be spelled in different Unicode forms
                sample = samples.setdefault(key, _Sample(name, key, {}, {}))
                if posixpath.splitext(base)[1].lower() in AUDIO_SUFFIXES:
                    sample.audio[suffix] = member
                elif member.size <= MAX_TEXT_BYTES:
                    data = tar.extractfile(member).read()
                    sample.cells.update(_cells(suffix, data, f"{title}, {shown(member.name)}"))
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(BLOCK) != bytes(BLOCK):
                raise RunError(f"{title} ends without its end mark: it was cut short")
    except (tarfile.TarError, OSError, ValueError) as error:  # ValueError: numbers in a header that are none
        if isinstance(error, RunError):
            raise
        reason = f"({first_line(error)}): it is damaged or compressed"
        raise RunError(f"{title} cannot be read as a tar archive {reason}") from error
    return [sample for sample in samples.values() if sample.audio]


def _cells(suffix: str, data: bytes, where: str) -> dict[str, Any]:
    """Return what a file beside the audio tells: the entries of a JSON object, else its text under its suffix."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return {}  # tensors and the like
    if suffix.lower() != "json":
        return {clean_name(suffix): text}
    try:
        values = parse_json(text)
    except ValueError as error:
        raise RunError(f"{where}: not JSON ({error})") from error
    entries = values.items() if isinstance(values, dict) else ()
    return {clean_name(key): value for key, value in entries if not isinstance(value, (dict, list))}

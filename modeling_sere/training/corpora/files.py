"""Files of a corpus: found in its folder by the names that strangers give, and elsewhere only if that is allowed."""

import os
import posixpath
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from modeling_sere.audio_sere import AudioError
from modeling_sere.decoding_sere import check_regular
from modeling_sere.training.corpora.corpus import Recording
from modeling_sere.training.corpora.names import listed, normal_name, shown
from modeling_sere.training.corpora.segments import Span
from modeling_sere.training.errors import RunError

MAX_FILE_BYTES = 2**31  # a file is read whole
# what libsndfile reads, and what a program like FFmpeg does
AUDIO_SUFFIXES = frozenset(
    ".aif .aifc .aiff .au .caf .flac .mp3 .oga .ogg .opus .rf64 .snd .sph .voc .w64 .wav"
    " .3gp .aac .ac3 .amr .m4a .m4b .mka .mkv .mov .mp4 .mpeg .mpg .webm .wma".split()
)
OUTSIDE = "--outside_files"  # the flag that lets names lead out of the folder


def suffix(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot."""
    return posixpath.splitext(name)[1].lower()


def check_writable(name: str, title: str):
    """Pass if a file name can be written down. Raises RunError: its bytes are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise RunError(f"{title}: the file name {ascii(name)} is not in UTF-8: rename the file") from error


class OutsideError(ValueError):
    """A file name that leads out of its folder."""


class Locator:
    """Turns a file name given in metadata into a path below `folder`, or says why not.

    Args:
        outside: absolute paths, `..` and links may lead out of the folder.

    Attributes:
        root: the folder's real path. respelled: {name as given: name on disk}, of files that were found under another
            spelling: in another Unicode form, in other case, with backslashes between folders, or without a suffix.
    """

    def __init__(self, folder: Path, outside: bool = False):
        self.root, self.outside = os.path.realpath(folder), outside
        self.respelled: dict[str, str] = {}
        self._real_folders: dict[str, str] = {}  # many files share a folder, and resolving links is slow
        self._entries: dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}  # by folder

    def __call__(self, name: str) -> tuple[str, os.stat_result]:
        """Return the normalised name, relative to the folder where it is in it, and the file's status.

        Raises:
            OutsideError: the file is, by its name or through a symbolic link, outside the folder.
            OSError: the file does not exist or cannot be reached.
            ValueError: several files could be meant, or the name has a NUL character.
        """
        if not self.outside and (re.match(r"[\\/]|[A-Za-z]:", name) or ".." in re.split(r"[\\/]", name)):
            raise OutsideError(
                f"points outside the folder: give a name relative to it, without .., or allow it by {OUTSIDE}"
            )
        try:
            return self._located(posixpath.normpath(name))
        except (FileNotFoundError, NotADirectoryError):
            found = self._respelled(name)
            if found is None:
                raise
            located = self._located(found)
            self.respelled[name] = found
            return located

    def folders(self, inner: str) -> list[str]:
        """Return the folders in a folder, by their names relative to the root; links and hidden ones are left out."""
        return [posixpath.join(inner, name) for name in _contents(self.path(inner))[1]]

    def path(self, name: str) -> str:
        """Return the path of a file that has been located."""
        return os.path.join(self.root, name)

    def _located(self, name: str) -> tuple[str, os.stat_result]:
        parent = posixpath.dirname(name)
        if parent not in self._real_folders:
            self._real_folders[parent] = os.path.realpath(os.path.join(self.root, parent))
        path = os.path.join(self._real_folders[parent], posixpath.basename(name))
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(path)
            status = os.stat(path)
        if not self.outside and os.path.commonpath([self.root, path]) != self.root:
            raise OutsideError(
                f"is a symbolic link out of the folder: put the file itself there, or allow it by {OUTSIDE}"
            )
        return name, status

    def _respelled(self, name: str) -> str | None:
        """Return the one file whose name is the same to a reader, or is the same without a suffix; found folder by
        folder.
        """
        found = "/" if name.startswith("/") else ""
        *folders, last = posixpath.normpath(name.replace("\\", "/")).split("/")
        for part in folders:
            if part not in ("", "."):
                found = posixpath.join(found, part if part == ".." else self._alike(found, part) or part)
        entry = self._alike(found, last) or self._alike(found, last, stem=True)
        return None if entry is None else posixpath.join(found, entry)

    def _alike(self, folder: str, name: str, stem: bool = False) -> str | None:
        """Return the one entry of a folder with this normal name, or with this stem and the suffix of audio."""
        alike = self._listing(folder)[stem].get(normal_name(name), [])
        if name in alike:
            return name
        if len(alike) > 1:
            raise ValueError(f"could be {listed(alike)}: write it as the file is named")
        return alike[0] if alike else None

    def _listing(self, folder: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return names on disk by their normal name, and those of audio by their stem's."""
        if folder not in self._entries:
            names, stems = {}, {}
            try:
                for entry in sorted(os.listdir(os.path.join(self.root, folder))):
                    names.setdefault(normal_name(entry), []).append(entry)
                    if suffix(entry) in AUDIO_SUFFIXES:
                        stems.setdefault(normal_name(posixpath.splitext(entry)[0]), []).append(entry)
            except OSError:
                pass  # no folder that can be looked into
            self._entries[folder] = names, stems
        return self._entries[folder]


def locate_file(locate: Locator, name: str | None, base: str, where: Callable[[], str]) -> str:
    """Return the name of a regular file relative to the locator's folder, of a name relative to `base` in it.

    Raises:
        RunError: why it cannot be used, and `where` it is named.
    """
    if not name:
        raise RunError(f"{where()}: the file name is empty")
    try:
        found, status = locate(posixpath.join(base, name))
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        reason = "does not exist" if missing else f"cannot be reached ({error.strerror})"
        raise RunError(f"{where()}: {shown(name)} {reason}") from error
    except ValueError as error:
        raise RunError(f"{where()}: {shown(name)} {'does not exist' if chr(0) in name else error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"{where()}: {shown(name)} is not a file")
    return found


def walk(folder: Path, outside: bool = False) -> Iterator[str]:
    """Give the names, relative to a folder, of all that is in it and no folder itself; hidden ones are left out.

    Names come sorted, folder by folder. A link to a folder is followed at the end, if nothing else has led there.

    Raises:
        RunError: a link to a folder outside, or a folder that may not be looked into.
    """
    locate = Locator(folder, outside)
    title, seen, waiting, links = os.path.basename(locate.root), set(), [""], deque()
    while waiting or links:
        inner = waiting.pop() if waiting else links.popleft()
        try:
            locate(inner)
            files, folders, linked = _contents(locate.path(inner))
        except OutsideError as error:
            raise RunError(f"{title}: {shown(inner)} {error}") from error
        except OSError as error:
            raise RunError(f"{title}: {shown(inner or title)} cannot be looked into ({error.strerror})") from error
        if (real := os.path.realpath(locate.path(inner))) not in seen:
            seen.add(real)
            yield from (posixpath.join(inner, name) for name in files)
            waiting += [posixpath.join(inner, name) for name in reversed(folders)]
            links += [posixpath.join(inner, name) for name in linked]


def _contents(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Return what is in a folder and not hidden, sorted: files, folders, and links to folders."""
    files, folders, links = [], [], []
    with os.scandir(folder) as scan:
        for entry in sorted(scan, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_symlink():
                (links if os.path.isdir(entry.path) else files).append(entry.name)
            else:
                (folders if entry.is_dir() else files).append(entry.name)
    return files, folders, links


def check_size(size: int, name: str):
    """Pass if a file of this many bytes can be read whole. Raises AudioError: it is too large."""
    if size > MAX_FILE_BYTES:
        raise AudioError(
            f"{name} has {size / 2**30:.1f} GB, more than the {MAX_FILE_BYTES / 2**30:.0f} GB that are read:"
            " cut it into shorter files"
        )


def read_bytes(path: str, name: str) -> bytes:
    """Return the content of a file. Raises AudioError: it is missing, forbidden, too large, or the disk fails there.

    A disk that fails everywhere makes so many clips unusable that the run stops.
    """
    try:
        check_regular(path, name)
        with open(path, "rb") as file:
            check_size(os.fstat(file.fileno()).st_size, name)
            return file.read()
    except OSError as error:
        raise AudioError(f"{name} cannot be read ({error.strerror or error})") from error


class Files:
    """The audio of clips that are files, or parts of files.

    Args:
        files: where each clip is, as `locate` gives it. spans: which part of it, None for all of it; None if all clips
            are whole files.
    """

    def __init__(self, locate: Locator, files: list[str], spans: list[Span | None] | None = None):
        self._locate, self._files, self._spans = locate, files, spans

    def recordings(self, indices: Iterable[int]) -> Iterator[Recording]:
        if self._spans is None:
            for index in indices:
                yield self._recording(self._files[index], [index])
            return
        of_file: dict[str, list[int]] = {}
        for index in indices:
            of_file.setdefault(self._files[index], []).append(index)
        for file, own in of_file.items():
            for index in own:
                if self._spans[index] is None:
                    yield self._recording(file, [index])
            if cut := [index for index in own if self._spans[index] is not None]:
                yield self._recording(file, cut, [self._spans[index] for index in cut])

    def _recording(self, file: str, indices: list[int], spans: list[Span] | None = None) -> Recording:
        return Recording(file, partial(read_bytes, self._locate.path(file), file), indices, spans)

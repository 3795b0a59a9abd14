"""The output folder of a run: it appears only when everything in it is whole."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.names import listed
from modeling_sere.training.errors import RunError, writing
from modeling_sere.training.refining.checkpoint import is_of_checkpoint
from modeling_sere.training.running import identity
from modeling_sere.training.running.lock import FolderLock, InUseError
from modeling_sere.training.running.marker import (
    HALF_MARKER,
    MARKER,
    Marker,
    entries,
    file_digest,
    foreign,
    prune,
    read_marker,
    remove,
)  # fmt: skip

logger = logging.getLogger("sere")

PARTIAL = ".partial"
ROOM = "free some space or give another --output_dir"
PACKAGE = Path(__file__).parents[2]  # its files travel with the model
OLD_RUN, OLD_STATE = "results.json", "run_state.json"  # by which earlier versions knew their folders
# what a run writes beside the code of the model; sere/ is TensorBoard's
RESULT = re.compile(
    r"README\.md|results\.json|predictions\.csv|config\.json|preprocessor_config\.json|plots/\w+\.png"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|sere/([\w.]+/)?(events\.out\.tfevents\..*|hparams\.yml)"
)


def is_of_result(name: str) -> bool:
    """Tell whether a run may have written a file of this name, relative to its result."""
    return RESULT.fullmatch(name) is not None or (name.endswith(".py") and (PACKAGE / name).is_file())


class OutputFolder:
    """An output directory that appears only when everything in it is whole.

    Work goes on in `<output_dir>.partial`; its folder `result` takes the name of the output directory at the end, and
    the rest goes when the run is over. `--resume` goes on with an unfinished run, wherever it was killed. A marker lies
    in both: a folder without it is left alone, and so is each file that the run it tells of has not written. While the
    block of this context manager runs, no other run can use the directory.

    Attributes:
        final: the output directory. result: where it is made. checkpoint: where refining keeps its state.
        published: whether the run that is resumed had come to its end, so that nothing is left to compute.
    """

    def __init__(self, arguments: SereArguments):
        self.resume, self.overwrite = arguments.resume, arguments.overwrite_output_dir
        self.identity: dict[str, Any] = {"arguments": identity.of_arguments(arguments)}
        self.published = False
        self._named = arguments.output_dir is not None
        self._use(Path(arguments.output_dir) if self._named else Path("out", _free_name(arguments)))

    def _use(self, final: Path):
        try:
            self.final = final.expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, no such user, a NUL character
            raise RunError(f"--output_dir {str(final)!r} cannot be used ({error}): give another one.") from error
        self.partial = self.final.parent / (self.final.name + PARTIAL)
        self.result, self.checkpoint, self.replaced = (
            self.partial / name for name in ("result", "checkpoint", "replaced")
        )
        self.lock = FolderLock(self.final)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lock.release()

    def claim(self) -> None:
        """Lock the directory and look at what is there. Without `--output_dir` the first free name is taken.

        Raises:
            RunError: the directory cannot be used, is in use, holds another run or other files, or has an unfinished
                run beside it that is not to be resumed or was made with other arguments.
        """
        if self.final.name.endswith(PARTIAL):
            raise RunError(f"{self.final} is where an unfinished run would lie: give another --output_dir.")
        with writing(str(self.final), ROOM):
            if self.final.is_file() or self.final.is_mount():
                raise RunError(f"{self.final} is a file or a mounted disk: give a new folder as --output_dir.")
            if self._named or self.overwrite:
                self.lock.acquire()
                self._check()
                return
            first, number = self.final, 1
            while (reason := self._not_free()) is not None:
                logger.info("%s: this run takes another name.", reason)
                self.lock.release()
                number += 1
                self._use(first.with_name(f"{first.name}-{number}"))

    def follow(self, final: Path, published: bool) -> None:
        """Take over what `claim` has found in another process."""
        if final != self.final:
            self._use(final)
        self.published = published

    def _not_free(self) -> str | None:
        """Return why a name without `--output_dir` is not taken; None, and locked, if it is.

        Raises:
            RunError: there is an unfinished run of this very command, and it is not to be resumed.
        """
        try:
            self.lock.acquire()
        except InUseError as error:
            return str(error).partition(":")[0]
        begun = _marker_or_none(self.partial)
        if self._is_this_run(begun) or (
            self.resume and begun is None and self._is_this_run(_marker_or_none(self.final))
        ):
            self._check()
            return None
        if _holds_something(self.final) or _holds_something(self.partial):
            return self._told_of_finished()
        return None

    def _is_this_run(self, marker: Marker | None) -> bool:
        return marker is not None and not identity.differences(marker.identity, self.identity)

    def _check(self):
        """Look at the directory and at what lies beside it. Raises as `claim`."""
        self._check_final()
        marker = read_marker(self.partial)
        if marker is None:
            if _holds_something(self.partial):
                raise RunError(_not_ours(self.partial, OLD_STATE))
            return
        if self.published:
            return
        if self.resume:
            if others := identity.differences(marker.identity, self.identity):
                raise RunError(
                    f"{self.partial} was made with other {', '.join(others)}: resume with those, or delete it."
                )
        elif not self.overwrite:
            raise RunError(f"{self.partial} is an unfinished run: add --resume to go on with it, or delete it.")
        elif others := self._unknown():
            raise RunError(f"{self.partial} holds files that no run writes ({listed(others, 5)}): move them away.")

    def _check_final(self):
        """Pass if the directory is free, or is a run that this one may replace. Raises as `claim`."""
        marker = read_marker(self.final)
        if marker is None:
            if _holds_something(self.final):
                raise RunError(_not_ours(self.final, OLD_RUN))
            return
        begun = _marker_or_none(self.partial)
        # a run that is being replaced lies there until the new one is whole
        working = self.result.exists() or (begun is not None and begun.emptying)
        self.published = self.resume and not working and self._is_this_run(marker)
        if self.published:
            return
        if not self.overwrite:
            told = self._told_of_finished()
            raise RunError(f"{told}: give another --output_dir, or --overwrite_output_dir to replace it.")
        if others := foreign(self.final, marker.files):
            raise RunError(_changed(self.final, others))

    def _told_of_finished(self) -> str:
        """Return what the directory holds."""
        marker = _marker_or_none(self.final)
        if marker is None:
            return f"{self.final} is not free"
        others = identity.differences(marker.identity, self.identity)
        score = _score(self.final)
        return f"{self.final} already holds a run {f'of other {others[0]}' if others else 'of this command'}{score}"

    def open(self, data: dict[str, Any] | None = None) -> None:
        """Create the working folder; a run that is not resumed starts empty.

        Args:
            data: what `running.identity` tells of the clips and the model, known only now.

        Raises:
            RunError: not writable, or the run to be resumed had other clips or another model.
        """
        self.identity |= data or {}
        marker = read_marker(self.partial)
        if self.resume and marker is not None:
            if others := identity.differences(marker.identity, self.identity):
                raise RunError(
                    f"{self.partial} was made with other {', '.join(others)}: resume with those, or delete it and begin"
                    " anew."
                )
        with writing(str(self.partial), ROOM):
            if marker is not None and (marker.emptying or not self.resume):
                Marker(self.identity, emptying=True).write(self.partial)
                self._empty()
            self.result.mkdir(parents=True, exist_ok=True)  # before the marker: `_check_final` goes by it
            Marker(self.identity).write(self.partial)

    def publish(self) -> None:
        """Let the result appear under its own name. The run it replaces, if any, goes with `close`.

        Raises:
            RunError: the directory is not as it was found when this run began; the result stays where it was made.
        """
        names = [name for name in entries(self.result) if is_of_result(name)]
        Marker(self.identity, {name: file_digest(self.result / name) for name in names}).write(self.result)
        try:
            self._check_final()
            if read_marker(self.final) is not None:
                self._remove_replaced()
                self.final.rename(self.replaced)
                if others := foreign(self.replaced, read_marker(self.replaced).files):
                    self.replaced.rename(self.final)
                    raise RunError(_changed(self.final, others))
            elif self.final.exists():
                self.final.rmdir()
            self.result.rename(self.final)
        except RunError as error:
            raise RunError(f"The result is whole in {self.result}, and stays there: {error}") from error

    def close(self) -> None:
        """Drop what only a resume needs, the marker last; files that no run writes stay."""
        if read_marker(self.partial) is not None:
            self._empty()
        elif _holds_something(self.partial):
            return  # of somebody else, and come meanwhile
        others = self._unknown()
        (self.partial / MARKER).unlink(missing_ok=True)
        (self.partial / HALF_MARKER).unlink(missing_ok=True)
        prune(self.partial)
        if others:
            logger.warning("%s stays, as it holds files that no run writes: %s.", self.partial, listed(others, 5))

    def _unknown(self) -> list[str]:
        """Return what is in the working folder and no run writes."""
        known = dict(self._known())
        return [name for name in entries(self.partial) if not self._is_known(name, known)]

    def _is_known(self, name: str, known: dict[str, Callable[[str], bool]]) -> bool:
        folder, _, rest = name.partition("/")
        return name in (MARKER, HALF_MARKER) or (folder in known and (name.endswith("/") or known[folder](rest)))

    def _known(self) -> Iterator[tuple[str, Callable[[str], bool]]]:
        """Yield the folders in the working folder, and what tells whether a run has written a file in them."""
        marker = _marker_or_none(self.replaced)
        replaced = {} if marker is None else marker.files
        own = {MARKER, HALF_MARKER}
        yield self.result.name, lambda name: name in own or is_of_result(name)
        yield self.checkpoint.name, is_of_checkpoint
        yield self.replaced.name, lambda name: name in own or (
            name in replaced and file_digest(self.replaced / name) == replaced[name]
        )  # fmt: skip

    def _empty(self):
        """Remove what runs have written into the working folder, but for its marker."""
        self._remove_replaced()
        known = dict(self._known())
        remove(self.partial, [name for name in entries(self.partial) if "/" in name and self._is_known(name, known)])
        for folder in known:
            prune(self.partial / folder)

    def _remove_replaced(self):
        """Remove the run that was replaced, its marker last."""
        marker = _marker_or_none(self.replaced)
        if marker is not None:
            others = foreign(self.replaced, marker.files)
            remove(self.replaced, [name for name in entries(self.replaced) if name in marker.files.keys() - {*others}])
            (self.replaced / MARKER).unlink()
        prune(self.replaced)


def _free_name(arguments: SereArguments) -> str:
    """Return a name for the folder, from those of the corpora: "english-polish"."""
    parts = (*(arguments.source or [arguments.model]), arguments.target)
    return "-".join(_slug(part) for part in parts)


def _slug(address: str) -> str:
    name = re.split(r"[/\\]", address.rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]+", "-", re.sub(r"\.\w+$", "", name)).strip("-.") or "corpus"


def _holds_something(folder: Path) -> bool:
    """Tell whether anything lies there, beside what is left where a run was killed before its marker was whole."""
    if folder.is_symlink() or not folder.is_dir():
        return folder.is_symlink() or folder.exists()
    return any(name not in (HALF_MARKER, "result/") for name in entries(folder))


def _marker_or_none(folder: Path) -> Marker | None:
    try:
        return read_marker(folder)
    except RunError:
        return None


def _not_ours(folder: Path, old: str) -> str:
    if (folder / old).is_file():
        return (
            f"{folder} has no {MARKER}, so it may be a run of an earlier version or of another program, and is not"
            " touched: give another --output_dir, or move it away."
        )
    return f"{folder} holds files that are not of a run, and is not touched: give another --output_dir."


def _changed(folder: Path, others: list[str]) -> str:
    return (
        f"{folder} holds files that its run did not write, or that were changed since ({listed(others, 5)}), and is not"
        " replaced: move them away, or give another --output_dir."
    )


def _score(folder: Path) -> str:
    """Return what results.json tells in a few words, if it can be read: this is no reason to end."""
    try:
        uar = json.loads((folder / OLD_RUN).read_text(encoding="utf-8")).get("uar")
        return "" if uar is None else f" ({100 * uar:.1f} % UAR)"
    except (OSError, ValueError, AttributeError, TypeError):
        return ""

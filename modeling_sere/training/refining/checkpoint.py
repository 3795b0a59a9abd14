"""Checkpoints of refining: a run that was killed at any moment goes on from the last one that is whole."""

import hashlib
import json
import logging
import os
import re
from pathlib import Path

from accelerate import Accelerator

from modeling_sere.training.errors import RunError, first_line, writing

logger = logging.getLogger(__name__)

DIGESTS, PARTIAL = "digests.json", "partial"
# what accelerate writes: weights, states of the optimizer and of random generators, and the parts of FSDP
FILES = re.compile(
    rf"(\d+|{PARTIAL})/({DIGESTS}|(pytorch_)?model(_\d+)?(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
    r"|(optimizer|scheduler|sampler|scaler|random_states|dl_state_dict|custom_checkpoint)(_\d+)?\.(bin|pkl|pt)"
    r"|(pytorch_model_fsdp|optimizer)_\d+/(__\d+_\d+\.distcp|\.metadata))"
)


class Checkpoints:
    """A folder with the state of one step, in a subfolder of that number.

    A checkpoint is written under another name and renamed when it is whole, and the one before it stays until then. The
    digests of its files lie in it: one that has been damaged since is not read.
    """

    def __init__(self, folder: Path, accelerator: Accelerator):
        self.folder, self.accelerator = folder, accelerator

    def save(self, step: int) -> None:
        """Keep the state before `step`, of all processes. Raises RunError: the disk is full."""
        partial, main = self.folder / PARTIAL, self.accelerator.is_main_process
        with writing(f"The checkpoint of step {step} in {self.folder}", "free some space, then add --resume"):
            if main:
                _remove(partial)
            self.accelerator.wait_for_everyone()
            self._save_state(partial)
            self.accelerator.wait_for_everyone()
            if main:
                (partial / DIGESTS).write_text(json.dumps(_digests(partial)))
                earlier = self._steps()
                _remove(self.folder / str(step))  # a damaged one, taken again
                partial.rename(self.folder / str(step))
                for other in set(earlier) - {step}:
                    _remove(self.folder / str(other))

    def restore(self) -> int:
        """Load the newest state that is whole; return the step to go on with, 0 if there is none.

        Raises:
            RunError: a state that is whole and still cannot be loaded, as of another version of torch.
        """
        for step in self._steps():
            folder = self.folder / str(step)
            if _is_whole(folder):
                try:
                    self.accelerator.load_state(str(folder))
                except Exception as error:  # whatever is in there; half of it may be loaded, so no other one will do
                    reason = first_line(error) or type(error).__name__
                    raise RunError(f"The checkpoint {folder} cannot be loaded ({reason}): delete it.") from error
                return step
            logger.warning("The checkpoint of step %d is damaged and not used.", step)
        return 0

    def _steps(self) -> list[int]:
        """Newest first."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _save_state(self, folder: Path):
        try:
            self.accelerator.save_state(str(folder))
        except RuntimeError as error:  # what torch.save raises when the disk is full
            raise OSError(first_line(error)) from error


def is_of_checkpoint(name: str) -> bool:
    """Tell whether a file of this name, relative to the folder of all checkpoints, is one of theirs."""
    return FILES.fullmatch(name) is not None


def _remove(folder: Path):
    """Remove a checkpoint, and nothing else that may lie in its folder."""
    for root, _, files in os.walk(folder, topdown=False):
        for path in (Path(root, name) for name in files):
            if is_of_checkpoint(path.relative_to(folder.parent).as_posix()):
                path.unlink()
        if not os.listdir(root):
            os.rmdir(root)


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS)
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in files}


def _file_digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        return json.loads((folder / DIGESTS).read_text()) == _digests(folder)
    except (OSError, ValueError, RecursionError):
        return False

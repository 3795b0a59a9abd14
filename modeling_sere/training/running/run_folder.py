"""The output folder of a run: it appears only when everything in it is whole."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError, writing

STATE, HALF_STATE = "run_state.json", "run_state.json.partial"
# what a resumed run may change without becoming another run
FREE = (
    "resume", "overwrite_output_dir", "report_to", "output_dir", "cache_dir",
    "push_to_hub", "hub_model_id", "hub_private", "hub_revision_tag",
)  # fmt: skip


class OutputFolder:
    """An output directory that appears only when everything in it is whole.

    Work goes on in `<output_dir>.partial`; its folder `result` takes the name of the output directory at the end, and
    the rest goes when the run is over. `--resume` goes on with an unfinished run, wherever it was killed. Only a
    finished run is ever replaced: a folder of other files stays even if it is to be overwritten.

    Attributes:
        final: the output directory. result: where it is made. checkpoint: where refining keeps its state.
        published: whether the run that is resumed was killed after `publish`, so that nothing is left to compute.

    Raises:
        RunError: the folder cannot be used, holds another run or other files, or has an unfinished run beside it that
            is not to be resumed or was made with other arguments.
    """

    def __init__(self, arguments: SereArguments):
        self.final = Path(arguments.output_dir).expanduser().resolve()
        self.partial = self.final.parent / f"{self.final.name}.partial"
        self.result, self.checkpoint = self.partial / "result", self.partial / "checkpoint"
        self.resume = arguments.resume
        self.identity = {key: value for key, value in asdict(arguments).items() if key not in FREE}
        at_its_end = self._state() is not None and not self.result.exists() and self._is_run(self.final)
        self.published = self.resume and at_its_end
        self._check(arguments.overwrite_output_dir)

    def _check(self, overwrite: bool):
        if self.final.is_file() or self.final.is_mount():
            raise RunError(f"{self.final} is a file or a mounted disk: give a new folder as --output_dir.")
        if self._is_run(self.final) and not overwrite and not self.published:
            raise RunError(f"{self.final} already holds a run: give another --output_dir, or --overwrite_output_dir.")
        if self.final.is_dir() and any(self.final.iterdir()) and not self._is_run(self.final):
            raise RunError(f"{self.final} holds files that are not of a run: give another --output_dir.")
        if self._is_begun() and not self.resume and not overwrite:
            raise RunError(f"{self.partial} is an unfinished run: add --resume to go on with it, or delete it.")
        if self._is_begun() and self.resume and self._state() != self.identity:
            raise RunError(f"{self.partial} was made with other arguments: resume with those, or delete it.")

    def _is_run(self, folder: Path) -> bool:
        return (folder / "results.json").is_file()

    def _is_begun(self) -> bool:
        """Not if it was killed on its first step, or while it was being emptied: `open` writes the state last."""
        known = {self.result.name, self.checkpoint.name, HALF_STATE}
        return self.partial.exists() and not {path.name for path in self.partial.iterdir()} <= known

    def _state(self) -> dict | None:
        try:
            return json.loads((self.partial / STATE).read_text())
        except (OSError, ValueError):
            return None

    def open(self):
        """Create the working folder; a run that is not resumed starts empty. Raises RunError: not writable."""
        with writing(str(self.partial), "free some space or give another --output_dir"):
            if self.partial.exists() and not (self.resume and self._is_begun()):
                (self.partial / STATE).unlink(missing_ok=True)
                shutil.rmtree(self.partial)
            self.result.mkdir(parents=True, exist_ok=True)
            (self.partial / HALF_STATE).write_text(json.dumps(self.identity, indent=1))
            (self.partial / HALF_STATE).replace(self.partial / STATE)

    def publish(self):
        """Let the result appear under its own name. The run it replaces, if any, goes with `close`."""
        if self._is_run(self.final):
            self.final.rename(self.partial / "replaced")
        elif self.final.exists():
            self.final.rmdir()
        self.result.rename(self.final)

    def close(self):
        """Drop what only a resume needs, the state last."""
        for path in self.partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        shutil.rmtree(self.partial)

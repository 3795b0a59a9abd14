"""Runs of train_sere.py on a disk that is full or fails, or without memory: at whatever they read, write or compute.

    python -m reliability.disk

Each run is to replace an earlier one. It has files of limited size (RLIMIT_FSIZE), or its output and cache lie in a
small file system in memory, which only an administrator can mount. Or an error is injected where it reads, encodes,
organises, trains or writes: a disk that fails (EIO), a quota, a disk that has become read-only, an allocation that
fails. It must end in one sentence and leave the earlier result as it was; the same command with --resume, and nothing
in its way, must then give what a run without limits gives.
"""

import argparse
import errno
import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from tqdm.auto import tqdm

import train_sere
from modeling_sere.modeling_sere import SereForAudioClassification, SereModel
from modeling_sere.training.corpora import files
from modeling_sere.training.encoding.cache import FeatureCache
from modeling_sere.training.organising.adaptation import Adaptation
from reliability.outcomes import Outcomes
from testing import forked, runs

COMMON = {"draws": 1, "report_to": "none"}
TRAINING = {"refine_steps": 60, "batch_size": 2, "train_encoder": "full", "learning_rate": 1e-4}
# stage -> bytes that are too few, or just enough, for one of its files; and for all of them together
FILE_SIZES = {
    "caching": (100, 1_000, 50_000),
    "checkpointing": (1_000, 20_000, 400_000),
    "saving": (100, 500, 2_000, 6_000, 10_000, 20_000, 40_000),
}
DISK_SIZES = {
    "caching": (16_384, 65_536, 131_072),
    "checkpointing": (65_536, 262_144, 655_360),
    "saving": (16_384, 49_152, 98_304, 163_840, 229_376, 294_912),
}
ALLOCATION = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
ERRORS = {
    **{name: OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in ("EIO", "EDQUOT", "EROFS")},
    "no memory": MemoryError(),
    "no memory for torch": RuntimeError(ALLOCATION),
}
# where errors are injected: owner, and the name of what raises there, of which some call is the one that fails
PLACES = {
    "reading": (files, "read_bytes"),
    "encoding": (SereModel, "pool"),
    "caching": (FeatureCache, "add"),
    "rereading": (FeatureCache, "read"),
    "organising": (Adaptation, "organise"),
    "checkpointing": (Accelerator, "save_state"),
    "saving weights": (SereForAudioClassification, "save_pretrained"),
    "saving the card": (train_sere, "write_card"),
    "saving results": (train_sere, "save_results"),
    "making folders": (Path, "mkdir"),
    "renaming": (Path, "rename"),
    "marking": (Path, "replace"),
}


class Fault:
    """Makes the last part of a call fail, in the process that is about to start.

    Args:
        place: of PLACES. error: what is raised. call: which call is the first that fails; all after it do too.
    """

    def __init__(self, place: str, error: BaseException, call: int = 0):
        self.place, self.error, self.left = place, error, call

    def __call__(self):
        owner, name = PLACES[self.place]
        original = getattr(owner, name)

        def failing(*given, **options):
            self.left -= 1
            if self.left < 0:
                raise self.error
            return original(*given, **options)

        setattr(owner, name, failing)


def small_files(size: int):
    """Limit the size of files that this process may write; the soft limit is anybody's to set."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a file system in memory on a folder while the block runs; False if we may not mount."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def digests(folder: Path) -> dict[str, str]:
    """Return the bytes of all files in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Trial:
    """Runs of one stage: an earlier result, a cache that is filled but for the first stage, and a whole run.

    Args:
        stage: "caching", "checkpointing" or "saving". options: flags of its runs.
    """

    def __init__(self, root: Path, stage: str, options: dict):
        root.mkdir()
        self.root, self.stage, self.options = root, stage, COMMON | options
        self.variables = runs.environment(root / "hf")
        self.cache, self.earlier, self.whole = (root / name for name in ("cache", "earlier", "whole"))
        for seed, folder in ((1, self.earlier), (0, self.whole)):
            self._must(self.run(folder, self.cache, seed=seed))

    def _must(self, run: runs.Ended):
        if run.status:
            raise SystemExit(f"a run with enough room failed: {run.last_line}")

    def run(self, out: Path, cache: Path, *switches: str, before=None, **options) -> runs.Ended:
        flags = self.options | options | {"output_dir": out, "cache_dir": cache}
        finished = forked.finished if isinstance(before, Fault) else runs.finished  # faults need this process' modules
        return finished(runs.command(*switches, **flags), self.variables, before)

    def failures(self, out: Path, cache: Path, before=None, disk: Path | None = None) -> list[str]:
        """Return what is wrong with a run without room and with the same run with room. `disk`: what becomes larger."""
        shutil.copytree(self.earlier, out)
        if self.stage != "caching":
            shutil.copytree(self.cache, cache)
        run = self.run(out, cache, "--overwrite_output_dir", before=before)
        if run.status == 0:
            return runs.differences(out, self.whole)
        found = runs.one_sentence(run)
        if digests(out) != digests(self.earlier):
            found.append(f"the earlier result has changed, after: {run.last_line}")
        if disk is not None:
            subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        resumed = self.run(out, cache, "--overwrite_output_dir", "--resume")
        if resumed.status:
            return [*found, f"not resumed: {resumed.last_line}"]
        return found + runs.differences(out, self.whole)


def measure(
    root: Path, stages: dict[str, dict], file_sizes=FILE_SIZES, disk_sizes=DISK_SIZES, faults=(), trained=None
) -> Outcomes:
    """Try all sizes in each of `stages`, {name: flags of the runs}, and `faults` in runs of the first of them.

    Args:
        trained: stage for faults while training, by default none.
    """
    outcomes = Outcomes()
    trials = {stage: Trial(root / stage, stage, options) for stage, options in stages.items()}
    cases = [(trials[stage], size, False) for stage in stages for size in file_sizes.get(stage, ())]
    cases += [(trials[stage], size, True) for stage in stages for size in disk_sizes.get(stage, ())]
    for number, (trial, size, disk) in enumerate(tqdm(cases, desc="Disks", unit="run")):
        place = trial.root / str(number)
        if disk:
            with small_disk(place, 100_000_000) as mounted:
                if not mounted:
                    print("small disks: left out, as we may not mount a file system")
                    break
                found = trial.failures(place / "out", place / "cache", before=Resize(place, size), disk=place)
        else:
            place.mkdir()
            found = trial.failures(place / "out", place / "cache", before=lambda size=size: small_files(size))
        kind = "small disk" if disk else "small files"
        outcomes.add(f"{trial.stage}, {kind}", [f"{size} bytes: {failure}" for failure in found])
    for number, (place, name, call) in enumerate(tqdm(faults, desc="Faults", unit="run")):
        trial = trials[trained] if place == "checkpointing" else next(iter(trials.values()))
        folder = trial.root / f"fault {number}"
        folder.mkdir()
        found = trial.failures(folder / "out", folder / "cache", before=Fault(place, ERRORS[name], call))
        outcomes.add(f"{place}, {name}", [f"call {call}: {failure}" for failure in found])
    return outcomes


class Resize:
    """Leaves, in the process that is about to start, so many bytes on a small disk beside what is there."""

    def __init__(self, disk: Path, free: int):
        self.disk, self.free = disk, free

    def __call__(self):
        usage = shutil.disk_usage(self.disk)
        size = usage.used + self.free
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.disk)], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        encoder = runs.tiny_encoder(Path(name) / "encoder")
        stages = {"caching": {}, "checkpointing": TRAINING | {"encoder": encoder}, "saving": {}}
        faults = [(place, error, call) for place in PLACES for error in ERRORS for call in (0, 1, 3)]
        measure(Path(name), stages, faults=faults, trained="checkpointing").close()


if __name__ == "__main__":
    main()

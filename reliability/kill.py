"""Runs of train_sere.py killed at random moments, and the same command once more with --resume.

    python -m reliability.kill

One run adapts from English to Polish on samples/ with gradient steps and pushes to a Hub on loopback. It is killed
(SIGKILL) in turn while it encodes, organises, trains, saves and pushes, at a moment that follows from --seed; then the
same command with --resume must finish. Its results must be those of the run that was never killed, and what lies on the
Hub must be what lies in the output folder. Every second kill is of a run that trains a tiny encoder.
"""

import argparse
import itertools
import random
import subprocess
import tempfile
import time
from pathlib import Path

from tqdm.auto import tqdm

from modeling_sere.published_sere import published
from modeling_sere.training.running.marker import MARKER
from reliability.outcomes import Outcomes
from testing.hub_server import HubServer
from testing.runs import command, differences, environment, tiny_encoder

GLANCE = 0.005  # seconds between two looks at what a run does
TOKEN, REPOSITORY, TAG = "hf_kill", "org/killed", "v1"
PHASES = ("encoding", "organising", "training", "training with a checkpoint", "saving", "pushing")
TRAINING = {
    "none": {"refine_steps": 120, "batch_size": 8},
    "encoder": {"refine_steps": 120, "batch_size": 2, "train_encoder": "full", "learning_rate": 1e-4},
}


class Place:
    """Folders and a Hub of one run: nothing in it is shared with another."""

    def __init__(self, root: Path, hub: HubServer, options: dict):
        root.mkdir()
        self.root, self.hub, self.out = root, hub, root / "out"
        self.options = {"draws": 1, "report_to": "none"} | options | {
            "output_dir": self.out, "cache_dir": root / "cache", "hub_model_id": REPOSITORY, "hub_revision_tag": TAG,
        }  # fmt: skip
        self.variables = environment(root / "hf") | hub.environment(root / "hf", TOKEN, OMP_NUM_THREADS="1")
        self.variables["HF_HUB_OFFLINE"] = "0"

    def start(self, *switches: str) -> subprocess.Popen:
        """Begin the run."""
        with open(self.root / "stderr", "w") as stderr:
            words = command("--push_to_hub", *switches, **self.options)
            return subprocess.Popen(words, env=self.variables, stdout=subprocess.DEVNULL, stderr=stderr)

    def said(self) -> str:
        """Return what the run has said on stderr."""
        return (self.root / "stderr").read_text()

    def phase(self) -> str:
        """Return what the run that goes on here does, told by what it has left on the disk."""
        if (self.out / "results.json").is_file():
            return "pushing" if (self.root / "out.partial").exists() else "over"
        if (self.root / "out.partial" / "result" / "preprocessor_config.json").is_file():
            return "saving"
        if any((self.root / "out.partial" / "checkpoint").glob("[0-9]*")):
            return "training with a checkpoint"
        if (self.root / "out.partial" / MARKER).is_file():
            return "training"
        if len(list(self.root.glob("cache/*/*.npy"))) == 2:  # of the source and of the target
            return "organising"
        return "encoding" if "Encoding" in self.said() else "starting"

    def durations(self) -> dict[str, float]:
        """Return seconds of each phase of an uninterrupted run."""
        process, began = self.start(), {}
        while process.poll() is None:
            began.setdefault(self.phase(), time.monotonic())
            time.sleep(GLANCE)
        if process.wait():
            raise SystemExit(f"the uninterrupted run failed: {self.said()[-2000:]}")
        began.setdefault("over", time.monotonic())
        moments = [began[phase] for phase in (*PHASES, "over")]
        return dict(zip(PHASES, (after - before for before, after in itertools.pairwise(moments)), strict=True))

    def kill(self, phase: str, delay: float) -> str:
        """Start the run and kill it so many seconds after a phase began. The phase it died in."""
        process = self.start()
        while process.poll() is None and self.phase() != phase:
            time.sleep(GLANCE)
        time.sleep(delay)
        process.kill()
        process.wait()
        return self.phase()

    def failures(self, whole: "Place") -> list[str]:
        """Return what is wrong after a run was killed here and resumed."""
        if self.start("--resume").wait():
            return [f"not resumed: {self.said().splitlines()[-1]}"]
        found = differences(self.out, whole.out)
        if [path.name for path in self.root.glob("out*")] != ["out"]:
            found.append("something is left beside the output folder")
        repository = self.hub.repository(REPOSITORY)
        if repository.tags.get(TAG) != repository.branches["main"]:
            found.append("the tag is not on the commit")
        ours = published(self.out)
        there = self.hub.files(REPOSITORY)
        if there.keys() - {".gitattributes"} != ours.keys():
            found.append("the Hub has other files than the output folder")
        elif there["model.safetensors"] != ours["model.safetensors"].read_bytes():
            found.append("the Hub has other weights than the output folder")
        return found


def measure(root: Path, kills: int, seed: int, kinds: dict[str, dict], phases=PHASES) -> Outcomes:
    """Kill and resume `kills` runs in turn in each of `phases`; `kinds`: name -> flags of the runs, taken in
    turn.
    """
    outcomes, moments = Outcomes(), random.Random(seed)
    with HubServer({TOKEN: {"name": "kill", "orgs": ["org"]}}) as hub:
        whole = {kind: Place(root / f"whole {kind}", hub, options) for kind, options in kinds.items()}
        durations = {}
        for kind, place in whole.items():
            hub.repositories.clear()
            durations[kind] = place.durations()
        turns = zip(range(kills), itertools.cycle(phases), itertools.cycle(sorted(kinds)))
        for number, phase, kind in tqdm(turns, total=kills, desc="Kills", unit="run"):
            for attempt in itertools.count():
                hub.repositories.clear()
                place = Place(root / f"{number}.{attempt}", hub, kinds[kind])
                died = place.kill(phase, moments.uniform(0, 0.9) * durations[kind][phase] / 2**attempt)
                if died != "over":
                    break
            outcomes.add(f"killed while {died}", [f"run {number} ({kind}): {x}" for x in place.failures(whole[kind])])
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        kinds = {kind: dict(options) for kind, options in TRAINING.items()}
        kinds["encoder"]["encoder"] = tiny_encoder(Path(name) / "encoder")
        measure(Path(name), arguments.kills, arguments.seed, kinds).close()


if __name__ == "__main__":
    main()

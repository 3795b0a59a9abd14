"""transformers' own common tests (ModelTesterMixin, ConfigTester) on both models and every kind of encoder.

    python -m benchmarks.common_tests

fetches the source distribution of the installed transformers, which holds the tests, and runs them on tiny models
(testing/common_models.py) in a temporary folder. Printed is a row per kind of encoder: tests that passed, that do not
apply, that are exempt, and that failed. Exemptions are listed with their reasons; one that passes counts as failed.
Needs a package index; 2 minutes per kind of encoder on one core.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import transformers

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "testing" / "common_models.py"
# what the distribution lacks of the packages beside the common tests, which both are about generating models
ABSENT = {
    "exporters/test_export.py": "class ExportTesterMixin: pass",
    "generation/test_utils.py": "class GenerationTesterMixin: pass",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}",
}


class Exemption(NamedTuple):
    """A common test that is not to pass."""

    kinds: tuple[str, ...]  # of encoders; none: all
    reason: str


EXEMPT = {
    "test_model_get_set_embeddings": Exemption((), "waveforms have no table of embeddings to get or set"),
    "test_model_weights_reload_no_missing_tied_weights": Exemption(
        (), "a file that lacks weights is refused in one sentence, not filled with random ones"
    ),
    "test_batching_equivalence": Exemption(
        (), "a new model has no statistics of a domain and compares each clip with its batch, which it says"
    ),
    "test_internal_model_config_and_subconfig_are_same": Exemption(
        ("wavlm", "wav2vec2", "hubert", "wav2vec2_bert", "whisper"),
        "the encoder is built from a copy of its configuration: only as deep as its deepest layer in use, and without "
        "what pre-training masks and drops",
    ),
    "test_gradient_checkpointing_enable_disable": Exemption(("none",), "there are no layers to checkpoint"),
    "test_training_gradient_checkpointing": Exemption(("none",), "there are no layers to checkpoint"),
    "test_training_gradient_checkpointing_use_reentrant_false": Exemption(
        ("none",), "there are no layers to checkpoint"
    ),
    "test_training_gradient_checkpointing_use_reentrant_true": Exemption(
        ("none", "wavlm"),
        "there are no layers to checkpoint; transformers' WavLM recurses without end, which SERE refuses",
    ),
    "test_retain_grad_hidden_states_attentions": Exemption(
        ("none",), "the frame descriptors come from the waveform alone, below every parameter"
    ),
}


def unpack(folder: Path) -> None:
    """Put the tests of the installed transformers, and what they import, into a folder that exists."""
    pip = [sys.executable, "-m", "pip"]
    source = f"transformers=={transformers.__version__}"
    download = ["download", "--quiet", "--no-binary", ":all:", "--no-deps", "--no-build-isolation", "--dest", folder]
    subprocess.run([*pip, *download, source], check=True)
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", folder, "parameterized"], check=True)
    (archive,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as tar:
        inner = f"{tar.getnames()[0].split('/')[0]}/tests/"
        members = [member for member in tar.getmembers() if member.name.startswith(inner)]
        for member in members:
            member.name = member.name.removeprefix(inner)
        tar.extractall(folder / "tests", members, filter="data")
    for name, text in ABSENT.items():
        path = folder / "tests" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(text + "\n")
    for package in ("", *{Path(name).parent for name in ABSENT}):
        (folder / "tests" / package / "__init__.py").touch()


def outcomes(report: Path) -> dict[tuple[str, str], str]:
    """(kind of encoder, test) -> passed, skipped or failed, from pytest's JUnit file; a sub-test fails its test."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kind = case.get("classname").rpartition("Test_")[2]
        key = kind, case.get("name").partition(" ")[0].partition("[")[0]
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if failed else "skipped" if case.find("skipped") is not None else "passed"
        worst = ("skipped", "passed", "failed")
        found[key] = max(found.get(key, "skipped"), outcome, key=worst.index)
    return found


def judged(found: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Return the outcomes with exempt in place of failed where an exemption says so, stale where it does not hold."""
    result = {}
    for (kind, test), outcome in found.items():
        exemption = EXEMPT.get(test)
        applies = exemption is not None and (not exemption.kinds or kind in exemption.kinds)
        becomes = {"failed": "exempt", "passed": "stale"} if applies else {}
        result[kind, test] = becomes.get(outcome, outcome)
    return result


def main():
    """Run the tests and print the table; exit with 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", default="", help="pytest's -k: some of the tests or kinds alone")
    selection = parser.parse_args().select
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(folder)
        report = folder / "report.xml"
        flags = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=line", "-c", os.devnull, "--rootdir", folder]
        subprocess.run(
            [sys.executable, "-m", "pytest", *flags, f"--junitxml={report}", "-k", selection, MODELS],
            cwd=folder, env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}, check=False,
        )  # fmt: skip
        results = judged(outcomes(report))
    print(f"\ntransformers {transformers.__version__}\nencoder | passed | do not apply | exempt | failed")
    for kind in dict.fromkeys(kind for kind, _ in results):
        count = Counter(outcome for (of, _), outcome in results.items() if of == kind)
        failed = count["failed"] + count["stale"]
        print(kind, count["passed"], count["skipped"], count["exempt"], failed, sep=" | ")
    for test, exemption in EXEMPT.items():
        print(f"exempt: {test} ({', '.join(exemption.kinds) or 'all'}): {exemption.reason}")
    for (kind, test), outcome in results.items():
        if outcome in ("failed", "stale"):
            print(f"{outcome}: {test} ({kind})")
    sys.exit(any(outcome in ("failed", "stale") for outcome in results.values()))


if __name__ == "__main__":
    main()

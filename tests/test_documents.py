"""README.md and docs/: every command and Python block runs in the order of a reader and prints what they say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_sere.training.arguments import SereArguments
from testing import documents, tree
from testing.documents import DOCUMENTS, ROOT, commands, differences, steps
from testing.forked import linux_only

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
PAGES = [*DOCUMENTS, "CONTRIBUTING.md", "benchmarks/README.md", "samples/README.md"]


@pytest.fixture(scope="session")
def outcome(tmp_path_factory) -> dict[str, list[str]]:
    """What is wrong with each document, found by one process for all."""
    path = tmp_path_factory.mktemp("documents") / "outcome.json"
    command = [sys.executable, "-m", "testing.documents", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert path.exists(), done.stderr[-3000:]
    return json.loads(path.read_text())


@linux_only
@pytest.mark.parametrize("name", DOCUMENTS)
def test_blocks_run_and_print_what_the_document_says(name, outcome):
    assert outcome[name] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    path = ROOT / name
    links = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_flags_of_the_tables_exist(name):
    """Flags of train_sere.py, the page and predicting, named outside of blocks as `--flag` or `--flag value`."""
    text = documents.BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
    named = set(re.findall(r"`--(\w+)[^`]*`", text)) - {"help", "quiet", "document", "write", "config_file"}
    known = {f"{no}{flag}" for flag in SereArguments.__dataclass_fields__ for no in ("", "no_")}
    files = [ROOT / f"modeling_sere/{name}.py" for name in ("space", "predict", "export")]
    commands = [path.read_text(encoding="utf-8") for path in files]
    assert named <= known | set(re.findall(r'"--(\w+)"', "".join(commands)))


def test_readme_leads_to_every_document():
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs/adapting.md").read_text(encoding="utf-8")
    assert [name for name in DOCUMENTS[1:] if Path(name).name not in text] == []
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


def test_steps_of_a_document():
    text = "# T\n```bash\na \\\n  b && c\n```\nprints\n```text\n1\n```\n```\ntree\n```\n```python\n# needs x\ny\n```\n"
    first, second = steps(text)
    assert (first.language, first.line, first.runs, first.printed[2]) == ("bash", 2, True, "1\n")
    assert (second.language, second.runs, second.printed) == ("python", False, None)
    assert commands(first.code) == ["a    b", "c"]
    for wrong in ("```text\n1\n```\n", "```bash\n# takes long\n```\n```text\n1\n```\n"):
        with pytest.raises(ValueError, match="no block before it prints this"):
            steps(wrong)


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("UAR 43.1 % (5 shots)\n", "UAR 43.2 % (5 shots)\n", True),
        ("UAR 43.1 % (5 shots)\n", "UAR 44.1 % (5 shots)\n", False),
        ("UAR 43.1 % (5 shots)\n", "UAR 43.1 % (6 shots)\n", False),
        ("UAR 43.1 %\n", "WAR 43.1 %\n", False),
        ("a   9.9\n", "a  10.0\n", True),
        ("a\nb\n", "a\n", False),
        ("...\nb\n", "a\nb\n", True),
        ("...\nb\n", "b\na\n", False),
        ("", "a\n", False),
    ],
)
def test_differences(said, printed, same):
    assert (differences(said, printed) == []) is same


def test_commands_that_are_not_run_are_checked(monkeypatch):
    monkeypatch.chdir(ROOT)
    documents.check_command("accelerate launch --config_file configs/accelerate/cpu.yaml train_sere.py --shots 3")
    documents.check_command("torchrun --nproc_per_node 2 train_sere.py --shots 3")
    documents.check_command("python -m pytest tests/test_documents.py::test_differences -q")
    for wrong, reason in {
        "accelerate launch train_sere.py --shotz 3": "shotz",
        "accelerate launch --config_file absent.yaml train_sere.py": "absent.yaml",
        "python -m pytest tests/test_absent.py": "test_absent",
        "rm -rf out": "only commands that start Python",
    }.items():
        with pytest.raises((RuntimeError, ValueError), match=reason):
            documents.check_command(wrong)


def test_list_of_files():
    text = tree.tree()
    assert "| `train_sere.py` | Adapt SERE to a new language" in text
    assert "| `documents.py` | Run README.md" in text
    assert tree.written(f"a\n{tree.START}old\n{tree.END}\nb") == f"a\n{tree.START}{text}{tree.END}\nb"
    assert tree.written("no list") == "no list"

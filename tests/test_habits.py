"""The files around the code: what they repeat of pyproject.toml is what stands there."""

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ["modeling_sere", "model_card", "benchmarks", "reliability", "testing"]
PROJECT = (ROOT / "pyproject.toml").read_text()


def test_workflow_runs_what_ci_runs_under_the_oldest_and_newest_versions():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    matrix = job["strategy"]["matrix"]
    assert matrix["python"][0] == re.search(r'requires-python = ">=([\d.]+)"', PROJECT)[1]
    oldest, below = re.search(r'"transformers>=([\d.]+),(<\d+)"', PROJECT).groups()
    assert matrix["transformers"] == [f"transformers{below}"]
    assert [pair["transformers"] for pair in matrix["include"]] == [f"transformers=={oldest}"]


def test_hooks_have_the_version_of_ruff_that_ci_installs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]
    assert hooks["rev"] == "v" + re.search(r'"ruff==([\d.]+)"', PROJECT)[1]
    assert {hook["id"] for hook in hooks["hooks"]} == {"ruff-check", "ruff-format"}


def test_ci_runs_the_tests_of_the_readme_and_the_lint():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert {"ruff check .", "ruff format --check .", "mypy"} <= set(lines)
    assert 'pip install -e ".[test]" && python -m pytest' in (ROOT / "README.md").read_text()


def test_version_is_the_same_everywhere():
    version = re.search(r'^version = "([\d.]+)"', PROJECT, re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["cff-version"] == "1.2.0"
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_its_reason():
    names = set(re.findall(r'"([a-z0-9-]+)(?:[>=<][^"]*)"', PROJECT)) - {"setuptools"}
    table = (ROOT / "docs/development.md").read_text().partition("## Dependencies")[2]
    assert [name for name in sorted(names) if name not in table] == []


def test_docstrings_can_be_read_alone():
    """None begins with a word that needs the name before it: a function's has a verb first, a class's a noun."""
    puzzling = {"Of", "Its", "Not", "What", "With", "Whose"}
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    found = []
    for path in [ROOT / "train_sere.py", *files]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                words = (ast.get_docstring(node) or "-").split()
                if words[0] in puzzling or words[:2] == ["The", "same"]:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {' '.join(words[:6])}")
    assert found == []

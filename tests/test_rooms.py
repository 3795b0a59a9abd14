"""The rooms of modeling_sere/training: imports run one way, from the rooms of later steps to those of earlier ones."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ROOT / "modeling_sere" / "training"
FLOOR = {path.stem for path in TRAINING.glob("*.py")} - {"__init__"}  # what every room may import
ORDER = ["corpora", "encoding", "organising", "refining", "reporting", "running"]


def imported(path: Path) -> list[list[str]]:
    """Parts of the names of all modules of this project that a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            names += [".".join((*package, *filter(None, [node.module]), alias.name)) for alias in node.names]
    return [name.split(".") for name in names]


def test_all_rooms_have_their_place():
    assert sorted(path.parent.name for path in TRAINING.glob("*/__init__.py")) == sorted(ORDER)


@pytest.mark.parametrize("room", [*sorted(FLOOR), *ORDER])
def test_imports_run_one_way(room):
    allowed = FLOOR if room in FLOOR else FLOOR | set(ORDER[: ORDER.index(room) + 1])
    files = [TRAINING / f"{room}.py"] if room in FLOOR else sorted((TRAINING / room).rglob("*.py"))
    for path in files:
        for package, *rest in imported(path):
            assert package not in {"train_sere", "model_card", "benchmarks", "reliability", "testing", "tests"}, path
            if package == "modeling_sere" and rest[:1] == ["training"]:
                assert rest[1] in allowed, f"{path} imports {'.'.join(rest)}"


@pytest.mark.parametrize("folder", ["model_card", "testing", "benchmarks", "reliability"])
def test_what_is_shared_imports_nothing_above_it(folder):
    above = {"model_card": {"testing", "benchmarks", "reliability"}, "testing": {"benchmarks", "reliability"}}
    for path in sorted((ROOT / folder).rglob("*.py")):
        # tests.test_*_common are transformers' own, which benchmarks/common_tests.py unpacks
        packages = {name[0] for name in imported(path) if not "".join(name[1:2]).endswith("_common")}
        assert not packages & (above.get(folder, set()) | {"tests", "conftest"}), path

"""List the files of the project, one line each, by the first lines of their docstrings, for docs/development.md."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ["modeling_sere", "modeling_sere/training", "model_card", "benchmarks", "reliability", "testing", "space"]
START, END = "<!-- tree -->\n", "<!-- end -->"


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, or nothing."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def tree() -> str:
    """List rooms and files as Markdown tables."""
    lines = ["| | |", "|---|---|", f"| `train_sere.py` | {first_line(ROOT / 'train_sere.py')} |"]
    training = sorted(path.parent for path in (ROOT / "modeling_sere" / "training").glob("*/__init__.py"))
    for room in [*(ROOT / name for name in ROOMS[:2]), *training, *(ROOT / name for name in ROOMS[2:])]:
        lines.append(f"| **`{room.relative_to(ROOT).as_posix()}/`** | **{first_line(room / '__init__.py')}** |")
        files = sorted(path for path in room.glob("*.py") if path.name != "__init__.py")
        lines += [f"| `{path.name}` | {first_line(path)} |" for path in files]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Put the list into a document that has the marks for it; other documents stay as they are."""
    before, found, after = text.partition(START)
    return before + found + tree() + after[after.index(END) :] if found else text

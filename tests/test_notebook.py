"""The notebook: a valid file whose cells run one after the other."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest

from modeling_sere.training.running.adapted import Adapted

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_it_has_the_form_of_a_notebook_and_no_output(notebook):
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and all(isinstance(line, str) for line in cell["source"])
        assert cell["cell_type"] == "markdown" or cell["outputs"] == []


def test_its_cells_run_in_their_order(notebook, monkeypatch, tmp_path, capsys):
    """As in Jupyter, but for the lines of the shell, which nothing reaches where SERE is installed."""
    shown, pushed = [], []
    display = ModuleType("IPython.display")
    display.Audio, display.display = lambda file: Path(file).stat().st_size, shown.append
    jupyter = ModuleType("IPython")
    jupyter.version_info, jupyter.get_ipython = (8, 24), lambda: None  # what matplotlib asks for
    monkeypatch.setitem(sys.modules, "IPython", jupyter)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(Adapted, "push", lambda _, name, **options: pushed.append((name, options)))
    monkeypatch.chdir(ROOT)
    matplotlib.use("agg")
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            text = re.sub(r"^( *)[!%].*$", r"\1pass", "".join(cell["source"]), flags=re.MULTILINE)
            text = text.replace('NAME = ""', 'NAME = "org/notebook"')
            text = text.replace("draws=1", f"draws=1, cache_dir={str(tmp_path)!r}")
            exec(compile(text, cell["id"], "exec"), names)
    assert "SERE (after the field)" in capsys.readouterr().out
    assert len(shown) == 6 and all(shown)
    assert len(names["figure"].axes) == 2 and len(names["times"]) > 10
    assert pushed == [("org/notebook", {"private": True})]

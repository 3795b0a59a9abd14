"""Run README.md and docs/*.md as a reader would, and compare what is printed with what they say.

    python -m testing.documents                          # all of them: what differs is listed
    python -m testing.documents README.md docs/hub.md    # some
    python -m testing.documents --write                  # put what was printed into the documents

Conventions of the documents:

- Blocks marked ```bash and ```python are run in their order, in a scratch copy of the project in which the README's
  first command has been run. The Python blocks of a document share their names, as in one session.
- A block marked ```text is what the block before it printed. If its first line is "...", it is the end of it.
- A block that begins with a comment "# needs ..." or "# takes ..." is not run: its flags, paths and syntax are checked.
- The Hub is a server on loopback, where the user may write to `org`.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testing import tree
from testing.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
TOKEN = "hf_documents"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"# (needs|takes) ")
SETUP = (".ci/", "python -m venv", ". ", "pip install", "git clone", "pre-commit install")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")
TOLERANCE = 0.01  # of a printed figure: processors differ in the last digits


@dataclass
class Step:
    """A block of a document that is run, and where it says what the block prints."""

    language: str
    code: str
    line: int
    printed: re.Match | None = None

    @property
    def runs(self) -> bool:
        return NOT_RUN.match(self.code) is None


def steps(text: str) -> list[Step]:
    """Find the blocks of a document that are run. Raises ValueError: a ```text block that follows none of them."""
    found = []
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        if block[1] in ("bash", "python"):
            found.append(Step(block[1], block[2], line))
        elif block[1] == "text":
            if not found or found[-1].printed is not None or not found[-1].runs:
                raise ValueError(f"line {line}: no block before it prints this")
            found[-1].printed = block
    return found


def commands(code: str) -> list[str]:
    """Split a bash block into its commands, without those that set up the environment."""
    lines = code.replace("\\\n", " ").splitlines()
    single = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in single if part and not part.startswith(("#", *SETUP))]


def differences(expected: str, printed: str) -> list[str]:
    """Compare what a document says with what was printed, line by line; figures may differ by 1 % or a last digit."""
    said, printed_lines = expected.splitlines(), printed.splitlines()
    if said[:1] == ["..."]:
        said = said[1:]
        printed_lines = printed_lines[-len(said) :]
    if len(said) != len(printed_lines):
        return [f"{len(said)} lines are expected, {len(printed_lines)} were printed: {printed!r}"]
    pairs = zip(said, printed_lines, strict=True)
    return [f"{a!r} is expected, {b!r} was printed" for a, b in pairs if not _agree(a, b)]


def _agree(expected: str, printed: str) -> bool:
    if NUMBER.sub("0", expected).split() != NUMBER.sub("0", printed).split():
        return False
    for a, b in zip(NUMBER.findall(expected), NUMBER.findall(printed), strict=True):
        if "." not in a and "." not in b and a != b:
            return False
        last_digit = 10.0 ** -len(a.partition(".")[2])
        if abs(float(a) - float(b)) > max(TOLERANCE * abs(float(a)), 1.001 * last_digit):
            return False
    return True


def in_fork(action: Callable[[], None]) -> str:
    """Do something in a fork of this process and return what it prints. Raises RuntimeError: it fails."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:

        def run():
            for stream, number in ((stdout, 1), (stderr, 2)):
                os.dup2(stream.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
            action()

        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        process.join()
        stdout.seek(0), stderr.seek(0)
        if process.exitcode:
            raise RuntimeError(f"it ends with status {process.exitcode}: {stderr.read()[-2000:]}")
        return stdout.read()


def python_command(command: str) -> tuple[bool, str, list[str]] | None:
    """Find whether a command starts a module or a script, which one, and its flags; None: it starts no Python."""
    words = shlex.split(command, comments=True)
    if words[0] == "python":
        return (True, words[2], words[3:]) if words[1] == "-m" else (False, words[1], words[2:])
    if words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import launch_command_parser

        launch = launch_command_parser().parse_args(words[2:])
        if launch.config_file is not None and not Path(launch.config_file).is_file():
            raise RuntimeError(f"accelerate launch: there is no {launch.config_file}")
        return launch.module, launch.training_script, launch.training_script_args
    if words[0] == "torchrun":
        place = next(k for k, word in enumerate(words) if word.endswith(".py"))
        return False, words[place], words[place + 1 :]
    return None


def run_command(command: str) -> str:
    """Run one command in the current folder and return what it prints."""
    found = python_command(command)
    if found is None:
        return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout
    module, name, flags = found
    if name == "pytest":
        check_command(command)  # it is what runs this
        return ""

    def start():
        sys.argv = [name, *flags]
        if module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")

    return in_fork(start)


def check_command(command: str):
    """Check the flags and paths of a command without running it. Raises RuntimeError, RunError: they are wrong."""
    found = python_command(command)
    if found is None:
        raise RuntimeError(f"only commands that start Python can be checked without running them, not {command}")
    _, name, flags = found
    if name == "pytest":
        paths = [word.partition("::")[0] for word in flags if word.startswith("tests")]
        missing = [path for path in paths if not Path(path).exists()]
        if missing:
            raise RuntimeError(f"there is no {', '.join(missing)}")
    elif name.removesuffix(".py") == "train_sere":
        from modeling_sere.training.arguments import parse_arguments

        parse_arguments(flags)
    else:
        known = set(re.findall(r"--\w+", run_command(f"python -m {name} --help")))
        unknown = [flag for flag in flags if flag.startswith("--") and flag.partition("=")[0] not in known]
        if unknown:
            raise RuntimeError(f"{name} has no {' '.join(unknown)}")


def run_step(step: Step, names: dict) -> str:
    """Run or check one block and return what it prints. `names`: those of the document's Python session."""
    if step.language == "python":
        code = compile(step.code, f"<line {step.line}>", "exec")
        printed = io.StringIO()
        if step.runs:
            with contextlib.redirect_stdout(printed):
                exec(code, names)
        return printed.getvalue()
    if step.runs:
        return "".join(run_command(command) for command in commands(step.code))
    for command in commands(step.code):
        check_command(command)
    return ""


@contextlib.contextmanager
def scratch(out: Path | None) -> Iterator[Path]:
    """Make a scratch copy of the project, with an output folder that is there already, and work in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for path in ROOT.iterdir():
            if path.name == "samples":
                shutil.copytree(path, folder / path.name)
            elif path.name not in ("out", ".git"):
                (folder / path.name).symlink_to(path)
        if out is not None:
            shutil.copytree(out, folder / "out")
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def run_document(name: str, out: Path, write: bool) -> list[str]:
    """Run the blocks of a document in order and return what is wrong with it; stop at a block that fails."""
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    problems, replaced, session = [], [], {"__name__": "__main__"}
    try:
        with scratch(None if name == "README.md" else out) as folder:
            for step in steps(text):
                where = f"{name}, line {step.line}"
                printed = run_step(step, session).replace(f"{folder}/", "")
                printed = printed.replace(os.environ["HF_ENDPOINT"], "https://huggingface.co")
                if step.printed is not None:
                    said = step.printed[2]
                    problems += [f"{where}: {problem}" for problem in differences(said, printed)]
                    if said.startswith("...\n"):
                        printed = "...\n" + "".join(printed.splitlines(True)[1 - len(said.splitlines()) :])
                    replaced.append((step.printed.span(2), printed))
    except (Exception, SystemExit) as error:
        where = where if "where" in locals() else name
        problems.append(f"{where}: {type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}")
    if write:
        for (start, end), printed in reversed(replaced):
            text = text[:start] + printed + text[end:]
        path.write_text(tree.written(text), encoding="utf-8")
    elif tree.written(text) != text:
        problems.append(f"{name}: the list of files is not the files' own first lines: run with --write")
    return problems


def run_documents(names: list[str], write: bool) -> dict[str, list[str]]:
    """Run documents in this process, whose environment is prepared, and return what is wrong with each."""
    import torch

    import train_sere

    torch.set_num_threads(1)
    assert train_sere.main, "imported once, for all forks"
    found = {}
    with scratch(None) as folder:
        first = next(step for step in steps((ROOT / "README.md").read_text(encoding="utf-8")) if step.runs)
        run_step(first, {})
        for name in names:
            found[name] = run_document(name, folder / "out", write)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="*", default=DOCUMENTS, help="all by default")
    parser.add_argument("--write", action="store_true", help="put what was printed into the documents")
    parser.add_argument("--json", help="write what is wrong with each document to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, HubServer({TOKEN: {"name": "user", "orgs": ["org"]}}) as hub:
        environment = hub.environment(home, token=TOKEN, OMP_NUM_THREADS="1")
        os.environ.clear()
        os.environ.update(environment)
        found = run_documents(arguments.documents, arguments.write)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found))
    for problem in (problem for problems in found.values() for problem in problems):
        print(problem)
    sys.exit(any(found.values()) and not arguments.write)


if __name__ == "__main__":
    main()

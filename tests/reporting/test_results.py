"""The contract of results.json: real runs, docs/results.md and the card keep to it."""

import copy
import csv
import json
import re
import shutil
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest

import train_sere
from modeling_sere.training.errors import RunError
from modeling_sere.training.reporting.results import SCORES, Results, load_results, problems, save_results
from testing.corpora import bad_files, read_metadata, write_corpus, write_metadata

ROOT = Path(__file__).resolve().parents[2]
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}


def run(folder: Path, *flags: str, **options) -> Results:
    """results.json of a run into `folder`/`name`."""
    words = [f"--{name}={value}" for name, value in options.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_sere.py", *words, *flags, f"--cache_dir={folder / 'cache'}"])
        train_sere.main()
    return load_results(Path(options["output_dir"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with corpora: source, target, the target without labels and with bad files."""
    folder = tmp_path_factory.mktemp("contract")
    write_corpus(folder / "source", clips=3, seed=1)
    write_corpus(folder / "target", clips=3, seed=2)
    shutil.copytree(folder / "target", folder / "unlabelled")
    for name, content in bad_files().items():
        (folder / "unlabelled" / name).write_bytes(content)
    rows = [{"file_name": name, "speaker": "s0"} for name in bad_files()]
    write_metadata(folder / "unlabelled", [*rows, *read_metadata(folder / "target")], ["file_name", "speaker"])
    return folder


@pytest.fixture(scope="module")
def runs(data) -> dict[str, Results]:
    """Runs of every kind: scored, without labels, inductive without a prior, without source data."""
    common = {"shots": 1, "draws": 2, "report_to": "none", "source": data / "source", "target": data / "target"}
    found = {"scored": run(data, **common, output_dir=data / "scored")}
    common["draws"] = 1
    unlabelled = common | {"target": data / "unlabelled", "max_skipped": 0.5}
    found["unlabelled"] = run(data, **unlabelled, output_dir=data / "adapted")
    found["inductive"] = run(data, **common, setting="inductive", output_dir=data / "inductive")
    del common["source"]
    found["source-free"] = run(data, **common, model=data / "scored", output_dir=data / "free")
    return found


def predictions(folder: Path) -> list[dict]:
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_real_runs_keep_to_the_contract(runs):
    for name, results in runs.items():
        assert list(problems(results)) == [], name
        assert list(results) and results["seconds"].keys() == {"encode", "organise", "score", "save"}
    assert all(runs["unlabelled"][key] is None for key in SCORES)
    assert all(runs["scored"][key] is not None for key in SCORES)
    assert runs["scored"]["spread"]["seeds"] == [0, 1] and runs["unlabelled"]["spread"] is None
    assert [runs["source-free"][key] for key in ("seed", "shot_files", "same_audio_in_both", "spread")] == [None] * 4


def flattened(kind=Results, prefix: str = "") -> dict[str, str]:
    """Key as docs/results.md has it -> type in its words."""
    found = {}
    for key, hint in get_type_hints(kind).items():
        optional = [choice for choice in get_args(hint) if choice is not NoneType]
        inner = optional[0] if get_origin(hint) is UnionType and is_typeddict(optional[0]) else hint
        if is_typeddict(inner):
            found |= flattened(inner, f"{prefix}{key}.")
        elif get_origin(inner) is list and is_typeddict(get_args(inner)[0]):
            found |= flattened(get_args(inner)[0], f"{prefix}{key}[].")
        else:
            found[prefix + key] = words(hint)
    return found


def words(kind) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) is UnionType:
        told = [words(choice) for choice in get_args(kind)]
        return (", or " if any(part.endswith("per name") for part in told) else " or ").join(told)
    if get_origin(kind) is list:
        return f"list of {words(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"{words(get_args(kind)[1])} per name"
    return WORDS[kind]


def test_the_document_has_the_same_keys_and_types():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").partition("## predictions.csv")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    assert dict(rows) == flattened()
    assert [key for key, _ in rows] == list(flattened())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda results: results.pop("uar"), "results.json lacks uar"),
        (lambda results: results.update(model_id="x"), "results.json has model_id, which is unknown"),
        (lambda results: results["skipped_clips"].append({"name": "a"}), "skipped_clips[0] lacks reason"),
        (lambda results: results.update(shots=True), "results.json/shots is True"),
        (lambda results: results.update(setting="magic"), "results.json/setting is 'magic'"),
        (lambda results: results.update(confusion=[[0.5]]), "results.json/confusion is [[0.5]]"),
        (lambda results: results["calibration"].update(temperature=None), "calibration/temperature is None"),
        (lambda results: results.update(labels="anger"), "results.json/labels is 'anger'"),
        (lambda results: results.update(shares=[0.5]), "results.json/shares is [0.5]"),
    ],
)
def test_what_differs_from_the_contract_is_told(runs, change, said, tmp_path):
    results = copy.deepcopy(runs["scored"])
    change(results)
    assert any(said in problem for problem in problems(results))
    save_results(results, tmp_path)
    with pytest.raises(RunError, match="of another version"):
        load_results(tmp_path)


def test_numbers_of_numpy_become_plain_ones(tmp_path):
    save_results({"uar": np.float32(0.5), "confusion": np.eye(2, dtype=int), "source": "zażółć"}, tmp_path)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert "zażółć" in text
    assert json.loads(text) == {"uar": 0.5, "confusion": [[1, 0], [0, 1]], "source": "zażółć"}


# predictions.csv


def test_every_target_clip_is_a_row(runs, data):
    rows = predictions(data / "scored")
    files = [row["file_name"] for row in read_metadata(data / "target")]
    assert [row["file"] for row in rows] == files
    assert [row["label"] for row in rows] == [row["emotion"] for row in read_metadata(data / "target")]
    labels = runs["scored"]["labels"]
    for row in rows:
        scores = {label: float(row[f"score_{label}"]) for label in labels}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-3)
        assert row["emotion"] == max(scores, key=scores.get) and float(row["score"]) == scores[row["emotion"]]
        assert 0 < float(row["strongest"]) < 0.8 and row["witnesses_agree"] in ("yes", "no") and row["error"] == ""


def test_the_rows_are_what_was_scored(runs, data):
    for name, scored in (("scored", lambda row: True), ("inductive", lambda row: row["witnesses_agree"] == "")):
        rows = [row for row in predictions(data / name) if scored(row)]
        right = sum(row["emotion"] == row["label"] for row in rows)
        assert len(rows) == np.sum(runs[name]["confusion"]) and right == np.trace(runs[name]["confusion"])


def test_clips_that_cannot_be_used_are_rows_with_their_reason(runs, data):
    rows = predictions(data / "adapted")
    assert len(rows) == 18 + len(bad_files()) and "label" not in rows[0]
    bad = {row["file"]: row["error"] for row in rows if row["error"]}
    assert bad.keys() == bad_files().keys() and all(row["emotion"] == "" for row in rows if row["error"])


def test_the_summary_is_that_of_the_rows(runs, data):
    for name, folder in (("scored", "scored"), ("unlabelled", "adapted"), ("source-free", "free")):
        results, rows = runs[name], [row for row in predictions(data / folder) if not row["error"]]
        shares = {label: sum(row["emotion"] == label for row in rows) / len(rows) for label in results["labels"]}
        assert results["shares"] == pytest.approx(shares)
        ranked = sorted(rows, key=lambda row: float(row["score"]))
        assert results["least_sure"][0]["score"] == pytest.approx(float(ranked[0]["score"]), abs=1e-4)
        assert results["surest"][0]["score"] == pytest.approx(float(ranked[-1]["score"]), abs=1e-4)
        assert len(results["surest"]) == len(results["least_sure"]) == 3
        agreeing = [row["witnesses_agree"] == "yes" for row in rows]
        assert results["agreement"] == pytest.approx(np.mean(agreeing))


def test_the_card_of_every_run_reads_well_and_names_no_clip(runs, data):
    for folder in ("scored", "adapted", "inductive", "free"):
        card = (data / folder / "README.md").read_text(encoding="utf-8")
        assert "not measured" not in card.replace("were not measured", "").replace("was not measured", "")
        assert "| emotion | share of the clips |" in card and "The surest answers: " in card
        assert not re.search(r"\b(None|nan|null|Undefined)\b|\{\{|\{%|\w\.wav(?!\")", card)
        assert ("## Confusion" in card) == (folder != "adapted")

"""Names of splits, and the choice of one."""

import pytest

from modeling_sere.training.corpora.splits import are_splits, chosen, split_in, split_key
from modeling_sere.training.errors import RunError


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.csv", "train"), ("emodb_test.csv", "test"), ("data/dev-0.tar", "validation"),
        ("valid/x.tar", "validation"),
        ("data/train-00000-of-00002.parquet", "train"), ("data/crema_d-00000-of-00001.parquet", "crema_d"),
        ("train.clean.100-00001-of-00014.parquet", "train.clean.100"), ("corpus-test-00000-of-00001.arrow", "test"),
        ("train/data-00000-of-00001.arrow", "train"), ("data-00000-of-00001.arrow", None), ("x.parquet", None),
        ("Training/x.tar", "train"), ("trainer.csv", None), ("testing-1.csv", "test"),
    ],
)  # fmt: skip
def test_splits_in_names_of_files(path, split):
    assert split_in(path) == split


def test_names_of_a_split():
    assert split_key("Dev") == split_key("valid") == "validation" and split_key("crema_d") == "crema_d"
    assert are_splits(["train", "Dev"]) and not are_splits(["train", "x"]) and not are_splits([])


def test_choice():
    parts = {"train": 1, "dev": 2, "test": 3}
    assert chosen("x", {"a": 1}, None) == {"a": 1}
    assert chosen("x", parts, "validation") == {"dev": 2}
    assert chosen("x", parts, "test+train") == {"test": 3, "train": 1}
    assert chosen("x", parts, "All") == parts
    with pytest.raises(RunError, match="x has the splits train, dev, test: choose one, a[+]b or all"):
        chosen("x", parts, None)
    with pytest.raises(RunError, match="x has no split 'y', only train, dev, test"):
        chosen("x", parts, "train+y")

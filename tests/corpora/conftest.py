"""Fixtures of the tests of corpora."""

import datasets
import pytest

from .helpers import fill


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder with WAV files and a metadata file of the given text (or bytes)."""

    def make(metadata: str | bytes, files=("a.wav", "b.wav", "sub/c.wav"), kind="csv"):
        return fill(tmp_path / "corpus", files, {f"metadata.{kind}": metadata})

    return make


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()

"""Damaged and odd recordings, a part of what reliability/audio.py tries."""

import pytest

from reliability import audio
from testing.corpora import write_corpus

COUNT = 88  # every kind of sound and of damage four times


@pytest.fixture(scope="module")
def mutations(tmp_path_factory):
    """A folder of files, and what was done to each."""
    folder = tmp_path_factory.mktemp("mutations")
    return folder, audio.write_mutations(folder, COUNT, seed=0)


def test_every_kind_of_file_is_tried(mutations):
    folder, done = mutations
    assert {kind.__name__ for kind in audio.SOUNDS + audio.DAMAGES} == set(done)
    assert {f".{extension}" for extension in audio.FORMATS} <= {path.suffix for path in folder.iterdir()}


def test_a_result_or_one_named_error_within_ten_seconds(mutations):
    outcomes = list(audio.try_files(*mutations))
    assert len(outcomes) == COUNT
    assert [failure for _, failures in outcomes for failure in failures] == []


def test_a_run_names_and_counts_what_it_cannot_use_and_goes_on(mutations, tmp_path):
    source = write_corpus(tmp_path / "source")
    assert audio.through_training(mutations[0], tmp_path, source=source, shots=2) == []

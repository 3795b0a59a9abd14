"""Recordings to answer for: files, folders, or a corpus in any form, as what the pipeline takes, read one by one."""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

from modeling_sere.audio_sere import AudioError
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.files import check_writable, suffix
from modeling_sere.training.corpora.folder import DATA
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.corpora.names import number
from modeling_sere.training.corpora.tables import TABLES
from modeling_sere.training.errors import RunError

ANY_COLUMN = ""  # the usual column of speakers


class Inputs:
    """Recordings in the order given.

    Attributes:
        names: one for each; of a single folder or corpus as it has them, else with the place before it.
        speakers: who speaks in each, or None.
        reading: what the corpora were read as.

    Args:
        places: files, folders, tables or datasets, as the user named them.
        speaker_column: column or level of folders that tells the speaker, `ANY_COLUMN` for the usual one, None for no
            speakers.
        options: of `load_corpus`.

    Raises:
        RunError: no recordings, no speakers where some were asked for, or as `load_corpus`.
    """

    def __init__(self, places: list[str], speaker_column: str | None = None, **options: Any):
        self.names: list[str] = []
        self.speakers: list[str | None] = []
        self.corpora: list[Corpus] = []
        self._places: list[str | Corpus] = []
        self._starts: list[int] = []  # of each place among all recordings
        for place in places:
            self._add(place, len(places) == 1, speaker_column, options)
        if speaker_column is not None and not any(self.speakers):
            raise RunError(
                "--speakers finds no speaker: name the column of a table, or folder1 for the folders at the top"
            )

    def _add(self, place: str, alone: bool, speaker_column: str | None, options: dict[str, Any]) -> None:
        self._starts.append(len(self.names))
        if suffix(place) not in (*TABLES, *DATA) and not os.path.isdir(place) and (os.path.exists(place) or not alone):
            check_writable(place, "the command")
            self._places.append(place)
            self.names.append(place)
            self.speakers.append(None)
            return
        corpus = load_corpus(place, require_labels=False, speaker_column=speaker_column or None, **options)
        self._places.append(corpus)
        self.corpora.append(corpus)
        self.names += corpus.names if alone else [os.path.join(place, name) for name in corpus.names]
        self.speakers += [None] * len(corpus) if speaker_column is None else corpus.speakers

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Inputs({number(len(self), 'recording')})"

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Give each of these recordings with its index, as the pipeline takes it, or the AudioError that prevents it.

        Parts of one file come together, as it is decoded once; all else comes in the order asked for.

        Raises:
            OSError: a disk or network failure, as opposed to one missing or forbidden file.
        """
        run: list[int] = []  # of one corpus
        for index in indices:
            if run and self._place(run[0]) != self._place(index):
                yield from self._of_corpus(run)
                run = []
            if isinstance(self._places[self._place(index)], Corpus):
                run.append(index)
            else:
                yield index, self._places[self._place(index)]
        if run:
            yield from self._of_corpus(run)

    def _place(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _of_corpus(self, indices: list[int]) -> Iterator[tuple[int, Any]]:
        place = self._place(indices[0])
        first = self._starts[place]
        for inner, item in self._places[place].iter_encoded(index - first for index in indices):
            if not isinstance(item, AudioError):
                item = item | {"path": self.names[first + inner]}
            yield first + inner, item

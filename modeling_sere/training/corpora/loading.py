"""Corpora: which clips there are, their emotions and speakers, and their audio, decoded on demand.

A corpus is a local folder with `metadata.csv` or `metadata.jsonl` (columns `file_name`, `emotion` or `label`, and
optionally `speaker` and `language`), a local folder of parquet files, or a dataset on the Hub. Reading one touches the
metadata only; audio is fetched and decoded clip by clip, in threads, when `Corpus.iter_audio` asks for it.

Row numbers in messages count the header of a CSV file as row 1, as a spreadsheet does.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from modeling_sere.training.corpora.columns import NamedColumns, build_corpus
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.dataset import dataset_table
from modeling_sere.training.corpora.folder import folder_table, metadata_file
from modeling_sere.training.errors import RunError


def load_corpus(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    audio_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str = "speaker",
    language_column: str = "language",
    label_map: Mapping[str, str] | None = None,
    streaming: bool = False,
    require_labels: bool = True,
    token: str | bool | None = None,
) -> Corpus:
    """Reads the metadata of a corpus.

    Args:
        source: a folder with metadata.csv or metadata.jsonl, a folder of parquet files, or a dataset id on the Hub.
        split, config: of a dataset. A dataset with a single split needs no `split`.
        revision, token: of a dataset on the Hub.
        audio_column: by default `file_name` in a folder with metadata; in a dataset the one column of audio, else
            `audio`, else `file`.
        label_column: by default `emotion`, else `label`, else `labels`. Empty cells (and class -1) are unlabelled.
        speaker_column, language_column: the defaults are optional (`speaker_id` is tried too); any other name must
            exist.
        label_map: {spelling: emotion} that takes precedence over `LABEL_ALIASES`; see `parse_label_map`.
        streaming: do not download a dataset but read it in passes. A folder with metadata is read file by file anyway.
        require_labels: whether a corpus without a single label is an error.

    Labels are compared without case and surrounding blanks; unknown ones are kept as they are, in lower case.

    Raises:
        RunError: anything about the corpus or these options that needs the user's attention.
    """
    source = os.fspath(source)
    folder = Path(source).expanduser()
    named = NamedColumns(audio_column, label_column, speaker_column, language_column)
    options = {"split": split, "config": config, "revision": revision}
    if folder.is_dir() and (metadata := metadata_file(folder, require_labels)) is not None:
        if given := [option for option, value in options.items() if value is not None]:
            raise RunError(f"{source} is a folder with {metadata.name} and has no {given[0]}: leave it out")
        table = folder_table(folder, metadata, named)
    else:
        if not folder.is_dir() and (folder.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
            raise RunError(f"{source} is not a folder: give a folder with metadata.csv, or the id of a Hub dataset")
        if folder.is_dir() and revision is not None:
            raise RunError(f"{source} is a local folder and has no revision: leave it out")
        table = dataset_table(source, split, config, revision, token, streaming, named)
    if not table.names:
        raise RunError(f"{table.title} has no rows")
    return build_corpus(table, label_map or {}, require_labels)

"""Reading a corpus: the metadata of its clips, from a folder, a file, or a dataset on the Hub.

What a corpus on disk may look like is in docs/corpora.md. Reading one touches the metadata only; audio is fetched and
decoded clip by clip, in threads, when `Corpus.iter_audio` asks for it.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from modeling_sere.training.corpora.columns import NamedColumns, build_corpus
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.folder import local_table
from modeling_sere.training.corpora.labels import Spellings
from modeling_sere.training.corpora.names import shown
from modeling_sere.training.corpora.options import ReadOptions
from modeling_sere.training.errors import RunError

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]*\w", re.ASCII)


def load_corpus(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    audio_column: str | None = None,
    label_column: str | None = None,
    speaker_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
    streaming: bool = False,
    segments: bool = True,
    outside_files: bool = False,
    require_labels: bool = True,
) -> Corpus:
    """Read the metadata of a corpus.

    Args:
        source: a folder, a table beside its audio (CSV, JSON Lines, parquet), a dataset in a file (parquet, arrow,
            tar), or the id of a dataset on the Hub.
        split: which one; also "a+b" or "all". A corpus with a single split needs none.
        config: configuration of a dataset. revision: of a dataset on the Hub.
        audio_column, label_column, speaker_column: by default the usual names, like file_name, emotion and speaker. A
            column that is named must exist. Empty labels (and class -1) are unlabelled.
        label_map: {spelling: emotion} that takes precedence over `LABEL_ALIASES`; see `parse_label_map`.
        streaming: do not download a dataset but read it in passes. Audio files are read one by one anyway.
        segments: clips are the parts of files that columns like start and end tell, in seconds.
        outside_files: names of files may lead out of the folder: absolute paths, `..`, and links.
        require_labels: whether a corpus without a single label is an error.

    Names of emotions, speakers, columns and files are compared as `normal_name` has them; labels that are no known
    emotion are kept in that form.

    Raises:
        RunError: anything about the corpus or these options that needs the user's attention.
    """
    source = os.fspath(source)
    path = os.path.expanduser(source)  # never an error, other than of pathlib
    options = ReadOptions(
        split, config, revision, NamedColumns(audio_column, label_column, speaker_column), Spellings(label_map),
        streaming, segments, outside_files, require_labels,
    )  # fmt: skip
    if os.path.exists(path):
        if revision is not None:
            raise RunError(f"{source} is on this disk and has no revision: leave it out")
        table = local_table(Path(path), options)
    elif HUB_ID.fullmatch(source):
        from modeling_sere.training.corpora.dataset import hub_table  # slow to import

        table = hub_table(source, options)
    else:
        raise RunError(
            f"{shown(source)} does not exist: give a folder, a file, or a dataset on the Hub by its id, owner/name"
        )
    return build_corpus(table, options.spellings, require_labels)

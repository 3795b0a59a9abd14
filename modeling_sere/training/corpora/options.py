"""Options: how a corpus is to be read."""

from dataclasses import dataclass, field

from modeling_sere.training.corpora.columns import NamedColumns
from modeling_sere.training.corpora.labels import Spellings


@dataclass(frozen=True)
class ReadOptions:
    """The user's wishes for a corpus; `load_corpus` describes each."""

    split: str | None = None
    config: str | None = None
    revision: str | None = None
    columns: NamedColumns = NamedColumns()
    spellings: Spellings = field(default_factory=Spellings)
    streaming: bool = False
    segments: bool = True
    outside_files: bool = False
    require_labels: bool = True

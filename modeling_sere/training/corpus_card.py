"""The card (README.md) of a corpus: what it says of licence and language goes into the model's card."""

from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError

from modeling_sere.training.data import DataError


class CorpusCard(NamedTuple):
    """Licence (an id of the Hub's list) and language (a code); None where the card does not give just one."""

    license: str | None = None
    language: str | None = None


def corpus_card(source: str) -> CorpusCard:
    """What is recorded beside a corpus: in the README.md of its folder, or in the card of its dataset on the Hub.

    Raises:
        DataError: the card's metadata is not YAML.
    """
    folder = Path(source).expanduser()
    try:
        path = folder / "README.md" if folder.is_dir() else hf_hub_download(source, "README.md", repo_type="dataset")
        metadata = metadata_load(path) or {}
    except (FileNotFoundError, EntryNotFoundError):
        return CorpusCard()
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"README.md of {source}: what is between its lines of dashes is not YAML, mend it") from error
    return CorpusCard(_only(metadata.get("license")), _only(metadata.get("language")))


def _only(value) -> str | None:
    values = value if isinstance(value, list) else [value]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None

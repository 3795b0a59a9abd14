"""Where data and models come from: what their cards (README.md) say of language and licence."""

from pathlib import Path

import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError

from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.errors import RunError


def corpus_facts(corpus: Corpus, address: str) -> dict[str, str]:
    """Name, language and licence of a corpus, as far as they are known.

    Args:
        address: the folder or the dataset's id. A README.md there may give `language` and `license`; the corpus' own
            column of languages goes first.

    Raises:
        RunError: what the README.md has between its lines of dashes is not YAML.
    """
    card = _metadata(address, "dataset")
    facts = {
        "name": corpus.name,
        "language": corpus.language or _only(card.get("language")),
        "license": _only(card.get("license")),
    }
    return {key: text for key, text in facts.items() if text is not None}


def model_license(address: str, revision: str | None) -> str | None:
    """Licence of a model, in a folder or on the Hub, if its card gives just one. Raises as `corpus_facts`."""
    return _only(_metadata(address, "model", revision).get("license"))


def _metadata(address: str, kind: str, revision: str | None = None) -> dict:
    """The card's, empty where there is none."""
    path = Path(address).expanduser() / "README.md"
    try:
        if not path.parent.is_dir():
            path = hf_hub_download(address, "README.md", repo_type=kind, revision=revision)
        return metadata_load(path) or {}
    except (FileNotFoundError, EntryNotFoundError):
        return {}
    except (yaml.YAMLError, ValueError) as error:
        raise RunError(f"README.md of {address}: what is between its lines of dashes is not YAML, mend it") from error


def _only(value) -> str | None:
    """The one text that a card gives, if it gives just one."""
    values = value if isinstance(value, list) else [value]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None

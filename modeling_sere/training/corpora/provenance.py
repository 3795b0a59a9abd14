"""Where data and models come from: what their cards (README.md) say of language and licence."""

from collections.abc import Sequence
from typing import Any

from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.corpora.readme import front_matter


def corpus_facts(corpus: Corpus, address: str | None, revision: str | None = None) -> dict[str, str]:
    """Return name, language and licence of a corpus, as far as they are known.

    Args:
        address: the folder or the dataset's id, at this `revision`; None for a corpus without one. A README.md there
            may give `language` and `license`; the corpus' own columns of these go first, where several values are
            separated by commas.

    Raises:
        RunError: as `front_matter`.
    """
    card = {} if address is None else front_matter(address, "dataset", revision)
    facts = {
        "name": corpus.name,
        "language": corpus.language or ", ".join(corpus.languages) or _only(card.get("language")),
        "license": ", ".join(sorted(corpus.licenses)) or _only(card.get("license")),
    }
    return {key: text for key, text in facts.items() if text is not None}


def joint_facts(facts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the facts of several corpora as of one; what is not known of each is not known of all."""
    return {
        key: ", ".join(dict.fromkeys(fact[key] for fact in facts))
        for key in ("name", "language", "license")
        if all(key in fact for fact in facts)
    }


def model_license(address: str, revision: str | None) -> str | None:
    """Return the licence of a model in a folder or on the Hub, if its card gives just one. Raises as `front_matter`."""
    return _only(front_matter(address, "model", revision).get("license"))


def _only(value: Any) -> str | None:
    """Return the one text that a card gives, if it gives just one."""
    values = value if isinstance(value, list) else [value]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None

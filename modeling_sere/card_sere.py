"""The card (README.md) of a model that is saved or pushed from Python rather than by the run that made it."""

import filecmp
import logging
import os
import re
import unicodedata
from pathlib import Path

from .published_sere import CARD, WEIGHTS, known_names, read_known, status_of

logger = logging.getLogger(__name__)

MAX_NAME = 200  # characters of a label or a corpus
UNNAMED = "path/to/this/folder"  # how the card of a run that had no name on the Hub calls its own place

TEXT = """---
library_name: transformers
pipeline_tag: audio-classification
license: other
license_name: terms-of-the-training-data
{base_model}tags:
- speech-emotion-recognition
- cross-lingual
- sere
---

# {name}

A SERE classifier of emotion in speech. {facts}

```python
from transformers import pipeline

classifier = pipeline("audio-classification", model="{repo_id}", trust_remote_code=True)
classifier("clip.wav")
```

`trust_remote_code=True` runs the code that lies beside the weights: read it first, or pin a `revision` that you have
read.

**Results of these weights: not measured.** This card was written while saving, without the results of a run. What
unlabelled data the weights were adapted on is not recorded here. The terms of all data and models that they were made
from may bind what you do with them.

The weights file holds the classifier, the encoder if there is one, embeddings of labelled clips and statistics of
unlabelled ones. It holds no audio, file names or speaker ids; embeddings and statistics are still made from recordings
of people. A score tells how alike a voice sounds to examples. It is no fact about a person's inner state: not for
decisions about people.
"""


def put_card(
    folder: str | os.PathLike,
    repo_id: str,
    origin: str,
    on_hub: bool,
    labels: list[str],
    source_corpus: dict[str, str],
) -> None:
    """Write the README.md of weights that were saved in a folder.

    Weights that are byte for byte those of the local folder they were loaded from keep its card and plots, if these are
    files of that folder itself and what SERE writes under their names. All others get a card that says what they were
    made from, and that nothing was measured on them.

    Args:
        folder: holds the saved model.
        repo_id: its name on the Hub, or `UNNAMED`.
        origin: where the model was loaded from: a folder, a name on the Hub, or "". on_hub: whether it was the Hub; the
            path of a folder is told to nobody.
        labels: its emotions. source_corpus: what its configuration knows of the corpus of its labelled clips.

    Raises:
        ValueError: a link in the folder would be written through.
    """
    folder, before = Path(folder), Path(origin)
    base_model = origin if on_hub and is_hub_id(origin) else None
    kept = _kept(before) if origin and not on_hub and _unchanged(before, folder) else {}
    if CARD in kept:
        kept[CARD] = put_name(kept[CARD].decode("utf-8"), repo_id).encode("utf-8")
    else:
        kept = {CARD: _new_card(repo_id, base_model, labels, source_corpus).encode("utf-8")}
    for name, content in kept.items():
        status_of(folder, name)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def _kept(before: Path) -> dict[str, bytes]:
    """Return the card and the plots of a folder; nothing where one of them is not what it should be."""
    try:
        names = [name for name in known_names(before) if name == CARD or name.startswith("plots/")]
        return {name: read_known(before, name) for name in names}
    except (OSError, ValueError) as error:
        logger.warning("The card is written anew: %s.", error)
        return {}


def _new_card(repo_id: str, base_model: str | None, labels: list[str], source_corpus: dict[str, str]) -> str:
    facts = [f"It was made from [{base_model}](https://huggingface.co/{base_model})."] if base_model else []
    facts.append(f"Emotions: {', '.join(map(plain, labels))}.")
    corpus = [f"{key} {plain(text)}" for key, text in source_corpus.items()]
    facts.append(f"Corpus of its labelled clips: {', '.join(corpus) or 'not recorded'}.")
    return TEXT.format(
        name="SERE" if repo_id == UNNAMED else plain(repo_id.split("/")[-1]),
        repo_id=repo_id,
        base_model=f"base_model: {base_model}\n" if base_model else "",
        facts=" ".join(facts),
    )


def _unchanged(before: Path, folder: Path) -> bool:
    """Tell whether two folders hold the very same weights; not known of a folder that was saved over."""
    both = before / WEIGHTS, folder / WEIGHTS
    two = all(path.is_file() for path in both) and before.resolve() != folder.resolve()
    return two and filecmp.cmp(*both, shallow=False)


def put_name(card: str, repo_id: str) -> str:
    """Return the card of a run whose examples load it by its name on the Hub."""
    return card.replace(UNNAMED, repo_id)


def is_hub_id(name: object) -> bool:
    """Return whether a name has the form owner/name."""
    return isinstance(name, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]*\w", name, re.ASCII) is not None


def plain(text: str) -> str:
    """Return a name as one line of text that stays text in Markdown, HTML, a table and a code span.

    Names come from strangers: one that looks like a link, a heading, an image or a mention of a user is shown without
    the characters that would make it one.
    """
    visible = "".join(" " if part.isspace() else part for part in unicodedata.normalize("NFC", str(text)))
    visible = "".join(part for part in visible if part.isprintable())
    visible = re.sub(r"[][|<>`\"\\*~#$@{}]", "", visible).replace("://", ": ")
    visible = re.sub(r"(?i)\bwww\.", "www ", visible)
    visible = re.sub(r"(?<!\w)_+|_+(?!\w)", "", visible)
    visible = " ".join(visible.split())
    return visible if len(visible) <= MAX_NAME else f"{visible[: MAX_NAME - 3]}..."

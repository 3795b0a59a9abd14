"""The card (README.md) of a model that is pushed from Python rather than by the run that made it."""

import filecmp
import os
import shutil
from pathlib import Path

WEIGHTS = "model.safetensors"
UNNAMED = "path/to/this/folder"  # how the card of a run that had no name on the Hub calls its own place

CARD = """---
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

**Results of these weights: not measured.** This card was written while pushing, without the results of a run. What
unlabelled data the weights were adapted on is not recorded here. The terms of all data and models that they were made
from may bind what you do with them.

The weights file holds the classifier, the encoder if there is one, embeddings of labelled clips and statistics of
unlabelled ones. It holds no audio, file names or speaker ids; embeddings and statistics are still made from recordings
of people. A score tells how alike a voice sounds to examples. It is no fact about a person's inner state: not for
decisions about people.
"""


def put_card(
    folder: str | os.PathLike, repo_id: str, origin: str, labels: list[str], source_corpus: dict[str, str]
) -> None:
    """Write the README.md of weights that are to be uploaded from a folder.

    Weights that are byte for byte those of the local folder they were loaded from keep its card and plots. All others
    get a card that says what they were made from, and that nothing was measured on them.

    Args:
        folder: holds the saved model.
        repo_id: its name on the Hub.
        origin: where the model was loaded from: a folder, a name on the Hub, or "".
        labels: its emotions. source_corpus: what its configuration knows of the corpus of its labelled clips.
    """
    folder, before = Path(folder), Path(origin)
    if origin and _unchanged(before, folder) and (before / "README.md").is_file():
        text = (before / "README.md").read_text(encoding="utf-8")
        (folder / "README.md").write_text(named(text, repo_id), encoding="utf-8")
        if (before / "plots").is_dir():
            shutil.copytree(before / "plots", folder / "plots", dirs_exist_ok=True)
        return
    from_hub = origin and not before.exists()
    facts = [f"It was made from [{origin}](https://huggingface.co/{origin})."] if from_hub else []
    facts.append(f"Emotions: {', '.join(labels)}.")
    corpus = [f"{key} {text}" for key, text in source_corpus.items()]
    facts.append(f"Corpus of its labelled clips: {', '.join(corpus) or 'not recorded'}.")
    card = CARD.format(
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        base_model=f"base_model: {origin}\n" if from_hub else "",
        facts=" ".join(facts),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _unchanged(before: Path, folder: Path) -> bool:
    """Whether two folders hold the very same weights; not known of a folder that was saved over."""
    both = before / WEIGHTS, folder / WEIGHTS
    two = all(path.is_file() for path in both) and before.resolve() != folder.resolve()
    return two and filecmp.cmp(*both, shallow=False)


def named(card: str, repo_id: str) -> str:
    """The card of a run whose examples load it by its name on the Hub."""
    return card.replace(UNNAMED, repo_id)

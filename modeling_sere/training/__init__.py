"""Training and evaluation: corpora, few-shot episodes, features, adaptation, scores. Does not travel to the Hub."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .running.adapted import Adapted

__all__ = ["adapt"]


def adapt(source: Any = None, target: Any = None, **flags: Any) -> "Adapted":
    """Adapt a model to a new language: a call of `train_sere.py` from Python.

    Args:
        source: labelled clips. A folder, a table or the id of a dataset on the Hub, as `--source` takes them; a
            `datasets.Dataset`, or several that are one corpus; or a list of clips `(audio, emotion)` or `(audio,
            emotion, speaker)`, where the audio is whatever the pipeline takes: a path, bytes, samples at 16 kHz,
            `(rate, samples)`. A list of folders is several corpora, as is a list in which a corpus that is no folder
            is a list of its own. With `model` it can be left out.
        target: clips in the new language, likewise. In a list, emotion and speaker may be None or missing.
        flags: of `train_sere.py`, with their types in Python: `encoder="microsoft/wavlm-base"`, `shots=5`,
            `label_map={"Wut": "anger"}`, `emotions=["anger", "sadness"]`. Without `output_dir` the result lies in a
            temporary folder, until it is saved or pushed.

    Returns:
        The model, its predictions for the target and the results.

    Raises:
        RunError: one sentence on what cannot be used, as on the command line.
    """
    from train_sere import run  # takes seconds to import

    from .running.adapted import adapted

    return adapted(run, source, target, flags)

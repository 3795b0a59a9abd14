"""Emotion labels: spellings that mean the same, and label maps."""

import json
from collections.abc import Iterable
from pathlib import Path

from modeling_sere.training.errors import RunError

# Spellings that can only mean one emotion. Every use is reported (`Corpus.relabelled`); `label_map` overrides them.
LABEL_ALIASES = {
    spelling: emotion
    for emotion, spellings in {
        "anger": ("angry", "ang"),
        "happiness": ("happy", "joy", "hap"),
        "sadness": ("sad",),
        "fear": ("fearful", "fea"),
        "disgust": ("disgusted", "dis"),
        "surprise": ("surprised", "sur"),
        "neutral": ("neutrality", "neu"),
        "boredom": ("bored",),
        "contempt": ("contemptuous",),
        "calm": ("calmness",),
    }.items()
    for spelling in spellings
}


def parse_label_map(text: str) -> dict[str, str]:
    """`"Wut=anger,Freude=happiness"`, or the path of a JSON file with one such object, as a dictionary.

    Keys and values are stripped and lowered, as labels are; a value is taken literally, without `LABEL_ALIASES`.

    Raises:
        RunError: the text or the file has another form, or gives one spelling two emotions.
    """
    if text.strip().lower().endswith(".json") and "=" not in text:
        return normalised_map(_json_pairs(Path(text.strip()).expanduser()))
    pairs = [part.split("=") for part in text.split(",") if part.strip()]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise RunError(f"label map: {'='.join(bad[0]).strip()!r} is not of the form spelling=emotion")
    return normalised_map(pairs)


def normal_label(label: str) -> str:
    return label.strip().lower()


def normalised_map(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    result = {}
    for spelling, emotion in pairs:
        spelling, emotion = normal_label(spelling), normal_label(emotion)
        if not spelling or not emotion:
            raise RunError(f"label map: '{spelling}={emotion}' needs a spelling and an emotion")
        if result.setdefault(spelling, emotion) != emotion:
            raise RunError(f"label map: {spelling!r} is given both as {result[spelling]} and as {emotion}")
    return result


def _json_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        # every object as a tuple of pairs: repeated keys stay visible, and arrays remain distinct from objects
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=tuple)
    except OSError as error:
        raise RunError(f"label map {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"label map {path} is not JSON in UTF-8: {error}") from error
    if not isinstance(pairs, tuple) or not all(isinstance(value, str) for _, value in pairs):
        raise RunError(f'label map {path} must be one JSON object of texts, like {{"Wut": "anger"}}')
    return list(pairs)

"""Names as people write them: labels, speakers, columns and files, compared however Unicode spells them."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

SHOWN = 200  # characters of a file's own text in a message
# not seen, and not of the category Cf: the grapheme joiner, and what chooses between two looks of a character
_UNSEEN = re.compile("[\u034f\u180b-\u180d\ufe00-\ufe0f]")
_DOTS = str.maketrans("\u0130\u0131", "ii")  # Turkish capital I with a dot and small i without one


def clean_name(text: str) -> str:
    """Return a name without what nobody sees: in NFC, no zero-width characters, single blanks, none at its ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = _UNSEEN.sub("", "".join(c for c in text if unicodedata.category(c) != "Cf"))
    return " ".join(text.split())


def normal_name(text: str) -> str:
    """Return the form in which two names are compared: without regard to case, blanks, Unicode form and i-dots.

    Full-width and other compatibility characters become plain ones. Applied again it changes nothing.
    """
    if text.isascii():
        return clean_name(text).lower()
    text = clean_name(text)
    for _ in range(2):  # folding can undo the normal form, and the normal form can bring back capitals
        text = unicodedata.normalize("NFKC", text).translate(_DOTS).casefold()
        text = clean_name(unicodedata.normalize("NFKC", text.replace("i\u0307", "i")))
    return text


def compact_name(text: str) -> str:
    """Return `normal_name` without blanks, underscores, hyphens and dots: "File Name" and file_name are one column."""
    return re.sub(r"[\s_.-]+", "", normal_name(text))


def shown(text: str) -> str:
    """Return what a file says fit for a message of one line."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def number(count: int, noun: str) -> str:
    """Return "1 clip", "2 clips"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return names for a message, separated by commas; of a long list the first ones and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(shown, names[:most])) or "none") + more


def counted(counts: Mapping[str, int], most: int = 20) -> str:
    """Return names with their counts for a message, the most frequent first: "anger 13, fear 12"."""
    order = sorted(counts, key=lambda name: (-counts[name], name))
    more = f" and {len(order) - most} more" if len(order) > most else ""
    return (", ".join(f"{shown(name)} {counts[name]}" for name in order[:most]) or "none") + more

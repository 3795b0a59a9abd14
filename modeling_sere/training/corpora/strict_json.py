"""JSON written by strangers."""

import json
from typing import Any


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: in one line, why not: no JSON, a key twice in one object, half of a character, nested too deeply, or
            a number of thousands of digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeated_keys)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a character can be neither printed nor saved
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(getattr(error, "msg", str(error))) from error


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return values

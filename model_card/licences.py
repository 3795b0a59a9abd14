"""Licences: what those of the data leave open for a checkpoint that is made from them."""

CONDITIONS = {
    "by": "attribution",
    "nc": "no commercial use",
    "sa": "share alike",
    "nd": "no derivatives",
}
FREE = {"cc0-1.0", "pddl", "unlicense", "wtfpl"}  # no condition at all
ATTRIBUTION = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "odc-by"}


def conditions(licence: str) -> list[str] | None:
    """Return the conditions of a licence of the Hub's list, as keys of `CONDITIONS`; None where they are unknown."""
    if licence in FREE:
        return []
    if licence in ATTRIBUTION:
        return ["by"]
    parts = licence.split("-")
    if parts[0] != "cc" or "by" not in parts:
        return None
    return [part for part in parts if part in CONDITIONS]


def consequence(licence: str) -> str:
    """Return a licence with its conditions in words."""
    known = conditions(licence)
    if known is None:
        return f"{licence} (its conditions are not known to this card: read them)"
    return f"{licence} ({', '.join(CONDITIONS[key] for key in known) or 'no conditions'})"


def joint_licence(licences: list[str | None]) -> str | None:
    """Return the one of these licences whose conditions include all others', or None where no such one is certain.

    A licence that is missing or not known, works of which no derivatives may be shared, and two different share-alike
    licences leave no certain one. Attribution in the sense of CC BY covers the notices that licences of code ask for.
    """
    known = {licence: conditions(licence) for licence in licences if licence is not None}
    if None in licences or None in known.values() or any("nd" in each for each in known.values()):
        return None
    alike = {licence for licence, each in known.items() if "sa" in each}
    everything = set().union(*known.values())
    widest = [licence for licence, each in known.items() if set(each) == everything and alike <= {licence}]
    if len(widest) > 1:
        widest = [licence for licence in widest if licence.startswith("cc-by")]
    return widest[0] if len(widest) == 1 else None

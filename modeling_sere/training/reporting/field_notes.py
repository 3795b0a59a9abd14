"""What the field found out about the target besides its emotions: who shows which, and which occur at all."""

from collections.abc import Iterator, Sequence

from modeling_sere.training.organising.adaptation import Organised

MUCH = 0.3  # tie of speakers and emotions from which on a user should know of it


def found_by(organised: Organised, labels: Sequence[str]) -> dict:
    """Return the part of results.json that tells of it."""
    return {"speaker_emotion_tie": organised.tied, "emotions_not_heard": [labels[k] for k in organised.absent]}


def notes_on_field(organised: Organised, labels: Sequence[str]) -> Iterator[str]:
    """Give one sentence each on what may not be as the user thinks it is."""
    if organised.tied is not None and organised.tied > MUCH:
        yield (
            f"The speakers of the target differ much in their emotions (tie {organised.tied:.2f}, 0 is none): voice and"
            " emotion are then hard to tell apart, and answers less sure."
        )
    if organised.absent:
        names = ", ".join(labels[k] for k in organised.absent)
        yield f"No clip of the target sounds like {names}: hardly any is given it; --emotions says which to expect."

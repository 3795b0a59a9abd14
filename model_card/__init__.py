"""The model card of a SERE checkpoint, generated from the results of its run."""

from .card import write_card

__all__ = ["write_card"]

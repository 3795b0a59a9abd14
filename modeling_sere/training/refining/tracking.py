"""Experiment trackers: what --report_to means."""

from dataclasses import asdict

from accelerate.utils import is_tensorboard_available

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError

PATHS = ("source", "target", "encoder", "model", "label_map", "output_dir", "cache_dir")


def tracked_arguments(arguments: SereArguments) -> dict:
    """Return what a tracker is told of the run: no paths, as TensorBoard's log lies in a folder that is published."""
    return {name: value for name, value in asdict(arguments).items() if name not in PATHS}


def trackers(report_to: str | None) -> list[str]:
    """Return names for `Accelerator(log_with=...)`; TensorBoard by default where it is installed.

    Raises:
        RunError: a tracker is unknown or its package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if report_to is None:
        return ["tensorboard"] if is_tensorboard_available() else []
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    available = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    for name in names:
        if name not in available:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise RunError(f"--report_to {name}: install it with pip, or choose from {', '.join(known)} and none.")
    return names

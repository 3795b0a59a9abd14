"""SERE: cross-lingual speech emotion recognition from a few labelled clips.

The model is imported, and made known to transformers' auto classes, when one of these names is first used: what needs
no model, as `train_sere.py --help`, does not wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_sere import SereConfig
    from .modeling_sere import SereForAudioClassification, SereModel

__all__ = ["SereConfig", "SereForAudioClassification", "SereModel"]


def __getattr__(name: str) -> Any:
    """Import the model's classes and register them with the auto classes."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

    from .configuration_sere import SereConfig
    from .modeling_sere import SereForAudioClassification, SereModel

    AutoConfig.register(SereConfig.model_type, SereConfig, exist_ok=True)
    AutoModel.register(SereConfig, SereModel, exist_ok=True)
    AutoModelForAudioClassification.register(SereConfig, SereForAudioClassification, exist_ok=True)
    return {kind.__name__: kind for kind in (SereConfig, SereForAudioClassification, SereModel)}[name]

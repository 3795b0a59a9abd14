"""SERE: cross-lingual speech emotion recognition from a few labelled clips."""

from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

from .configuration_sere import SereConfig
from .modeling_sere import SereForAudioClassification, SereModel

__all__ = ["SereConfig", "SereForAudioClassification", "SereModel"]

AutoConfig.register(SereConfig.model_type, SereConfig, exist_ok=True)
AutoModel.register(SereConfig, SereModel, exist_ok=True)
AutoModelForAudioClassification.register(SereConfig, SereForAudioClassification, exist_ok=True)

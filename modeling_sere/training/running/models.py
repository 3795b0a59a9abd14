"""The model of a run: a new one around the chosen encoder, or one that starts from a SERE checkpoint."""

import torch
from transformers import AutoConfig, AutoFeatureExtractor

from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.errors import RunError, first_line


def prior_weight(arguments: SereArguments, speaker_ids: bool) -> float:
    """Choose the weight of the prior; by default it is less without speaker ids, as cues are less sure then."""
    if arguments.prior_weight is not None:
        return arguments.prior_weight
    return 2.0 if speaker_ids else 1.0


def encoder_options(arguments: SereArguments) -> dict:
    """Return the fields of the configuration that describe the encoder."""
    try:
        place = {"revision": arguments.encoder_revision, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(arguments.encoder, **place)
        extractor = AutoFeatureExtractor.from_pretrained(arguments.encoder, **place)
    except Exception as error:  # transformers meets what is in a stranger's files in many places
        raise RunError(f"--encoder {arguments.encoder} cannot be loaded: {_reason(error)}") from error
    return {"encoder_config": config, "encoder_normalize": bool(getattr(extractor, "do_normalize", True))}


def fields(arguments: SereArguments, labels: list[str], speaker_ids: bool) -> dict:
    """Return the fields of the configuration that the arguments set, whatever the encoder."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "prior_weight": prior_weight(arguments, speaker_ids),
        "field_balance": arguments.field_balance,
        "tric_weight": arguments.tric_weight,
        "consistency_weight": arguments.consistency_weight,
        "num_sources": arguments.shots * len(labels),
    }


def build_model(
    arguments: SereArguments, labels: list[str], speaker_ids: bool, weights: bool = True, **changes
) -> SereForAudioClassification:
    """Build a model around the chosen encoder, not yet organised.

    Args:
        speaker_ids: whether clips will be normalised per speaker.
        weights: load the encoder's; a model that gets cached features can do without.
        changes: fields of the configuration that differ from what the arguments give.

    Raises:
        RunError: the encoder or a field of the configuration cannot be used.
    """
    options = encoder_options(arguments) if arguments.encoder != "none" else {}
    try:
        config = SereConfig(**(fields(arguments, labels, speaker_ids) | options | changes))
    except ValueError as error:
        where = f"--encoder {arguments.encoder}: " if str(error).startswith("encoder_config") else ""
        raise RunError(where + first_line(error)) from error
    try:
        model = SereForAudioClassification(config).eval()
        if arguments.encoder != "none" and weights:
            model.sere.encoder.load_encoder(arguments.encoder, revision=arguments.encoder_revision)
    except Exception as error:  # of a stranger's configuration and weights
        raise RunError(f"--encoder {arguments.encoder} cannot be loaded: {_reason(error)}") from error
    return model


def _reason(error: Exception) -> str:
    """Say what is wrong in one line, with the kind of error where its text alone says little."""
    text = first_line(error).strip()
    return text if isinstance(error, (OSError, ValueError)) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def load_checkpoint(arguments: SereArguments) -> SereForAudioClassification:
    """Load the model that `--model` names, run by this package's code and not by the code that lies beside its
    weights.

    Raises:
        RunError: it is no SERE model, has no weights in safetensors, or cannot be reached.
    """
    try:
        kind = SereConfig.get_config_dict(arguments.model, revision=arguments.model_revision)[0].get("model_type")
        if kind != SereConfig.model_type:
            raise RunError(
                f"--model {arguments.model} is of type {kind}, not a SERE model: give an encoder as --encoder."
            )
        return SereForAudioClassification.from_pretrained(
            arguments.model, revision=arguments.model_revision, dtype=torch.float32
        )
    except RunError:
        raise
    except Exception as error:  # as above
        raise RunError(f"--model {arguments.model} cannot be loaded: {_reason(error)}") from error


def continue_model(
    checkpoint: SereForAudioClassification, arguments: SereArguments, labels: list[str], speaker_ids: bool, **changes
) -> SereForAudioClassification:
    """Build a model with the encoder, the refined weights and the prior of a checkpoint, not yet organised.

    Other arguments as in `build_model`.

    Raises:
        RunError: a field of the configuration, or an encoder to train, that cannot be used.
    """
    if arguments.train_encoder != "none" and checkpoint.sere.encoder is None:
        raise RunError(f"--model {arguments.model} has no encoder: leave --train_encoder out.")
    try:
        given = fields(arguments, labels, speaker_ids) | changes
        config = SereConfig.from_dict(checkpoint.config.to_dict() | given)
    except ValueError as error:
        raise RunError(first_line(error)) from error
    model = SereForAudioClassification(config).eval()
    model.sere.load_state_dict(checkpoint.sere.state_dict())
    return model

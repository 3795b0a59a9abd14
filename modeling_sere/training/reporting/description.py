"""The part of results.json that tells what was run: data, protocol, licences, versions."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from modeling_sere import SereConfig
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.provenance import model_license
from modeling_sere.training.encoding.pool import Pool, Pools
from modeling_sere.training.organising.carried_sources import Sources
from modeling_sere.training.reporting.duplicates import in_both

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface-hub", "safetensors", "numpy")


def describe(
    arguments: SereArguments, config: SereConfig, source: Pool | Pools | Sources, target: Pool, shots: torch.Tensor,
    origin: dict,
) -> dict:  # fmt: skip
    """Return the facts of a run, as they stand in results.json.

    Args:
        config: of the model. source, target: its clips. shots: (n source,) class index of the labelled ones, -100
            elsewhere. origin: what `origins` gives.
    """
    return origin | _of_source(arguments, source, target, shots) | {
        "labels": list(target.labels), "chance": 1 / len(target.labels), "setting": arguments.setting,
        "speaker_ids": target.speaker_ids, "num_source_clips": len(source), "num_target_clips": len(target),
        "skipped_clips": [asdict(clip) for clip in source.skipped + target.skipped],
        "license": arguments.license,
        "parameters": {"prior_weight": config.prior_weight, "field_balance": config.field_balance},
        "refine_steps": arguments.refine_steps, "train_encoder": arguments.train_encoder, "versions": versions(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result."""
    return {package: version(package) for package in PACKAGES}


def origins(arguments: SereArguments, config: SereConfig, target: dict[str, str]) -> dict:
    """Return names, languages and licences of what the model is made from; called before any work is done.

    Args:
        config: of the model, with the facts of its source corpus. target: what `corpus_facts` gives for the target.

    Raises:
        RunError: a card that cannot be read.
    """
    encoder, start, revision = None, None, None
    if arguments.model is not None:
        encoder, start = config.encoder_config and config.encoder_config.model_type, arguments.model
        revision = arguments.model_revision
    elif arguments.encoder != "none":
        encoder, start, revision = Path(arguments.encoder).name, arguments.encoder, arguments.encoder_revision
    facts = {
        f"{side}_{key}": known.get(key)
        for side, known in (("source", config.source_corpus), ("target", target))
        for key in ("language", "license")
    }
    return facts | {
        "source": config.source_corpus.get("name"), "target": target["name"], "encoder": encoder,
        # a folder's name is nobody else's business
        "base_model": None if start is None or Path(start).exists() else start,
        "base_license": None if start is None else model_license(start, revision),
    }  # fmt: skip


def _of_source(arguments: SereArguments, source: Pool | Pools | Sources, target: Pool, shots: torch.Tensor) -> dict:
    """Tell where the labelled clips come from: drawn from corpora, or all that travelled in the model."""
    if isinstance(source, Sources):
        return {
            "source_free": True, "shots": source.shots, "seed": None, "num_unlabelled_source": 0,
            "source_speaker_ids": None, "shot_files": None, "same_audio_in_both": None, "shots_in_target": None,
        }  # fmt: skip
    labelled = int((shots != UNLABELLED).sum())
    return {
        "source_free": False, "shots": arguments.shots, "seed": arguments.seed,
        "num_unlabelled_source": len(source) - labelled, "source_speaker_ids": source.speaker_ids,
        "shot_files": source.names(shots),
    } | in_both(source, target, shots)  # fmt: skip

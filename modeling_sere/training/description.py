"""What was run: the part of results.json from which the model card tells of data, protocol and licences."""

from dataclasses import asdict
from pathlib import Path

from modeling_sere import SereConfig
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.outputs import versions
from modeling_sere.training.pool import Pool
from modeling_sere.training.sources import Sources


def describe(
    arguments: SereArguments, config: SereConfig, source: Pool | Sources, target: Pool, target_facts: dict[str, str]
) -> dict:
    """The facts of a run.

    Args:
        config: of the model, with the facts of its source corpus. source, target: its clips.
        target_facts: what `corpus_facts` gives for the target.
    """
    origin = config.source_corpus
    return _of_source(arguments, source) | {
        "source": origin.get("name"), "target": target.name, "labels": target.labels, "chance": 1 / len(target.labels),
        "source_language": origin.get("language"), "target_language": target_facts.get("language"),
        "source_license": origin.get("license"), "target_license": target_facts.get("license"),
        "license": arguments.license, "setting": arguments.setting, "speaker_ids": target.speaker_ids,
        "num_source_clips": len(source), "num_target_clips": len(target),
        "skipped_clips": [asdict(clip) for clip in source.skipped + target.skipped],
        "model_id": arguments.hub_model_id, **_start(arguments, config),
        "parameters": {"prior_weight": config.prior_weight, "field_balance": config.field_balance},
        "refine_steps": arguments.refine_steps, "train_encoder": arguments.train_encoder, "versions": versions(),
    }  # fmt: skip


def _of_source(arguments: SereArguments, source: Pool | Sources) -> dict:
    """Where the labelled clips come from: drawn from a corpus, or all that travelled in the model."""
    if isinstance(source, Sources):
        return {"source_free": True, "shots": source.shots, "seed": None, "num_unlabelled_source": 0}
    labelled = arguments.shots * len(source.labels)
    return {
        "source_free": False, "shots": arguments.shots, "seed": arguments.seed,
        "num_unlabelled_source": len(source) - labelled, "source_speaker_ids": source.speaker_ids,
    }  # fmt: skip


def _start(arguments: SereArguments, config: SereConfig) -> dict:
    """The encoder, and the model on the Hub that this one was made from; a folder's name is nobody else's business."""
    if arguments.model is not None:
        encoder, start = config.encoder_config and config.encoder_config.model_type, arguments.model
    elif arguments.encoder != "none":
        encoder, start = Path(arguments.encoder).name, arguments.encoder
    else:
        encoder, start = None, None
    return {"encoder": encoder, "base_model": None if start is None or Path(start).exists() else start}

"""What was run: the part of results.json from which the model card tells of data, protocol and licences."""

from dataclasses import asdict
from pathlib import Path

from modeling_sere import SereConfig
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpus_card import corpus_card
from modeling_sere.training.data import Corpus
from modeling_sere.training.outputs import versions
from modeling_sere.training.pool import Pool
from modeling_sere.training.sources import Sources


def source_facts(corpus: Corpus, address: str) -> dict[str, str]:
    """Name, language and licence of a source corpus, as far as they are known: they travel with its labelled clips."""
    card = corpus_card(address)
    facts = {"name": corpus.name, "language": corpus.language or card.language, "license": card.license}
    return {key: text for key, text in facts.items() if text is not None}


def describe(
    arguments: SereArguments, config: SereConfig, source: Pool | Sources, target: Pool, corpus: Corpus
) -> dict:
    """The facts of a run.

    Args:
        config: of the model. source, target: its clips. corpus: that of the target.
    """
    card, origin = corpus_card(arguments.target), config.source_corpus
    return _of_source(arguments, source) | {
        "source": origin.get("name"), "target": target.name, "labels": target.labels, "chance": 1 / len(target.labels),
        "source_language": origin.get("language"), "target_language": corpus.language or card.language,
        "source_license": origin.get("license"), "target_license": card.license, "license": arguments.license,
        "setting": arguments.setting, "speaker_ids": target.speaker_ids,
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

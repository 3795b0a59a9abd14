#!/usr/bin/env python
"""Adapt SERE to a new language: a few labelled clips per emotion in one language, unlabelled clips in another.

    accelerate launch train_sere.py                                     # the sample in samples/, no download
    accelerate launch train_sere.py --encoder microsoft/wavlm-base --source emodb/ --target my_clips/ --output_dir out
    accelerate launch train_sere.py --model org/sere-wavlm --target my_clips/     # without source data
    accelerate launch train_sere.py run.json                            # the same flags in one file

A. read the arguments and the corpora  B. encode every clip once  C. draw the shots and organise  D. refine, and
organise again  E. score on the target  F. save model, card and results.json, and push them to the Hub
"""

import logging
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers.utils import logging as transformers_logging

from model_card.card import write_card
from modeling_sere.training import outputs
from modeling_sere.training.adaptation import Adaptation
from modeling_sere.training.arguments import SereArguments, parse_arguments
from modeling_sere.training.calibration import calibrate
from modeling_sere.training.corpus_card import corpus_card
from modeling_sere.training.data import Corpus, DataError, check_skipped, load_corpus, parse_label_map
from modeling_sere.training.episodes import draw_shots, shared_labels, split_speakers
from modeling_sere.training.evaluation import Evaluation, spread
from modeling_sere.training.features import FeatureExtraction
from modeling_sere.training.hub import Destination
from modeling_sere.training.models import build_model, continue_model, load_checkpoint, prior_weight
from modeling_sere.training.pool import Pool, kept_clips
from modeling_sere.training.refinement import refine
from modeling_sere.training.sources import Sources
from modeling_sere.training.tracking import recorded, trackers

logger = logging.getLogger("sere")


def read_corpora(arguments: SereArguments, known: list[str] | None) -> tuple[Corpus | None, Corpus, list[str]]:
    """Metadata of the corpora and the emotions that source and target share, shown to the user.

    Args:
        known: emotions of the model that brings the labelled clips, if there is no source corpus.
    """
    common = {
        "audio_column": arguments.audio_column,
        "label_column": arguments.label_column,
        "speaker_column": arguments.speaker_column,
        "streaming": arguments.streaming,
        "label_map": parse_label_map(arguments.label_map) if arguments.label_map else None,
    }
    source = None
    if arguments.source is not None:
        source = load_corpus(
            arguments.source, split=arguments.source_split, config=arguments.source_config, **common
        )
    target = load_corpus(
        arguments.target, split=arguments.target_split, config=arguments.target_config, require_labels=False, **common
    )
    labels = shared_labels(known if source is None else source.labels, target.labels)
    for corpus in filter(None, (source, target)):
        others = sorted(set(corpus.labels) - {None, *labels})
        logger.info(
            "%s: %d of %d clips take part%s%s", corpus.name, len(kept_clips(corpus, labels)), len(corpus),
            f"; not shared: {', '.join(others)}" if others else "",
            "".join(f"; {old} read as {new}" for old, new in corpus.relabelled.items()),
        )  # fmt: skip
    logger.info("Emotions in both: %s", ", ".join(labels))
    # too few clips or speakers: say so now
    if source is not None:
        draw_shots(source.labels, source.names, labels, arguments.shots, arguments.seed)
    if arguments.setting == "inductive":
        split_speakers([target.clips[index].speaker for index in kept_clips(target, labels)], arguments.seed)
    return source, target, labels


def known_of_source(corpus: Corpus, card: CorpusCard) -> dict[str, str]:
    """What travels with the labelled clips of a source corpus, as far as it is known."""
    facts = {"name": corpus.name, "language": corpus.language or card.language, "license": card.license}
    return {key: text for key, text in facts.items() if text is not None}


def describe(arguments: SereArguments, model, source: Pool | Sources, target: Pool, language: str | None) -> dict:
    """The part of results.json that says what was run. language: of the target, if its corpus tells."""
    origin, target_card, encoder = model.config.source_corpus, corpus_card(arguments.target), model.config.encoder_config
    start = arguments.model or (None if arguments.encoder == "none" else arguments.encoder)
    facts = {
        "source": origin.get("name"), "target": target.name, "labels": target.labels, "chance": 1 / len(target.labels),
        "source_language": origin.get("language"), "target_language": language or target_card.language,
        "source_license": origin.get("license"), "target_license": target_card.license, "license": arguments.license,
        "setting": arguments.setting, "speaker_ids": target.speaker_ids, "seed": arguments.seed,
        "num_source_clips": len(source), "num_target_clips": len(target), "num_unlabelled_source": 0,
        "encoder": None if encoder is None else Path(start).name, "source_free": arguments.source is None,
        "base_model": None if start is None or Path(start).exists() else start, "model_id": arguments.hub_model_id,
        "parameters": {"prior_weight": model.config.prior_weight, "field_balance": model.config.field_balance},
        "refine_steps": arguments.refine_steps, "train_encoder": arguments.train_encoder,
        "skipped_clips": [asdict(clip) for clip in target.features.skipped], "versions": outputs.versions(),
    }  # fmt: skip
    if isinstance(source, Sources):
        return facts | {"shots": source.shots}
    return facts | {
        "shots": arguments.shots, "num_unlabelled_source": len(source) - arguments.shots * len(source.labels),
        "source_speaker_ids": source.speaker_ids,
        "skipped_clips": [asdict(clip) for clip in source.features.skipped + target.features.skipped],
    }  # fmt: skip


def main():
    # A. Read the arguments and the corpora: what is wrong in them is said before anything is written
    arguments = parse_arguments(sys.argv[1:])
    folder = outputs.OutputFolder(arguments)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else torchrun's processes would not find each other on CPUs
        log_with=trackers(arguments.report_to) or None,
        project_dir=folder.partial,
    )
    level = logging.WARNING if accelerator.is_main_process else logging.ERROR
    logging.basicConfig(format="%(message)s", level=level, force=True)
    if accelerator.is_main_process:
        logger.setLevel(logging.INFO)  # ours alone: other libraries tell of every request they make
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    set_seed(arguments.seed)
    source_corpus, target_corpus, labels = read_corpora(arguments)
    speaker_ids = arguments.speaker_ids and target_corpus.has_speakers
    seconds = {}

    @contextmanager
    def stage(name):
        start = time.monotonic()
        yield
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 2)

    # B. Encode every clip once
    model = build_model(arguments, labels, speaker_ids)

    def encode(cache_dir: str | None) -> list[Pool]:
        extract = FeatureExtraction(model.sere.to(accelerator.device), accelerator, cache_dir)
        pools = []
        for corpus in (source_corpus, target_corpus):
            features = extract(corpus, kept_clips(corpus, labels))
            check_skipped(features.skipped, len(features.indices) + len(features.skipped), arguments.max_skipped)
            pools.append(Pool(corpus, features, labels, arguments.speaker_ids))
        model.to("cpu")
        return pools

    with stage("encode"):
        source, target = encode(arguments.cache_dir)
    adapting = scored = list(range(len(target)))
    if arguments.setting == "inductive":
        adapting, scored = split_speakers([clip.speaker for clip in target.clips], arguments.seed)

    # C. Draw the shots and organise
    shots = source.shots(arguments.shots, arguments.seed)

    def organise():
        adaptation = Adaptation(model, source.domain, target.domain.subset(adapting))
        organised = adaptation.organise(shots)
        temperature = calibrate(adaptation, organised)
        adaptation.install(organised, temperature)
        return adaptation, organised, temperature

    with stage("organise"):
        adaptation, organised, temperature = organise()

    # D. Refine, on frames or with the encoder on audio; the features have changed then, so organise again
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    if arguments.refine_steps > 0:
        accelerator.init_trackers("sere", config=recorded(arguments))
        with stage("refine"):
            refine(
                arguments, accelerator, adaptation, shots, folder.checkpoint,
                [(source_corpus, source.features.indices),
                 (target_corpus, [target.features.indices[row] for row in adapting])],
                lambda losses, step: accelerator.log(losses, step=step),
            )  # fmt: skip
        with stage("encode"):
            source, target = encode(None)  # no other run will have this model
        with stage("organise"):
            adaptation, organised, temperature = organise()
    if not accelerator.is_main_process:
        accelerator.end_training()
        return

    # E. Score on the target
    results = describe(arguments, source, target, (source_corpus, target_corpus))
    results["shot_files"] = source.names(shots)
    evaluation = Evaluation(adaptation, target, scored, arguments.setting)
    with stage("score"):
        results |= outputs.NOT_SCORED
        if len(evaluation):
            results |= evaluation.stages(organised)
            single = Evaluation(adaptation, target, scored, "inductive")
            results["uar_single_clip"] = single.scores(organised)["uar"]
            results["calibration"] = {
                "temperature": temperature,
                "ece_before": single.calibration_error(adaptation.single(organised)),
                "ece_after": single.calibration_error(adaptation.single(organised) * (1 / temperature)),
            }
        if len(evaluation) and arguments.refine_steps == 0:  # refined features belong to one draw of shots
            seeds = list(range(arguments.seed, arguments.seed + arguments.draws))
            draws = [adaptation.organise(source.shots(arguments.shots, seed)) for seed in seeds]
            results["spread"] = spread(seeds, [evaluation.scores(draw)["uar"] for draw in draws])
        results["same_audio_in_both"] = outputs.same_audio(source, target)

    # F. Save model, card and results
    with stage("save"):
        model.save_pretrained(folder.partial)
        results["seconds"] = seconds
        write_card(results, folder.partial, outputs.highlight_example(model, target_corpus, target))
    accelerator.end_training()
    outputs.save_results(results, folder.partial)
    folder.publish()
    print(outputs.table(results), f"\nSaved in {folder.final}: model, README.md (model card), results.json", sep="")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"train_sere.py: {error}")

#!/usr/bin/env python
"""Adapt SERE to a new language: a few labelled clips per emotion in one language, unlabelled clips in another.

    accelerate launch train_sere.py                                     # the sample in samples/, no download
    accelerate launch train_sere.py --encoder microsoft/wavlm-base --source emodb/ --target my_clips/ --output_dir out
    accelerate launch train_sere.py run.json                            # the same flags in one file

A. read the arguments and the corpora  B. encode every clip once  C. draw the shots and organise  D. refine, and
organise again  E. score on the target  F. save model, card and results.json
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
from modeling_sere.training.data import Corpus, DataError, check_skipped, load_corpus, parse_label_map
from modeling_sere.training.episodes import draw_shots, shared_labels, split_speakers
from modeling_sere.training.evaluation import Evaluation, spread
from modeling_sere.training.features import FeatureExtraction
from modeling_sere.training.models import build_model, prior_weight
from modeling_sere.training.pool import Pool, kept_clips
from modeling_sere.training.refinement import refine
from modeling_sere.training.tracking import recorded, trackers

logger = logging.getLogger("sere")


def read_corpora(arguments: SereArguments) -> tuple[Corpus, Corpus, list[str]]:
    """Metadata of both corpora and the emotions they share, shown to the user."""
    common = {
        "audio_column": arguments.audio_column,
        "label_column": arguments.label_column,
        "speaker_column": arguments.speaker_column,
        "streaming": arguments.streaming,
        "label_map": parse_label_map(arguments.label_map) if arguments.label_map else None,
    }
    source = load_corpus(
        arguments.source, split=arguments.source_split, config=arguments.source_config, **common
    )
    target = load_corpus(
        arguments.target, split=arguments.target_split, config=arguments.target_config, require_labels=False, **common
    )
    labels = shared_labels(source.labels, target.labels)
    for corpus in (source, target):
        others = sorted(set(corpus.labels) - {None, *labels})
        logger.info(
            "%s: %d of %d clips take part%s%s", corpus.name, len(kept_clips(corpus, labels)), len(corpus),
            f"; not shared: {', '.join(others)}" if others else "",
            "".join(f"; {old} read as {new}" for old, new in corpus.relabelled.items()),
        )  # fmt: skip
    logger.info("Emotions in both: %s", ", ".join(labels))
    # too few clips or speakers: say so now
    draw_shots(source.labels, source.names, labels, arguments.shots, arguments.seed)
    if arguments.setting == "inductive":
        split_speakers([target.clips[index].speaker for index in kept_clips(target, labels)], arguments.seed)
    return source, target, labels


def describe(arguments: SereArguments, source: Pool, target: Pool, corpora: tuple[Corpus, Corpus]) -> dict:
    """The part of results.json that says what was run."""
    skipped = source.features.skipped + target.features.skipped
    return {
        "source": source.name, "target": target.name, "labels": source.labels, "chance": 1 / len(source.labels),
        "source_language": corpora[0].language, "target_language": corpora[1].language,
        "shots": arguments.shots, "seed": arguments.seed, "setting": arguments.setting,
        "speaker_ids": target.speaker_ids, "source_speaker_ids": source.speaker_ids,
        "num_source_clips": len(source), "num_target_clips": len(target),
        "num_unlabelled_source": len(source) - arguments.shots * len(source.labels),
        "skipped_clips": [asdict(clip) for clip in skipped],
        "encoder": None if arguments.encoder == "none" else Path(arguments.encoder).name,
        "base_model": None if arguments.encoder == "none" or Path(arguments.encoder).exists() else arguments.encoder,
        "parameters": {"prior_weight": prior_weight(arguments, target.speaker_ids),
                       "field_balance": arguments.field_balance},
        "refine_steps": arguments.refine_steps, "train_encoder": arguments.train_encoder,
        "versions": outputs.versions(),
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

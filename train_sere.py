#!/usr/bin/env python
"""Adapt SERE to a new language: a few labelled clips per emotion in one language, unlabelled clips in another.

    accelerate launch train_sere.py                                     # the sample in samples/, no download
    accelerate launch train_sere.py --encoder microsoft/wavlm-base --source emodb/ --target my_clips/ --output_dir out/it
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

from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoFeatureExtractor, HfArgumentParser
from transformers.utils import logging as transformers_logging

from model_card.card import write_card
from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.training import outputs
from modeling_sere.training.adaptation import Adaptation
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.data import Corpus, DataError, check_skipped, load_corpus, parse_label_map
from modeling_sere.training.episodes import draw_shots, shared_labels, split_speakers
from modeling_sere.training.evaluation import Evaluation, spread
from modeling_sere.training.features import FeatureExtraction
from modeling_sere.training.pool import Pool, kept_clips
from modeling_sere.training.refinement import refine
from modeling_sere.training.tracking import trackers

logger = logging.getLogger("sere")


def parse() -> SereArguments:
    """Flags, or one JSON file of them."""
    parser = HfArgumentParser(SereArguments)
    try:
        if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
            return parser.parse_json_file(sys.argv[1])[0]
        return parser.parse_args_into_dataclasses()[0]
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error


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
    draw_shots(source.labels, source.names, labels, arguments.shots, arguments.seed)  # too few clips: say so now
    return source, target, labels


def encoder_options(arguments: SereArguments) -> dict:
    """What the configuration needs to know of the encoder."""
    try:
        config = AutoConfig.from_pretrained(arguments.encoder, revision=arguments.encoder_revision)
        extractor = AutoFeatureExtractor.from_pretrained(arguments.encoder, revision=arguments.encoder_revision)
    except (OSError, ValueError) as error:
        raise DataError(f"--encoder {arguments.encoder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return {"encoder_config": config, "encoder_normalize": bool(getattr(extractor, "do_normalize", True))}


def build_model(arguments: SereArguments, labels: list[str], speaker_ids: bool) -> SereForAudioClassification:
    """A model around the chosen encoder, not yet organised."""
    options = encoder_options(arguments) if arguments.encoder != "none" else {}
    prior_weight = arguments.prior_weight
    if prior_weight is None:
        prior_weight = 2.0 if speaker_ids else 1.0
    config = SereConfig(
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        prior_weight=prior_weight,
        field_balance=arguments.field_balance,
        tric_weight=arguments.tric_weight,
        consistency_weight=arguments.consistency_weight,
        num_sources=arguments.shots * len(labels),
        **options,
    )
    model = SereForAudioClassification(config).eval()
    if arguments.encoder != "none":
        model.sere.encoder.load_encoder(arguments.encoder, revision=arguments.encoder_revision)
    return model


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
        "refine_steps": arguments.refine_steps, "train_encoder": arguments.train_encoder,
        "versions": outputs.versions(),
    }  # fmt: skip


def main():
    # A. Read the arguments and the corpora: what is wrong in them is said before anything is written
    arguments = parse()
    folder = outputs.OutputFolder(arguments)
    accelerator = Accelerator(log_with=trackers(arguments.report_to), project_dir=folder.partial)
    level = logging.INFO if accelerator.is_main_process else logging.ERROR
    logging.basicConfig(format="%(message)s", level=level, force=True)
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

    def encode() -> list[Pool]:
        extract = FeatureExtraction(model.sere.to(accelerator.device), accelerator, Path(arguments.cache_dir))
        pools = []
        for corpus in (source_corpus, target_corpus):
            features = extract(corpus, kept_clips(corpus, labels))
            check_skipped(features.skipped, len(features.indices) + len(features.skipped), arguments.max_skipped)
            pools.append(Pool(corpus, features, labels, arguments.speaker_ids))
        model.to("cpu")
        return pools

    with stage("encode"):
        source, target = encode()
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    adapting = scored = list(range(len(target)))
    if arguments.setting == "inductive":
        adapting, scored = split_speakers([clip.speaker for clip in target.clips], arguments.seed)

    # C. Draw the shots and organise
    shots = source.shots(arguments.shots, arguments.seed)

    def organise():
        adaptation = Adaptation(model, source.domain, target.domain.subset(adapting))
        organised = adaptation.organise(shots)
        adaptation.install(organised)
        return adaptation, organised

    with stage("organise"):
        adaptation, organised = organise()

    # D. Refine, on frames or with the encoder on audio; the features have changed then, so organise again
    if arguments.refine_steps > 0:
        accelerator.init_trackers("sere", config=asdict(arguments))
        with stage("refine"):
            refine(
                arguments, accelerator, model, folder.checkpoint,
                (source_corpus, source.features.indices, source.domain), shots,
                (target_corpus, [target.features.indices[row] for row in adapting], target.domain.subset(adapting)),
                lambda losses, step: accelerator.log(losses, step=step),
            )  # fmt: skip
        with stage("encode"):
            source, target = encode()
        with stage("organise"):
            adaptation, organised = organise()
    if not accelerator.is_main_process:
        accelerator.end_training()
        return

    # E. Score on the target
    results = describe(arguments, source, target, (source_corpus, target_corpus))
    results["shot_files"] = source.names(shots)
    transductive = arguments.setting == "transductive"
    evaluation = Evaluation(adaptation, target, scored, transductive)
    with stage("score"):
        results |= outputs.NOT_SCORED
        if len(evaluation):
            results |= evaluation.stages(organised)
            results["uar_single_clip"] = Evaluation(adaptation, target, scored, False).scores(organised.field)["uar"]
        if len(evaluation) and arguments.refine_steps == 0:  # refined features belong to one draw of shots
            seeds = list(range(arguments.seed, arguments.seed + arguments.draws))
            draws = [adaptation.organise(source.shots(arguments.shots, seed)) for seed in seeds]
            results["spread"] = spread(seeds, [evaluation.scores(draw.field)["uar"] for draw in draws])
        results["same_audio_in_both"] = outputs.same_audio(source, target)

    # F. Save model, card and results
    with stage("save"):
        model.save_pretrained(folder.partial)
        results["seconds"] = seconds
        outputs.save_results(results, folder.partial)
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

#!/usr/bin/env python
"""Adapt SERE to a new language: a few labelled clips per emotion in one language, unlabelled clips in another.

    accelerate launch train_sere.py                                     # the sample in samples/, no download
    accelerate launch train_sere.py --encoder microsoft/wavlm-base --source emodb/ --target my_clips/ --output_dir out
    accelerate launch train_sere.py --source emodb/ emovo/ --target my_clips/     # several labelled corpora
    accelerate launch train_sere.py --model org/sere-wavlm --target my_clips/     # without source data
    accelerate launch train_sere.py --push_to_hub --hub_model_id org/sere-mine --hub_revision_tag v1
    accelerate launch train_sere.py run.json                            # the same flags in one file
    accelerate launch train_sere.py sere-wavlm                          # or in a recipe of recipes/

`--config_file configs/accelerate/single.yaml` after `launch` saves accelerate its list of defaults.

A. read the arguments and the corpora  B. encode every clip once  C. draw the shots and organise  D. refine, and
organise again  E. answer for every target clip, and score  F. save model, card, predictions.csv and results.json, push
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from itertools import chain
from types import MappingProxyType

from modeling_sere.training.running.ending import PROGRAM, end_early, one_sentence

if __name__ == "__main__":
    end_early(PROGRAM)

from modeling_sere.training.arguments import SereArguments, parse_arguments
from modeling_sere.training.errors import RunError, writing

if __name__ == "__main__":  # --help and wrong flags are answered before the imports below, which take seconds
    with one_sentence(PROGRAM):
        parse_arguments(sys.argv[1:])

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from transformers.utils import logging as transformers_logging

from model_card.card import write_card
from modeling_sere import SereForAudioClassification
from modeling_sere.training.corpora.corpus import Corpus, check_skipped
from modeling_sere.training.corpora.episodes import draw_shots, shared_labels, split_speakers
from modeling_sere.training.corpora.labels import parse_emotions, parse_label_map
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.corpora.names import listed
from modeling_sere.training.corpora.provenance import corpus_facts, joint_facts
from modeling_sere.training.corpora.report import label_report, labels_of, notes_before, read_as
from modeling_sere.training.corpora.sounds import notes_on_sounds
from modeling_sere.training.encoding.features import FeatureExtraction
from modeling_sere.training.encoding.pool import Pool, Pools, kept_clips
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.organising.calibration import calibrate
from modeling_sere.training.organising.carried_sources import Sources, carried_labels
from modeling_sere.training.refining.refinement import refine
from modeling_sere.training.refining.tracking import tracked_arguments, trackers
from modeling_sere.training.reporting.description import describe, origins
from modeling_sere.training.reporting.evaluation import Evaluation, scores_of_run, spread
from modeling_sere.training.reporting.field_notes import found_by, notes_on_field
from modeling_sere.training.reporting.hub import Destination
from modeling_sere.training.reporting.outputs import highlight_example, table
from modeling_sere.training.reporting.predictions import Predictions, predict
from modeling_sere.training.reporting.results import Results, load_results, save_results
from modeling_sere.training.running import identity
from modeling_sere.training.running.models import build_model, continue_model, load_checkpoint
from modeling_sere.training.running.run_folder import OutputFolder

logger = logging.getLogger("sere")


def read_corpora(
    arguments: SereArguments, checkpoint, given: Mapping[tuple[str, int], Corpus]
) -> tuple[list[Corpus], Corpus, list[str]]:
    """Return the corpora, of which only metadata are read, and the emotions they share; tell the user of them.

    The emotions of several sources are united. Without a source corpus the emotions are those of the `checkpoint`,
    whose labelled clips take its place. A corpus that was `given` from Python is read already.
    """
    common = {
        "audio_column": arguments.audio_column,
        "label_column": arguments.label_column,
        "speaker_column": arguments.speaker_column,
        "streaming": arguments.streaming,
        "label_map": parse_label_map(arguments.label_map) if arguments.label_map else None,
        "segments": arguments.segments,
        "outside_files": arguments.outside_files,
    }
    sources = [
        given[side] if (side := ("source", place)) in given else load_corpus(
            address, split=arguments.source_split, config=arguments.source_config,
            revision=arguments.source_revision, **common
        )
        for place, address in enumerate(arguments.source or [])
    ]  # fmt: skip
    tell_apart(sources)
    target = given.get(("target", 0))
    if target is None:
        target = load_corpus(
            arguments.target, split=arguments.target_split, config=arguments.target_config,
            revision=arguments.target_revision, require_labels=False, **common,
        )  # fmt: skip
    for corpus in (*sources, target):
        logger.info(read_as(corpus))
    expected = parse_emotions(arguments.emotions, common["label_map"]) if arguments.emotions else None
    labels = shared_labels(labels_of(sources) if sources else carried_labels(checkpoint), target.labels, expected)
    for note in notes_before(sources, target, labels, expected):
        logger.warning(note)
    # too few clips or speakers: say so now
    for source in sources:
        check_shots(source, labels, arguments.shots)
    if arguments.setting == "inductive":
        split_speakers([target.clips[index].speaker for index in kept_clips(target, labels)], arguments.seed)
    return sources, target, labels


def tell_apart(corpora: list[Corpus]):
    """Number the names that several corpora have."""
    taken = set()
    for corpus in corpora:
        name, number = corpus.name, 1
        while corpus.name in taken:
            number += 1
            corpus.name = f"{name}-{number}"
        taken.add(corpus.name)


def check_shots(source: Corpus, labels: list[str], shots: int):
    """Pass if a source has enough clips of each emotion of the run that it has. Raises RunError: too few, or none."""
    own = [label for label in labels if label in source.labels]
    if not own:
        raise RunError(f"{source.name} has no clip of {listed(labels)}, the emotions of this run: leave it out")
    if shots > 0:
        try:
            draw_shots(source.labels, source.names, own, shots, seed=0)
        except RunError as error:
            raise RunError(f"{source.name}: {error}") from error


def say(line: str):
    """Print at once, for whoever reads through a pipe."""
    print(line, flush=True)


def main():
    arguments = parse_arguments(sys.argv[1:])
    with OutputFolder(arguments) as folder:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else torchrun's processes would not find each other on CPUs
            log_with=trackers(arguments.report_to) or None,
            project_dir=folder.result,
        )
        level = logging.WARNING if accelerator.is_main_process else logging.ERROR
        logging.basicConfig(format="%(message)s", level=level, force=True)
        if accelerator.is_main_process:
            logger.setLevel(logging.INFO)  # ours alone: other libraries tell of every request they make
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        run(arguments, folder, accelerator)


def run(
    arguments: SereArguments,
    folder: OutputFolder,
    accelerator: Accelerator,
    corpora: Mapping[tuple[str, int], Corpus] = MappingProxyType({}),
    show: Callable[[str], None] = say,
) -> tuple[SereForAudioClassification, Predictions] | None:
    """Carry out a run, and return its model and predictions on the main process; nothing of a run that was finished.

    Args:
        corpora: ("source", place among the sources) and ("target", 0), where they are no addresses in the arguments
            (`modeling_sere.training.adapt`).
        show: is given the closing lines.
    """
    # A. Read the corpora: what is wrong in arguments or corpora is said before any work is done
    if accelerator.is_main_process:
        folder.claim()
    folder.follow(*broadcast_object_list([folder.final, folder.published]))
    accelerator.project_configuration.set_directories(str(folder.result))
    set_seed(arguments.seed)
    checkpoint = None if arguments.model is None else load_checkpoint(arguments)
    source_corpora, target_corpus, labels = read_corpora(arguments, checkpoint, corpora)
    speaker_ids = arguments.speaker_ids and target_corpus.has_speakers
    if not source_corpora:  # the labelled clips travelled in the model
        sources = Sources(checkpoint, labels)
        carried = {"num_sources": len(sources)}
    else:
        known = [
            corpus_facts(corpus, None if ("source", place) in corpora else address, arguments.source_revision)
            for place, (corpus, address) in enumerate(zip(source_corpora, arguments.source, strict=True))
        ]
        carried = {"source_corpus": joint_facts(known)}
    if checkpoint is None:
        model = build_model(arguments, labels, speaker_ids, **carried)
    else:
        model = continue_model(checkpoint, arguments, labels, speaker_ids, **carried)
    address = None if ("target", 0) in corpora else arguments.target
    facts = corpus_facts(target_corpus, address, arguments.target_revision)
    origin = origins(arguments, model.config, facts)
    destination = None
    if arguments.push_to_hub and accelerator.is_main_process:
        destination = Destination(
            arguments.hub_model_id, arguments.hub_private, arguments.hub_revision_tag, arguments.push_predictions
        )
        destination.prepare(again=folder.published)
    accelerator.wait_for_everyone()
    if folder.published:
        if accelerator.is_main_process:
            show(f"{folder.final} is a finished run of these flags; whether its clips have changed was not looked at.")
            deliver(folder, destination, show)
        return None
    start = identity.of_model(model if checkpoint is None else checkpoint) if accelerator.is_main_process else None
    seconds = {}

    @contextmanager
    def stage(name):
        start = time.monotonic()
        yield
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 2)

    # B. Encode every clip once
    def encode(cache_dir: str | None, everywhere: bool) -> tuple[Pool | Pools | Sources, Pool] | None:
        extract = FeatureExtraction(model.sere.to(accelerator.device), accelerator, cache_dir, everywhere)

        def pool(corpus: Corpus) -> Pool | None:
            features = extract(corpus, kept_clips(corpus, labels))
            if features is None:
                return None
            check_skipped(features.skipped, len(features.indices) + len(features.skipped), arguments.max_skipped)
            for note in notes_on_sounds(corpus, features.indices, features.values, features.keys, features.narrow):
                logger.warning(note)
            return Pool(corpus, features, labels, arguments.speaker_ids)

        parts, target = [pool(corpus) for corpus in source_corpora], pool(target_corpus)
        model.to("cpu")
        if target is None:
            return None
        return (Pools(parts) if len(parts) > 1 else parts[0] if parts else sources), target

    refining = arguments.refine_steps > 0
    with stage("encode"):
        pools = encode(arguments.cache_dir, everywhere=refining)
    if pools is None:  # the main process alone goes on
        accelerator.end_training()
        return None
    source, target = pools
    adapting = scored = list(range(len(target)))
    if arguments.setting == "inductive":
        adapting, scored = split_speakers([clip.speaker for clip in target.clips], arguments.seed)

    # C. Draw the shots and organise
    shots = source.shots(arguments.shots, arguments.seed) if source_corpora else sources.references
    told = target.told(arguments.target_shots, arguments.seed, adapting)

    def organise():
        adaptation = Adaptation(model, source.domain, target.domain.subset(adapting), told[adapting])
        organised = adaptation.organise(shots)
        calibrated = calibrate(adaptation, organised)
        adaptation.install(organised, calibrated.temperature)
        return adaptation, organised, calibrated

    with stage("organise"):
        adaptation, organised, calibrated = organise()
    for note in notes_on_field(organised, labels):
        logger.warning(note)

    # D. Refine, on frames or with the encoder on audio; the features have changed then, so organise again
    if accelerator.is_main_process:
        folder.open(identity.of_data(start, source, target))
    if refining:
        accelerator.wait_for_everyone()
        accelerator.init_trackers("sere", config=tracked_arguments(arguments))
        with stage("refine"):
            model = refine(
                arguments, accelerator, adaptation, shots, folder.checkpoint,
                [*((corpus, part.features.indices) for corpus, part in zip(source_corpora, source.parts, strict=True)),
                 (target_corpus, [target.features.indices[row] for row in adapting])],
                lambda losses, step: accelerator.log(losses, step=step),
            )  # fmt: skip
        with stage("encode"):
            pools = encode(None, everywhere=False)  # no cache: no other run will have this model
        if pools is None:
            accelerator.end_training()
            return None
        source, target = pools
        with stage("organise"):
            adaptation, organised, calibrated = organise()

    # E. Answer for every clip of the target, and score the answers where it has labels
    with stage("score"):
        predictions = predict(adaptation, organised, calibrated, target, adapting)
        results: Results = describe(arguments, model.config, source, target, shots, origin)
        results |= label_report(source_corpora, target_corpus, labels) | predictions.summary()
        results |= found_by(organised, labels) | {"target_shot_files": target.names(told)}
        unseen = target.without(told)
        results |= scores_of_run(adaptation, organised, unseen, scored, arguments.setting, calibrated.temperature)
        results["spread"] = None
        # refined features belong to one draw of shots, and so do the sources of a model
        if results["uar"] is not None and not refining and source_corpora and arguments.shots > 0:
            evaluation = Evaluation(adaptation, unseen, scored, arguments.setting)
            seeds = list(range(arguments.seed, arguments.seed + arguments.draws))
            others = (adaptation.organise(source.shots(arguments.shots, seed)) for seed in seeds[1:])
            uars = [evaluation.scores(draw)["uar"] for draw in chain([organised], others)]
            results["spread"] = spread(seeds, uars)
            del evaluation

    # F. Save model, card, predictions and results, and push them
    example = highlight_example(model, target_corpus, target)
    del adaptation, organised  # of a large corpus this is most of the memory
    with writing(f"The result in {folder.result}", "free some space, then add --resume"):
        with stage("save"):
            model.save_pretrained(folder.result)
            predictions.save(folder.result)
            results["seconds"] = seconds
            write_card(results, folder.result, example)
        accelerator.end_training()
        save_results(results, folder.result)
        folder.publish()
    deliver(folder, destination, show)
    return model, predictions


def deliver(folder: OutputFolder, destination: Destination | None, show: Callable[[str], None]):
    """Show the results of a finished run and push it. Raises RunError: the push broke off; the folder is whole."""
    show(table(load_results(folder.final)))
    show(f"Saved in {folder.final}: model, README.md (model card), predictions.csv, results.json")
    try:
        if destination is not None:
            show(f"Pushed to {destination.push(folder.final)}")
    except RunError:
        folder.close()  # its sentence tells how to push later
        raise
    folder.close()


if __name__ == "__main__":
    with one_sentence(PROGRAM):
        main()

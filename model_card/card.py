"""The model card (README.md) of a run, made from its results (docs/results.md) and nothing else.

Only what is named here gets into a card; of lists of clips the card tells the length, never a name.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from modeling_sere.card_sere import UNNAMED, is_hub_id, plain
from modeling_sere.published_sere import check_writable
from modeling_sere.training.reporting.outputs import HighlightExample
from modeling_sere.training.reporting.results import Answer, Results

from .licences import consequence, joint_licence
from .plots import plot_confusion, plot_highlights

logger = logging.getLogger("sere")

TEMPLATE = Path(__file__).with_name("template.md")
NOT_RECORDED = "not recorded"
NO_ENCODER = "none (dynamics stream only)"
ENCODER_TRAINING = {"none": "encoder frozen", "full": "encoder trained", "lora": "encoder trained by LoRA"}
TAGS = ["speech-emotion-recognition", "cross-lingual", "few-shot", "sere"]

# key of the results -> (name in the card, metric id on the Hub, its arguments)
HUB_METRICS = {
    "uar": ("UAR", "recall", {"average": "macro"}),
    "war": ("WAR", "accuracy", None),
    "macro_f1": ("macro-F1", "f1", {"average": "macro"}),
    "uar_single_clip": ("UAR (saved model, one clip at a time)", "recall", {"average": "macro"}),
}
MEASURES = {
    "uar": "UAR of SERE (after the field)",
    "uar_before": "UAR of ridge on the shots alone (before the field)",
    "uar_prototype": "UAR of the nearest class mean of the shots",
    "chance": "UAR of chance",
    "uar_single_clip": "UAR of the saved model, one clip at a time, with the target domain's statistics",
    "war": "WAR of SERE",
    "macro_f1": "macro-F1 of SERE",
}
SETTINGS = {
    "transductive": "Setting: **transductive**. The model was adapted on the unlabelled target clips and answers for "
    "the same clips, as is usual in this field; a new clip may fare worse.",
    "inductive": "Setting: **inductive**. The model was adapted on unlabelled clips of some target speakers and scored "
    "on other speakers.",
}
SPEAKER_IDS = {
    True: "Speaker ids **were used**: features were normalised per speaker while adapting.",
    False: "Speaker ids were **not used**.",
}


def write_card(results: Results, folder: Path, example: HighlightExample | None = None) -> Path:
    """Write `folder/README.md` and its plots in `folder/plots/`; files of an earlier card are replaced.

    Args:
        results: of a run.
        folder: the checkpoint's folder; made if needed.
        example: a clip to draw with its highlights.

    Returns:
        The path of the card.

    Raises:
        ValueError: a link in the folder would be written through.
    """
    folder = Path(folder)
    check_writable(folder)
    name = f"sere-{_slug(results['source'] or 'unknown')}-to-{_slug(results['target'])}"
    card = ModelCard.from_template(
        _front_matter(results, name),
        template_path=str(TEMPLATE),
        name=name,
        location=UNNAMED,
        example_prediction=_text(example["label"]) if example else None,
        **_draw(folder, results, example),
        **_about(results),
        **_scores(results),
        **_predictions(results),
        **_making(results),
    )
    path = folder / "README.md"
    card.save(path)
    return path


def _front_matter(results: Results, name: str) -> ModelCardData:
    """Metadata of the Hub, with the scores on the target as a model index."""
    corpora, base_model = [*_several(results["source"]), results["target"]], results["base_model"]
    languages = _several(results["source_language"]) + _several(results["target_language"])
    languages = [TO_LANGUAGE_CODE.get(language.lower(), language) for language in languages]
    languages = [code for code in languages if re.fullmatch("[a-z]{2,3}", code)]
    evaluations = _evaluations(results)
    license_id = _licence(results)
    return ModelCardData(
        language=list(dict.fromkeys(languages)) or None,
        license=license_id or "other",
        license_name=None if license_id else "terms-of-the-training-data",
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=TAGS,
        datasets=list(dict.fromkeys(data for data in corpora if is_hub_id(data))) or None,
        base_model=base_model if is_hub_id(base_model) else None,
        metrics=list(dict.fromkeys(evaluation.metric_type for evaluation in evaluations)) or None,
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )


def _evaluations(results: Results) -> list[EvalResult]:
    """The scores as entries of the model index; none without labels."""
    if results["uar"] is None:
        return []
    target = _text(results["target"])
    known = {
        "source": _text(results["source"]), "shots_per_class": results["shots"], "setting": results["setting"],
    }  # fmt: skip
    dataset = {
        "task_type": "audio-classification",
        "task_name": "Cross-lingual speech emotion recognition",
        "dataset_type": target if is_hub_id(target) else _slug(target),
        "dataset_name": target,
        "dataset_args": {key: value for key, value in known.items() if value is not None},
    }
    evaluations = [
        EvalResult(**dataset, metric_type=metric, metric_name=name, metric_args=args, metric_value=results[key])
        for key, (name, metric, args) in HUB_METRICS.items()
    ]
    if spread := _spread(results):
        draws = len(spread["seeds"])
        evaluations.append(
            EvalResult(
                **dataset,
                metric_type="recall",
                metric_name=f"UAR, mean over {draws} draws of the shots",
                metric_value=spread["uar_mean"],
                metric_args={"average": "macro", "draws": draws, "standard_deviation": spread["uar_std"]},
            )
        )
    return evaluations


def _licence(results: Results) -> str | None:
    """The checkpoint's own licence, or else the one that the licences of its data leave open."""
    sides = ["source_license", "target_license", *["base_license"] * _has_base(results)]
    licences = [licence for side in sides for licence in _several(results[side]) or [None]]
    return _text(results["license"]) or joint_licence([_text(licence) for licence in licences])


def _has_base(results: Results) -> bool:
    """Whether the checkpoint began with another model, if only an encoder."""
    return results["encoder"] is not None or results["source_free"]


def _draw(folder: Path, results: Results, example: HighlightExample | None) -> dict[str, str | None]:
    """Draw what there is to draw; returns each plot's path as the card links it, or None."""
    paths = {"confusion_plot": "plots/confusion.png", "highlights_plot": "plots/highlights.png"}
    for path in paths.values():
        (folder / path).unlink(missing_ok=True)  # a plot of an earlier run must not stand beside this card
    if results["confusion"] is None:
        paths["confusion_plot"] = None
    else:
        _attempt(paths, "confusion_plot", plot_confusion, folder, np.asarray(results["confusion"]), results["labels"])
    if example is None:
        paths["highlights_plot"] = None
    else:
        _attempt(paths, "highlights_plot", plot_highlights, folder, example["waveform"], example["highlights"])
    return paths


def _attempt(paths: dict[str, str | None], key: str, plot: Callable, folder: Path, *given) -> None:
    """Draw one plot; the card does without one that cannot be drawn, for a picture must not cost a run its result."""
    try:
        plot(folder / paths[key], *given)
    except OSError:
        raise  # the disk's, which the rest of the result needs too
    except Exception as error:  # of matplotlib, its fonts, its caches
        (folder / paths[key]).unlink(missing_ok=True)
        reason = str(error).partition("\n")[0] or type(error).__name__
        logger.warning("%s cannot be drawn (%s): the card does without it.", paths[key], reason)
        paths[key] = None


def _about(results: Results) -> dict[str, Any]:
    """Describe what the model is and how it was adapted."""
    source, target, encoder = _named(results, "source"), _named(results, "target"), _encoder(results)
    labels = ", ".join(map(_text, results["labels"]))
    return {
        "summary": f"A classifier of emotion in speech, adapted across languages with SERE: from {results['shots']} "
        f"labelled clips per emotion of {source} and unlabelled clips of {target}. Emotions: {labels}."
        f"{_start(results)}",
        "headline": _headline(results),
        "protocol": [
            ("source", source),
            ("target", target),
            ("emotions", labels),
            ("clips of other labels, left out", _left_out(results)),
            ("labelled clips per emotion", results["shots"]),
            ("seed of their draw", "none: all that travelled in the model" if results["source_free"] else
             results["seed"]),
            ("source clips", results["num_source_clips"]),
            ("of these, used without a label", results["num_unlabelled_source"]),
            ("target clips", results["num_target_clips"]),
            ("clips skipped as unusable", len(results["skipped_clips"])),
            ("encoder", encoder),
            ("gradient steps", _steps(results)),
        ],
        "setting": SETTINGS[results["setting"]],
        "speaker_ids": SPEAKER_IDS[results["speaker_ids"]],
        "shared_audio": _shared_audio(results),
        "parameters": ", ".join(f"`{key}` = {value}" for key, value in results["parameters"].items()),
        "encoder_weights": "" if encoder == NO_ENCODER else f"the encoder ({encoder}), ",
        "encoder_licence": _foreign_part(results, encoder),
    }  # fmt: skip


def _headline(results: Results) -> str:
    if results["uar"] is None:
        return "**Nothing was scored**, as the target has no labels."
    conditions = f"{results['setting']}, {'with' if results['speaker_ids'] else 'without'} speaker ids"
    return (
        f"UAR on the target: **{_percent(results['uar'])}** ({conditions}; chance: {_percent(results['chance'])}). "
        "The saved model, given one clip at a time without its speaker's statistics: "
        f"**{_percent(results['uar_single_clip'])}**."
    )


def _left_out(results: Results) -> str:
    """Labels of each side that take no part, with their numbers of clips."""
    sides = []
    for side, counts in results["labels_left_out"].items():
        if counts:
            sides.append(f"{side}: {', '.join(f'{_text(label)} {count}' for label, count in counts.items())}")
    return "; ".join(sides) or "none"


def _scores(results: Results) -> dict[str, Any]:
    """The results table and the sentences that put it in proportion; no rows without labels."""
    if results["uar"] is None:
        return {"measures": [], "reading": "", "recalls": []}
    measures = [(name, _percent(results[key])) for key, name in MEASURES.items()]
    spread, calibration = _spread(results), results["calibration"]
    if spread:
        name = f"UAR of SERE over {len(spread['seeds'])} draws of the shots, mean and standard deviation"
        measures.append((name, f"{100 * spread['uar_mean']:.1f} ± {100 * spread['uar_std']:.1f} %"))
    measures.append((
        "expected calibration error of the saved model",
        f"{_percent(calibration['ece_before'])} before, {_percent(calibration['ece_after'])} after calibration "
        f"(temperature {calibration['temperature']:.2f})",
    ))  # fmt: skip
    points = f"{100 * (results['uar'] - results['uar_before']):+.1f}"
    one_draw = "are of one draw of the shots; another draw gives other scores."
    reading = (
        f"The field changed the UAR by {points} points against the shots alone. "
        f"{'All scores but the one over several draws' if spread else 'They'} {one_draw}"
    )
    recalls = [
        (_text(label), "no clips" if recall is None else _percent(recall), sum(row))
        for (label, recall), row in zip(results["per_class_recall"].items(), results["confusion"], strict=True)
    ]
    return {"measures": measures, "reading": reading, "recalls": recalls}


def _predictions(results: Results) -> dict[str, Any]:
    """Sum up what was said of the target's clips; by no name, as a name can tell of a person."""
    agreement = results["agreement"]
    shares = sorted(results["shares"].items(), key=lambda item: -item[1])
    return {
        "shares": [(_text(emotion), _percent(share)) for emotion, share in shares],
        "surest": _answers(results["surest"]),
        "least_sure": _answers(results["least_sure"]),
        "found": _found(results),
        "agreement": "The prior says nothing of these emotions, so no second witness tells how far to trust the scores."
        if agreement is None
        else "The prior alone and the labelled clips alone, which share no evidence, give "
        f"{_percent(agreement)} of the clips the same emotion.",
    }


def _found(results: Results) -> str:
    """Tell what the run found out about speakers and emotions, where it matters."""
    tied, absent, helped = (results[key] for key in ("speaker_emotion_tie", "emotions_not_heard", "target_shot_files"))
    sentences = []
    if tied is not None and tied > 0.3:
        sentences.append("The speakers differ much in their emotions, so voice and emotion are hard to tell apart.")
    if absent:
        sentences.append(f"No clip seems to have {', '.join(map(_text, absent))}.")
    if helped:
        sentences.append(f"The labels of {len(helped)} clips of the target helped; these were not scored.")
    return " ".join(sentences)


def _answers(answers: list[Answer]) -> str:
    return ", ".join(
        f"{_text(answer['emotion'])} {answer['score']:.2f} (strongest at {answer['strongest']:.2f} s)"
        for answer in answers
    )


def _making(results: Results) -> dict[str, Any]:
    """Licences, cost and versions."""
    source, target, base = (
        ", ".join(consequence(_text(licence)) for licence in _several(results[key])) or NOT_RECORDED
        for key in ("source_license", "target_license", "base_license")
    )
    own, joint = _text(results["license"]), _licence(results)
    return {
        "licences_of_clips": [
            (side, _text(licence), clips)
            for side, counts in results["licenses_of_clips"].items()
            for licence, clips in counts.items()
        ],
        "source_licence": source,
        "target_licence": target,
        "base_licence": f" The model it began with: {base}." if _has_base(results) else "",
        "own_licence": f"The checkpoint itself is published under: {own}."
        if own
        else f"`license: {joint}` above is the one of these licences whose conditions cover those of all."
        if joint
        else "No licence of its own is stated for the checkpoint, and the licences of its data leave no certain one, "
        "hence `license: other` above.",
        "seconds": [(stage, f"{value:.1f}") for stage, value in results["seconds"].items()],
        "versions": ", ".join(f"{package} {version}" for package, version in sorted(results["versions"].items())),
    }


def _named(results: Results, side: str) -> str:
    """A data set's name and language."""
    name, language = _text(results[side]), _text(results[f"{side}_language"])
    return f"{name or f'a {side} data set whose name is {NOT_RECORDED}'} (language: {language or NOT_RECORDED})"


def _encoder(results: Results) -> str:
    """The encoder's name and where it comes from."""
    name, base_model = _text(results["encoder"]), results["base_model"]
    if name is None:
        return NO_ENCODER
    if not is_hub_id(base_model):
        return name
    return base_model if name == base_model.split("/")[1] else f"{name}, from {base_model}"


def _foreign_part(results: Results, encoder: str) -> str:
    """Name what else the checkpoint is made of, whose terms count too."""
    base = results["base_model"]
    if is_hub_id(base):
        return f" and with [{base}](https://huggingface.co/{base})"
    return "" if encoder == NO_ENCODER else " and with the encoder"


def _start(results: Results) -> str:
    """Tell where the labelled clips came from, if there was no source data."""
    if not results["source_free"]:
        return ""
    base = results["base_model"]
    model = f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else "another SERE checkpoint"
    return (
        f" It was adapted **without source data**: the labelled clips are the embeddings that travel in {model}; no "
        "source recording was read."
    )


def _shared_audio(results: Results) -> str:
    names = results["same_audio_in_both"]
    if names is None:
        return "Whether recordings of the source occur in the target too cannot be told without their audio."
    if not names:
        return "No recording of the source occurs in the target."
    return (
        f"**{len(names)} target clips have the very audio of a source clip, {len(results['shots_in_target'])} of a "
        "labelled one**: their scores are not of a new language."
    )


def _steps(results: Results) -> str:
    if results["refine_steps"] == 0:
        return "none: the field in closed form"
    return f"{results['refine_steps']} ({ENCODER_TRAINING[results['train_encoder']]})"


def _spread(results: Results):
    """The scores over several draws; one draw has no spread."""
    spread = results["spread"]
    return spread if spread and len(spread["seeds"]) > 1 else None


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _text(value: str | None) -> str | None:
    """One line that cannot break a table, a code span or the page; names and labels come from strangers' data."""
    if value is None or not value.strip():
        return None
    return plain(value) or "unnamed"


def _several(text: str | None) -> list[str]:
    """Languages or licences that are separated by commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"

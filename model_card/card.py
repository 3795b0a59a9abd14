"""The model card (README.md) of a run, made from its results and nothing else.

What the results lack is said to be missing: "not measured" for a measurement, "not recorded" for a fact of the run.
Only what is named here gets into a card; of lists of clips the card tells the length, never a name.
"""

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from modeling_sere.card_sere import UNNAMED, is_hub_id, plain
from modeling_sere.published_sere import check_writable

from .licences import consequence, joint_licence
from .plots import plot_confusion, plot_highlights

TEMPLATE = Path(__file__).with_name("template.md")
NOT_MEASURED = "not measured"
NOT_RECORDED = "not recorded"
NO_ENCODER = "none (dynamics stream only)"
ENCODER_TRAINING = {"none": "encoder frozen", "full": "encoder trained", "lora": "encoder trained by LoRA"}
# a clip for the Hub's page: public, and of none of the usual corpora of emotion
WIDGET = [{
    "example_title": "Read English speech (LibriSpeech)",
    "src": "https://cdn-media.huggingface.co/speech_samples/sample1.flac",
}]  # fmt: skip
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
    "transductive": "Setting: **transductive**. The model was adapted on the unlabelled target clips and scored on the "
    "same clips, as is usual in this field; a new clip may fare worse.",
    "inductive": "Setting: **inductive**. The model was adapted on unlabelled clips of some target speakers and scored "
    "on other speakers.",
    None: "Setting (transductive or inductive): not recorded.",
}
SPEAKER_IDS = {
    True: "Speaker ids **were used**: features were normalised per speaker while adapting.",
    False: "Speaker ids were **not used**.",
    None: "Whether speaker ids were used is not recorded.",
}


def write_card(results: Mapping[str, Any], folder: Path, waveform_example: Mapping[str, Any] | None = None) -> Path:
    """Write `folder/README.md` and its plots in `folder/plots/`; files of an earlier card are replaced.

    Args:
        results: results.json of a run. Every key may be missing or None. Scores are fractions from 0 to 1.
        folder: the checkpoint's folder; made if needed.
        waveform_example: a clip to draw: `waveform` (N,), `highlights` (T,), and optionally `sampling_rate` (16,000 by
            default), `label` (the emotion predicted for it) and `timeline` (T', C), the scores of equally long parts
            of the clip in the order of `results["labels"]`.

    Returns:
        The path of the card.

    Raises:
        ValueError: a score is no fraction, the setting is unknown, confusion, timeline and labels do not fit, or a link
            in the folder would be written through.
    """
    folder = Path(folder)
    labels = _labels(results)
    confusion = _confusion(results, labels)
    name = _name(results)
    check_writable(folder)
    plots = _draw(folder, labels, confusion, waveform_example)
    card = ModelCard.from_template(
        _front_matter(results, name),
        template_path=str(TEMPLATE),
        name=name,
        location=_data_name(results, "model_id") or UNNAMED,
        example_prediction=_example_prediction(waveform_example),
        recalls=_recalls(results, labels, confusion),
        **plots,
        **_about(results, labels),
        **_scores(results),
        **_making(results),
    )
    path = folder / "README.md"
    card.save(path)
    return path


def _front_matter(results: Mapping, name: str) -> ModelCardData:
    """Metadata of the Hub, with the scores on the target as a model index."""
    source, target = _data_name(results, "source"), _data_name(results, "target")
    languages = [results.get(key) for key in ("source_language", "target_language")]
    languages = [code for code in languages if isinstance(code, str) and re.fullmatch("[a-z]{2,3}", code)]
    scores = {key: value for key in HUB_METRICS if (value := _fraction(results, key)) is not None}
    known = {"source": source, "shots_per_class": _integer(results.get("shots")), "setting": results.get("setting")}
    dataset = {
        "task_type": "audio-classification",
        "task_name": "Cross-lingual speech emotion recognition",
        "dataset_type": target if is_hub_id(target) else _slug(target or ""),
        "dataset_name": target,
        "dataset_args": {key: value for key, value in known.items() if value is not None} or None,
    }
    evaluations = [
        EvalResult(
            **dataset,
            metric_type=HUB_METRICS[key][1],
            metric_name=HUB_METRICS[key][0],
            metric_args=HUB_METRICS[key][2],
            metric_value=value,
        )
        for key, value in scores.items()
        if target
    ]
    over = _over_draws(results)
    if target and over:
        evaluations.append(
            EvalResult(
                **dataset,
                metric_type="recall",
                metric_name=f"UAR, mean over {over['draws']} draws of the shots",
                metric_value=over["mean"],
                metric_args={"average": "macro", "draws": over["draws"], "standard_deviation": over["deviation"]},
            )
        )
    license_id = _licence(results)
    base_model = results.get("base_model")
    return ModelCardData(
        language=list(dict.fromkeys(languages)) or None,
        license=license_id or "other",
        license_name=None if license_id else "terms-of-the-training-data",
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=TAGS,
        datasets=list(dict.fromkeys(data for data in (source, target) if is_hub_id(data))) or None,
        base_model=base_model if is_hub_id(base_model) else None,
        metrics=list(dict.fromkeys(HUB_METRICS[key][1] for key in scores)) or None,
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
        widget=WIDGET,
    )


def _licence(results: Mapping) -> str | None:
    """The checkpoint's own licence, or else the one that the licences of its data leave open."""
    parts = ["source_license", "target_license"] + ["base_license"] * _has_base(results)
    return _text(results.get("license")) or joint_licence([_text(results.get(key)) for key in parts])


def _has_base(results: Mapping) -> bool:
    """Whether the checkpoint began with another model, if only an encoder."""
    return any(results.get(key) for key in ("encoder", "base_model", "source_free"))


def _over_draws(results: Mapping) -> dict | None:
    """Mean, standard deviation and number of the draws of the shots, if the mean and the deviation were measured."""
    spread = results.get("spread") or {}
    mean, deviation = _fraction(spread, "uar_mean"), _fraction(spread, "uar_std")
    draws = _integer(spread.get("draws")) or len(spread.get("seeds") or []) or None
    if mean is None or deviation is None:
        return None
    return {"mean": mean, "deviation": deviation, "draws": draws or "several"}


def _draw(folder: Path, labels: list[str], confusion: np.ndarray | None, example: Mapping | None) -> dict:
    """Draw what there is to draw; returns each plot's path as the card links it, or None."""
    paths = {"confusion_plot": "plots/confusion.png", "highlights_plot": "plots/highlights.png"}
    for path in paths.values():
        (folder / path).unlink(missing_ok=True)  # a plot of an earlier run must not stand beside this card
    if confusion is None:
        paths["confusion_plot"] = None
    else:
        plot_confusion(folder / paths["confusion_plot"], confusion, labels)
    if example is None:
        paths["highlights_plot"] = None
    else:
        timeline = example.get("timeline")
        if timeline is not None and np.shape(timeline)[1:] != (len(labels),):
            raise ValueError(f"timeline has shape {np.shape(timeline)}: it needs one column for each of {labels}.")
        plot_highlights(
            folder / paths["highlights_plot"],
            np.asarray(example["waveform"]),
            np.asarray(example["highlights"]),
            example.get("sampling_rate") or 16000,
            timeline if timeline is None else np.asarray(timeline),
            labels,
        )
    return paths


def _about(results: Mapping, labels: list[str]) -> dict[str, Any]:
    """What the model is and how it was adapted."""
    source, target = _named(results, "source"), _named(results, "target")
    shots = _integer(results.get("shots"))
    chance = _percent(_fraction(results, "chance"))
    skipped, same_audio = results.get("skipped_clips"), results.get("same_audio_in_both")
    encoder = _encoder(results)
    setting, speaker_ids = results.get("setting"), results.get("speaker_ids")
    speaker_ids = None if speaker_ids is None else bool(speaker_ids)
    if setting not in SETTINGS:
        raise ValueError(f"results['setting'] is {setting!r}: it must be 'transductive' or 'inductive'.")
    assumption = {True: "with speaker ids", False: "without speaker ids", None: f"use of speaker ids {NOT_RECORDED}"}
    conditions = f"{setting or f'setting {NOT_RECORDED}'}, {assumption[speaker_ids]}"
    return {
        "summary": f"A classifier of emotion in speech, adapted across languages with SERE: from "
        f"{'a few' if shots is None else shots} labelled clips per emotion of {source} and unlabelled clips of "
        f"{target}. Emotions: {', '.join(map(_text, labels)) or NOT_RECORDED}.{_start(results)}",
        "headline": f"UAR on the target: **{_percent(_fraction(results, 'uar'))}** ({conditions}; chance: {chance}). "
        f"The saved model, given one clip at a time without its speaker's statistics: "
        f"**{_percent(_fraction(results, 'uar_single_clip'))}**.",
        "protocol": [
            ("source", source),
            ("target", target),
            ("emotions", ", ".join(map(_text, labels)) or NOT_RECORDED),
            ("labelled clips per emotion", _count(results.get("shots"))),
            ("seed of their draw", _count(results.get("seed"))),
            ("source clips", _count(results.get("num_source_clips"))),
            ("of these, used without a label", _count(results.get("num_unlabelled_source"))),
            ("target clips", _count(results.get("num_target_clips"))),
            ("clips skipped as unusable", NOT_RECORDED if skipped is None else str(len(skipped))),
            ("encoder", encoder),
            ("gradient steps", _steps(results)),
        ],
        "setting": SETTINGS[setting],
        "speaker_ids": SPEAKER_IDS[speaker_ids],
        "shared_audio": _shared_audio(same_audio, results.get("shots_in_target")),
        "parameters": _parameters(results.get("parameters")),
        "encoder_weights": "" if encoder == NO_ENCODER else f"the encoder ({encoder}), ",
        "encoder_licence": _foreign_part(results, encoder),
    }


def _scores(results: Mapping) -> dict[str, Any]:
    """The results table and the sentences that put it in proportion."""
    measures = [(name, _percent(_fraction(results, key))) for key, name in MEASURES.items()]
    over = _over_draws(results)
    name = f"UAR of SERE over {over['draws'] if over else 'several'} draws of the shots, mean and standard deviation"
    value = f"{100 * over['mean']:.1f} ± {100 * over['deviation']:.1f} %" if over else NOT_MEASURED
    measures.append((name, value))
    measures.append(("expected calibration error", _calibration(results.get("calibration") or {})))
    sentences = []
    uar, before = _fraction(results, "uar"), _fraction(results, "uar_before")
    if uar is None or before is None:
        sentences.append("The gain of the field over the shots alone was not measured.")
    else:
        points = f"{100 * (uar - before):+.1f}"
        sentences.append(f"The field changed the UAR by {points} points against the shots alone.")
    if uar is not None:
        one_draw = "are of one draw of the shots; another draw gives other scores."
        sentences.append(f"All scores but the one over several draws {one_draw}" if over else f"They {one_draw}")
    return {"measures": measures, "reading": " ".join(sentences)}


def _calibration(calibration: Mapping) -> str:
    before, after = _fraction(calibration, "ece_before"), _fraction(calibration, "ece_after")
    temperature = _number(calibration.get("temperature"))
    if before is None and after is None and temperature is None:
        return NOT_MEASURED
    return (
        f"{_percent(before)} before, {_percent(after)} after calibration "
        f"(temperature {NOT_MEASURED if temperature is None else f'{temperature:.2f}'})"
    )


def _making(results: Mapping) -> dict[str, Any]:
    """Licences, cost and versions."""
    parts = (_text(results.get(key)) for key in ("source_license", "target_license", "base_license"))
    source, target, base = (NOT_RECORDED if licence is None else consequence(licence) for licence in parts)
    own, joint = _text(results.get("license")), _licence(results)
    seconds = [(_text(stage), _number(value)) for stage, value in (results.get("seconds") or {}).items()]
    versions = [f"{_text(package)} {_text(version)}" for package, version in (results.get("versions") or {}).items()]
    return {
        "source_licence": source,
        "target_licence": target,
        "base_licence": f" The model it began with: {base}." if _has_base(results) else "",
        "own_licence": f"The checkpoint itself is published under: {own}."
        if own
        else f"`license: {joint}` above is the one of these licences whose conditions cover those of all."
        if joint
        else "No licence of its own is stated for the checkpoint, and the licences of its data leave no certain one, "
        "hence `license: other` above.",
        "seconds": [(stage, NOT_MEASURED if value is None else f"{value:.1f}") for stage, value in seconds],
        "versions": ", ".join(sorted(versions)),
    }


def _recalls(results: Mapping, labels: list[str], confusion: np.ndarray | None) -> list[tuple[str, str, str]]:
    """Recall and number of clips per emotion; no rows if no recall was measured."""
    per_class = results.get("per_class_recall") or {}
    recalls = {label: _fraction(per_class, label) for label in labels}
    if all(recall is None for recall in recalls.values()):
        return []
    clips = [NOT_RECORDED] * len(labels) if confusion is None else map(str, confusion.sum(1))
    return [(_text(label), _percent(recalls[label]), number) for label, number in zip(labels, clips, strict=True)]


def _labels(results: Mapping) -> list[str]:
    return [str(label) for label in results.get("labels") or results.get("per_class_recall") or []]


def _confusion(results: Mapping, labels: list[str]) -> np.ndarray | None:
    if results.get("confusion") is None:
        return None
    confusion = np.asarray(results["confusion"])
    if confusion.shape != (len(labels), len(labels)):
        raise ValueError(f"confusion has shape {confusion.shape}: it needs a row and a column for each of {labels}.")
    return confusion


def _name(results: Mapping) -> str:
    """Last part of the model's id, else made of the data's names."""
    if model_id := _data_name(results, "model_id"):
        return model_id.split("/")[-1]
    source, target = _data_name(results, "source"), _data_name(results, "target")
    return f"sere-{_slug(source)}-to-{_slug(target)}" if source and target else "sere"


def _data_name(results: Mapping, key: str) -> str | None:
    """A name as it may be published: a Hub id as it is, a path by its last part only."""
    name = _text(results.get(key))
    return name if name is None or is_hub_id(name) else re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _named(results: Mapping, key: str) -> str:
    """A data set's name and language."""
    name, language = _data_name(results, key), _text(results.get(f"{key}_language"))
    return f"{name or f'a {key} data set whose name is {NOT_RECORDED}'} (language: {language or NOT_RECORDED})"


def _encoder(results: Mapping) -> str:
    """The encoder's name and where it comes from; a missing key is not the same as None, which is no encoder."""
    if "encoder" in results and results["encoder"] is None:
        return NO_ENCODER
    name, base_model = _data_name(results, "encoder"), results.get("base_model")
    if not is_hub_id(base_model):
        return name or NOT_RECORDED
    return base_model if name in (None, base_model, base_model.split("/")[1]) else f"{name}, from {base_model}"


def _foreign_part(results: Mapping, encoder: str) -> str:
    """What else the checkpoint is made of, whose terms count too."""
    base = results.get("base_model")
    if is_hub_id(base):
        return f" and with [{base}](https://huggingface.co/{base})"
    return "" if encoder == NO_ENCODER else " and with the encoder"


def _start(results: Mapping) -> str:
    """Where the labelled clips came from, if there was no source data."""
    if not results.get("source_free"):
        return ""
    base = results.get("base_model")
    model = f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else "another SERE checkpoint"
    return (
        f" It was adapted **without source data**: the labelled clips are the embeddings that travel in {model}; no "
        "source recording was read."
    )


def _shared_audio(names: list | None, shots: list | None) -> str:
    if names is None:
        return "Whether recordings of the source occur in the target too was not measured."
    if not names:
        return "No recording of the source occurs in the target."
    return (
        f"**{len(names)} target clips have the very audio of a source clip, {len(shots or [])} of a labelled one**: "
        "their scores are not of a new language."
    )


def _example_prediction(example: Mapping | None) -> str:
    label = _text((example or {}).get("label"))
    return f", taken for *{label}*" if label else ""


def _parameters(parameters: Mapping | None, prefix: str = "") -> str:
    """Numbers and switches as `name` = value; text is left out, as it may be a path or a name."""
    parts = []
    for key, value in (parameters or {}).items():
        if isinstance(value, Mapping):
            parts.append(_parameters(value, f"{prefix}{_text(key)}."))
        elif isinstance(value, bool) or _number(value) is not None:
            parts.append(f"`{prefix}{_text(key)}` = {value}")
    return ", ".join(part for part in parts if part)


def _fraction(values: Mapping, key: str) -> float | None:
    """A score from 0 to 1, or None if there is none or it is not a number."""
    value = _number(values.get(key))
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{key} is {value}: scores are fractions from 0 to 1, not percent.")
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _count(value: Any) -> str:
    number = _integer(value)
    return NOT_RECORDED if number is None else str(number)


def _steps(results: Mapping) -> str:
    steps = _integer(results.get("refine_steps"))
    if steps == 0:
        return "none: the field in closed form"
    encoder = ENCODER_TRAINING.get(results.get("train_encoder"))
    return _count(steps) + (f" ({encoder})" if steps and encoder else "")


def _percent(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{100 * value:.1f} %"


def _text(value: Any) -> str | None:
    """One line that cannot break a table, a code span or the page."""
    if value is None or not str(value).strip():
        return None
    return plain(str(value)) or "unnamed"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"

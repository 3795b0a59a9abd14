"""Answer which emotions are heard in recordings: files, a folder, or a corpus in any form (docs/predicting.md).

    python -m modeling_sere.predict out/mine my_clips/ --output predictions.csv
    python -m modeling_sere.predict org/sere-sample a.wav b.wav interview.wav --output windows.jsonl --timeline

One row for each recording, or for each window with --timeline: file, emotion, score of each emotion, and the strongest
moment in seconds. A recording that cannot be used is a row with its error. The code that runs is that of this package,
not the code that lies beside the model's weights.
"""

import argparse
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_sere.training.errors import RunError, first_line
from modeling_sere.training.running.ending import one_sentence

if TYPE_CHECKING:
    from modeling_sere.pipeline_sere import SerePipeline
    from modeling_sere.training.corpora.inputs import Inputs

SUFFIXES = (".csv", ".jsonl")
BATCHES_TOGETHER = 16  # are read at a time, sorted by length and written,
BYTES_TOGETHER = 2**26  # or fewer if their files are large
ENROLLED = 20  # clips of a speaker that tell how they usually sound
DIGITS = 6
FREE = ("output", "resume", "device", "batch_size", "model", "revision")  # decide nothing; of the model its weights do


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    about, _, _ = __doc__.partition("\n\nOne row")
    parser = argparse.ArgumentParser(
        prog="python -m modeling_sere.predict", description=about, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("model", help="folder of a SERE model, or its name on the Hub")
    add("inputs", nargs="+", help="audio files, folders, a table, or a dataset on the Hub (docs/corpora.md)")
    add("--output", type=Path, required=True, help="new file of answers, .csv or .jsonl")
    add("--revision", help="revision of a model on the Hub")
    add("--emotions", help="'anger,neutral': choose among these of the model's emotions")
    add("--timeline", action="store_true", help="answer for windows of each recording")
    add("--window_s", type=float, default=3.0, help="their length in seconds (default: 3)")
    add("--hop_s", type=float, help="their distance in seconds (default: half of the length)")
    add(
        "--speakers", nargs="?", const="", metavar="COLUMN",
        help="compare each recording with how its speaker usually sounds, who is told by this column of a table, or by "
        "folder1, the folders at the top (default: the usual column)",
    )  # fmt: skip
    add("--split", help="split of a corpus")
    add("--audio_column", help="column of a table that names the files")
    add("--outside_files", action="store_true", help="let names of a table lead out of its folder")
    add("--batch_size", type=int, default=8, help="recordings per forward pass (default: 8)")
    add("--device", help="cuda, cuda:1, cpu and so on (default: the first accelerator, else cpu)")
    add("--resume", action="store_true", help="go on with an --output that broke off")
    arguments = parser.parse_args(words)
    if arguments.output.suffix.lower() not in SUFFIXES:
        parser.error(f"--output must end with {' or '.join(SUFFIXES)}, not {arguments.output.suffix or 'nothing'}")
    if arguments.batch_size < 1:
        parser.error(f"--batch_size must be at least 1, not {arguments.batch_size}")
    return arguments


def run(arguments: argparse.Namespace) -> str:
    """Answer for all recordings and return what was done, in one sentence.

    Raises:
        RunError: the model, the recordings, an option or the output cannot be used.
    """
    from tqdm.auto import tqdm

    from modeling_sere.training.corpora.inputs import Inputs
    from modeling_sere.training.corpora.names import number
    from modeling_sere.training.reporting.answer_file import AnswerFile
    from modeling_sere.training.running.identity import of_model

    if arguments.output.exists():
        if arguments.resume:
            return f"{arguments.output} is whole: nothing is left to do."
        raise RunError(f"{arguments.output} exists: give another --output, or delete it")
    inputs = Inputs(
        arguments.inputs, arguments.speakers, split=arguments.split, audio_column=arguments.audio_column,
        outside_files=arguments.outside_files,
    )  # fmt: skip
    classifier = load(arguments)
    decisive = {key: value for key, value in vars(arguments).items() if key not in ("output", "resume", "device")}
    identity = decisive | {
        "form": arguments.output.suffix,
        "weights": of_model(classifier.model),
        "names": inputs.names,
    }
    output = AnswerFile(arguments.output, columns(classifier, arguments), identity, arguments.resume)
    failed, whole = 0, False
    try:
        with tqdm(total=len(inputs), initial=output.done, desc="Predicting", unit="recording") as bar:
            for found in answers(classifier, inputs, output.done, arguments.batch_size):
                output.add([row for answer in found for row in rows(answer)] if output.is_table else found, len(found))
                failed += sum("error" in answer for answer in found)
                bar.update(len(found))
        whole = True
    finally:
        output.close(whole)
    if failed == len(inputs):
        raise RunError(f"not one of {number(failed, 'recording')} could be used: {arguments.output} says why")
    said = f"{number(len(inputs), 'recording')}: answers in {arguments.output}"
    return said + (f"; {failed} could not be used, and have an error there in their place." if failed else ".")


def load(arguments: argparse.Namespace) -> "SerePipeline":
    """Return the pipeline of the model. Raises RunError: the model or an option cannot be used."""
    import torch
    from transformers.utils import logging

    from modeling_sere import SereConfig, SereForAudioClassification
    from modeling_sere.modeling_sere import feature_extractor
    from modeling_sere.pipeline_sere import SerePipeline

    class Predicting(SerePipeline):
        """The pipeline, whose answers have the strongest moment too."""

        def postprocess(self, model_outputs, **options):
            result = super().postprocess(model_outputs, **options)
            if "error" in model_outputs:
                return result
            told = result if isinstance(result, dict) else {"scores": result}
            return told | {"strongest": _strongest(model_outputs)}

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    options = {"return_timestamps": True, "window_s": arguments.window_s, "hop_s": arguments.hop_s}
    if arguments.emotions:
        chosen: dict[str, Any] = {"emotions": [name for name in arguments.emotions.split(",") if name.strip()]}
    else:
        chosen = {}
    try:
        kind = SereConfig.get_config_dict(arguments.model, revision=arguments.revision)[0].get("model_type")
        if kind != SereConfig.model_type:
            raise RunError(f"{arguments.model} is a model of type {kind}, not of SERE")
        model = SereForAudioClassification.from_pretrained(arguments.model, revision=arguments.revision)
        return Predicting(
            model.eval(), feature_extractor=feature_extractor(), device=arguments.device or device, on_error="return",
            **chosen, **(options if arguments.timeline else {}),
        )  # fmt: skip
    except RunError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{arguments.model} cannot be used: {first_line(error)}") from error


def _strongest(outputs: dict[str, Any]) -> float | None:
    """Return the second at which a recording has its greatest highlight; None of silence."""
    from modeling_sere.audio_sere import SAMPLING_RATE
    from modeling_sere.timeline_sere import FRAME_SAMPLES, joined_highlights

    if outputs.get("silent") or all(window["silent"] for window in outputs.get("windows", [{"silent": False}])):
        return None
    highlights = outputs.get("highlights")
    if highlights is None:
        highlights = joined_highlights(outputs["windows"], outputs["window_highlights"])
    return (int(highlights.argmax()) + 0.5) * FRAME_SAMPLES / SAMPLING_RATE


def columns(classifier: "SerePipeline", arguments: argparse.Namespace) -> list[str]:
    """Return the columns of a table of answers."""
    labels = classifier.model.config.id2label
    chosen = classifier._postprocess_params.get("chosen", sorted(labels))
    when = ["start", "end"] if arguments.timeline else []
    speaker = [] if arguments.speakers is None else ["speaker"]
    return [
        "file", *speaker, *when, "emotion", "score", *(f"score_{labels[k]}" for k in chosen), "strongest", "error"
    ]  # fmt: skip


def answers(classifier: "SerePipeline", inputs: "Inputs", done: int, batch_size: int) -> Iterator[list[dict[str, Any]]]:
    """Give the answers for some recordings at a time, speaker by speaker, but for the first `done` of them.

    Raises:
        RunError: a disk or network failure, or no room on the device.
    """
    import torch

    order = sorted(range(len(inputs)), key=lambda index: inputs.speakers[index] or "")
    size = BATCHES_TOGETHER * batch_size
    for speaker, group in groupby(order, key=inputs.speakers.__getitem__):
        indices = list(group)
        skipped = min(done, len(indices))
        done -= skipped
        if skipped == len(indices):
            continue
        try:
            earlier = enrolment(classifier, inputs, indices) if speaker is not None else []
            options = {"batch_size": batch_size} | ({"speaker_clips": earlier} if earlier else {})
            for start in range(skipped, len(indices), size):
                part = indices[start : start + size]
                found = dict(_answered(classifier, inputs, part, options))
                yield [_named(inputs, index, found[index]) for index in part]
        except OSError as error:
            raise RunError(f"the recordings cannot be read any more ({error}): add --resume to go on") from error
        except torch.OutOfMemoryError as error:
            raise RunError(f"the device has no room for --batch_size {batch_size}: give less, with --resume") from error


def _answered(
    classifier: "SerePipeline", inputs: "Inputs", indices: list[int], options: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what the pipeline says of some recordings, by their index; of large files few at a time."""
    waiting: list[tuple[int, Any]] = []
    size = 0

    def flushed() -> Iterator[tuple[int, dict[str, Any]]]:
        results = classifier([item for _, item in waiting], **options)
        yield from ((index, result) for (index, _), result in zip(waiting, results, strict=True))

    for index, item in inputs.read(indices):
        if isinstance(item, Exception):
            yield index, {"error": str(item)}
            continue
        waiting.append((index, item))
        size += len(item.get("bytes", ())) if isinstance(item, dict) else 0
        if size > BYTES_TOGETHER:
            yield from flushed()
            waiting, size = [], 0
    if waiting:
        yield from flushed()


def enrolment(classifier: "SerePipeline", inputs: "Inputs", indices: list[int]) -> list[dict[str, Any]]:
    """Return up to `ENROLLED` clips of a speaker, from all of theirs: no silence, nothing over 30 s, none damaged."""
    from modeling_sere.audio_sere import SAMPLING_RATE, is_silent

    kept = []
    for _, item in inputs.read(sorted({indices[k * len(indices) // ENROLLED] for k in range(ENROLLED)})):
        try:
            clip = classifier.preprocess(item).get("clip") if not isinstance(item, Exception) else None
        except (OSError, TypeError, ValueError, RuntimeError, ImportError):
            clip = None  # its own row will say why
        if clip is not None and not is_silent(clip):
            kept.append({"array": clip, "sampling_rate": SAMPLING_RATE})
    return kept


def _named(inputs: "Inputs", index: int, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result of the pipeline as an answer: what stands in a line of JSON."""
    speaker = inputs.speakers[index]
    name = {"file": inputs.names[index]} | ({} if speaker is None else {"speaker": speaker})
    if "error" in result:
        return name | {"error": result["error"]}
    answer = name | _scores(result["scores"], result["strongest"])
    if "chunks" in result:
        answer["windows"] = [
            dict(zip(("start", "end"), chunk["timestamp"], strict=True))
            | _scores(chunk["scores"], None if chunk["silent"] else chunk["highlight"])
            for chunk in result["chunks"]
        ]
    return answer


def _scores(ranked: list[dict[str, Any]], strongest: float | None) -> dict[str, Any]:
    scores = {each["label"]: round(each["score"], DIGITS) for each in ranked}
    best = ranked[0]["label"]
    return {"emotion": best, "score": scores[best], "scores": scores, "strongest": strongest}


def rows(answer: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Give an answer as rows of a table: one, or one for each of its windows."""
    name = {key: answer[key] for key in ("file", "speaker") if key in answer}
    if "error" in answer:
        yield name | {"error": answer["error"]}
        return
    for part in answer.get("windows", [answer]):
        yield name | part | {f"score_{label}": score for label, score in part["scores"].items()}


def main() -> None:
    arguments = parse()
    with one_sentence("python -m modeling_sere.predict"):
        print(run(arguments))


if __name__ == "__main__":
    main()

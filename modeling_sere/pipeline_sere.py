"""The audio-classification pipeline of SERE: emotions of clips, and the emotion timeline of recordings of any length.

It gives what transformers' own `AudioClassificationPipeline` gives, and needs neither ffmpeg nor torchaudio to do so.
"""

import math
import numbers
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AudioClassificationPipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .audio_sere import MIN_SECONDS, SAMPLING_RATE, is_rate_and_samples, is_silent, name_of, stream_audio
from .decoding_sere import MAX_BYTES
from .fetching_sere import TIMEOUT, fetch, is_url
from .stream_sere import SereStream
from .timeline_sere import (
    FRAME_SAMPLES,
    best_of,
    chunk_of,
    compact,
    cut_windows,
    joined_highlights,
    loudness_of,
    ranked,
    weighted_mean,
)

CLIP_SECONDS = 30.0  # up to here a recording is one clip and one forward pass
MAX_SECONDS = 86_400.0  # of one recording: a day; a file of a few MB can claim to hold years
WINDOW_SECONDS = 3.0
WINDOWS_PER_FORWARD = 8
BATCHES_AHEAD = 16  # clips of a list are sorted by length this many batches at a time
INPUT_ERRORS = (OSError, TypeError, ValueError, RuntimeError, ImportError)  # what getting and reading one input raises


class SerePipeline(AudioClassificationPipeline):
    """Speech emotion classification of audio in any form.

    An input is a path, an `http(s)` URL (fetched into memory), the bytes of an audio file, a binary file object, a
    numpy array or torch tensor at 16 kHz, a pair `(rate, samples)`, `{"array" | "raw", "sampling_rate"}`,
    `{"bytes", "path"}` as `datasets` gives it with `Audio(decode=False)`, or a mapping that has one of these as
    `"audio"`; `audio_sere.py` tells which shapes and types. A list (or any other tuple) of inputs returns a list; a
    generator, `datasets.Dataset` or torch dataset is read lazily and returns an iterator. In a list with
    `batch_size > 1` clips of similar length share a batch; the order of the results is that of the inputs.

    The result of an input is a list of `{"score", "label"}`, best first. **Silence is an answer of its own**: where no
    60 ms of a recording are louder than -60 dB of full scale, the list begins with `{"score": 1.0, "label": "silence"}`
    and every emotion has the score 0, whatever `function_to_apply`.

    An input that cannot be read raises; an iterator goes on with the next input when it is asked again. With
    `on_error="return"` the result of such an input is `{"error": <one sentence>, "file": <its name>}` instead, and the
    others have theirs. Neither repeats user names, passwords or queries of URLs. Scores that are not finite, as damaged
    weights give them, are such an error too.

    Recordings up to 30 s are one forward pass. Longer ones are read and scored window by window (`window_s`, `hop_s`),
    in memory that does not grow with the length of a file, and their score is the mean of the windows' scores weighted
    by loudness: mean square amplitude to the power 0.3 (Stevens' law, twice as loud every 10 dB). Pauses hardly count,
    silent windows not at all.

    With `return_timestamps=True` an input gives a timeline instead of the list of scores:

        {"label": "anger", "score": 0.81,                    # of the whole recording, the same as without timestamps
         "scores": [{"score": 0.81, "label": "anger"}, ...],
         "silent": False,
         "chunks": [{"timestamp": [0.0, 3.0],                # start and end of the window in seconds
                     "label": "anger", "score": 0.7, "scores": [...], "silent": False,
                     "highlight": 1.27},                     # second of the recording where the window is strongest
                    ...],                                    # (the middle of a silent one)
         "highlights": {"hop_seconds": 0.02,                 # weight t is that of the instant (t + 0.5) * hop_seconds
                        "weights": [...]}}                   # sum 1 over the recording

    The windows overlap and cover the recording; the last one is moved back to end with it. The highlights of a
    recording up to 30 s are the model's; those of a longer one are the windows' highlights, each weighted by the
    loudness of its window, averaged where windows overlap and scaled to sum 1.

    A pipeline may be called from several threads: a call leaves nothing behind on it.
    """

    def __init__(self, *args, top_k: int | None = None, **kwargs):
        super().__init__(*args, top_k=top_k, **kwargs)  # all labels: the base class would say 5

    def _upload_modified_files(self, *args: Any, **kwargs: Any) -> Any:
        """Publish the files that `push_to_hub` of the model would."""
        return self.model._upload_modified_files(*args, **kwargs)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Classify one input or many; see the class for the kinds of input and the result.

        Args:
            inputs: one input, or a list, generator or dataset of inputs.
            batch_size (`int`, defaults to 1): clips per forward pass.
            top_k (`int`, *optional*): how many labels to return, best first; all by default.
            function_to_apply (`str`, *optional*): "softmax" (the default), "sigmoid" or "none" (logits).
            emotions (`list[str]`, *optional*): two or more of the model's emotions to choose among; the scores are of
                these alone, and with "softmax" sum to 1.
            return_timestamps (`bool`, defaults to `False`): return the timeline.
            window_s, hop_s (`float`, default to 3.0 and half of `window_s`): length and distance of the windows in
                seconds, rounded to frames of 20 ms; `hop_s` may not exceed `window_s`.
            speaker_clips (`list`, *optional*): earlier recordings (up to 30 s each) of the speaker of all `inputs`.
                The model then compares the inputs with how this speaker usually sounds.
            on_error (`str`, defaults to "raise"): what becomes of an input that cannot be used: "raise" or "return".
            timeout (`float`, defaults to 60): seconds that fetching one URL may take in all.
            max_bytes (`int`, defaults to 2**29): bytes that one URL may have.
            max_seconds (`float`, defaults to 86,400): a longer recording is an error, found when so much is decoded.

        Raises:
            AudioError: the audio is unusable; the message names it.
            OSError, TypeError, ImportError: as `read_audio` of `audio_sere.py`.
            ValueError: an option is out of range, or the model gives scores that are not finite.
        """
        if is_rate_and_samples(inputs):
            inputs = {"audio": inputs}  # the base class would take the tuple for a conversation
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if _is_collection(inputs):
            inputs = (item for item in inputs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        function_to_apply: str | None = None,
        emotions: list[str] | None = None,
        return_timestamps: bool | None = None,
        window_s: float | None = None,
        hop_s: float | None = None,
        speaker_clips: list | None = None,
        on_error: str | None = None,
        timeout: float | None = None,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise TypeError(f"SerePipeline has no option {', '.join(sorted(unknown))}")
        limits = _given(timeout=timeout, max_bytes=max_bytes, max_seconds=max_seconds)
        for option, value in limits.items():
            _check_number(option, value, 1e-3, math.inf)
        windows = _given(window_s=window_s, hop_s=hop_s)
        for option, value in windows.items():
            _check_number(option, value, MIN_SECONDS, CLIP_SECONDS)
        if top_k is not None:
            _check_count("top_k", top_k)
        if return_timestamps not in (None, True, False):
            raise ValueError(f"return_timestamps is {return_timestamps!r}, expected True or False")
        _check_choice("function_to_apply", function_to_apply, ("softmax", "sigmoid", "none"))
        _check_choice("on_error", on_error, ("raise", "return"))

        forward = _given(return_timestamps=return_timestamps, max_seconds=max_seconds, **windows)
        postprocess = _given(
            top_k=top_k, function_to_apply=function_to_apply, return_timestamps=return_timestamps, on_error=on_error
        )
        if emotions is not None:
            postprocess["chosen"] = self._chosen(emotions)
        if speaker_clips is not None:
            forward["statistics"] = self._speaker_statistics(speaker_clips, limits)
        return limits, forward, postprocess

    def _chosen(self, emotions: Iterable[str]) -> list[int]:
        """Find the positions of the emotions among the labels, in the order of the labels."""
        known = {_normal(label): i for i, label in self.model.config.id2label.items()}
        if isinstance(emotions, (str, bytes)) or not isinstance(emotions, Iterable):
            raise ValueError(f"emotions is {emotions!r}, expected a list of names")
        named = list(emotions)
        if foreign := [name for name in named if not isinstance(name, str) or _normal(name) not in known]:
            labels = ", ".join(self.model.config.id2label.values())
            raise ValueError(f"emotions has {foreign[0]!r}, which the model does not know: choose among {labels}")
        chosen = sorted({known[_normal(name)] for name in named})
        if len(chosen) < 2:
            raise ValueError(f"emotions is {named!r}, expected at least two to choose among")
        return chosen

    def _speaker_statistics(self, clips: list, limits: dict) -> torch.Tensor:
        if not isinstance(clips, (list, tuple)) or not clips:
            raise TypeError("speaker_clips expects a list of one or more recordings of the speaker")
        limits = {**getattr(self, "_preprocess_params", {}), **limits}  # not there yet while __init__ runs
        prepared = [self.preprocess(clip, **limits) for clip in clips]
        if any("recording" in clip for clip in prepared):
            raise ValueError(f"speaker_clips expects clips of up to {CLIP_SECONDS:g} s, cut longer recordings")
        if silent := [clip["name"] for clip in prepared if is_silent(clip["clip"])]:
            raise ValueError(f"speaker_clips has {silent[0]}, which is silent: leave it out")
        batch = self._ensure_tensor_on_device(self._collate([clip["clip"] for clip in prepared]), self.device)
        with self.device_placement(), torch.inference_mode():
            return self.model.speaker_statistics(**batch)

    def preprocess(
        self,
        inputs: Any,
        timeout: float = TIMEOUT,
        max_bytes: int = MAX_BYTES,
        max_seconds: float = MAX_SECONDS,
    ) -> dict[str, Any]:
        """Return the input's `name`, and its `clip` (n,), or its source as `recording` if it lasts over 30 s, left
        unread.
        """
        inputs = _audio_in(inputs)
        name = name_of(inputs)
        if (url := _url_in(inputs)) is not None:
            inputs = fetch(url, max_bytes, timeout)
        with closing(stream_audio(inputs, int(CLIP_SECONDS * SAMPLING_RATE), name, max_seconds)) as blocks:
            clip = next(blocks)
            if next(blocks, None) is None:
                return {"name": name, "clip": clip}
        return {"name": name, "recording": inputs}

    def get_inference_context(self) -> Callable:
        return torch.inference_mode

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> PipelineIterator:
        _check_count("batch_size", batch_size)

        params = {"preprocess_params": preprocess_params}
        if isinstance(inputs, Sized):
            dataset, batches_ahead = _Indexed(inputs, self._prepared, params), BATCHES_AHEAD
        else:  # of unknown pace: its results should not wait for more than their own batch
            dataset, batches_ahead = PipelineIterator(inputs, self._prepared, params), 1
            num_workers = min(num_workers, 1)  # each worker would iterate over everything
        prepared: DataLoader = DataLoader(dataset, batch_size=None, num_workers=num_workers, collate_fn=_as_is)
        outputs = _InOrder(prepared, lambda batch: self._scored(batch, **forward_params), batch_size, batches_ahead)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params) -> Any:
        prepared = self._prepared(inputs, preprocess_params)
        return self.postprocess(self._scored([prepared], **forward_params)[0], **postprocess_params)

    def _prepared(self, inputs: Any, preprocess_params: dict) -> dict[str, Any]:
        """Return what `preprocess` makes of an input, or its `error`, which travels on to `postprocess` in its place.

        Raised here, it would end the iterators around this pipeline, and every later answer with them.
        """
        try:
            return self.preprocess(inputs, **preprocess_params)
        except INPUT_ERRORS as error:
            return {"name": name_of(_audio_in(inputs)), "error": error}

    def _collate(self, clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Pad clips to the right into float32 input_values (B, N) and attention_mask (B, N).

        They stay float32 whatever the precision of the model: half precision would bury quiet speech in noise.
        """
        batch = self.feature_extractor(
            clips, sampling_rate=SAMPLING_RATE, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        return {"input_values": batch["input_values"], "attention_mask": batch["attention_mask"]}

    def _forward(self, model_inputs: dict, statistics: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        if statistics is not None:
            model_inputs = {**model_inputs, "statistics": statistics}
        outputs = self.model(**model_inputs)
        return {"logits": outputs.logits.float(), "highlights": outputs.highlights.float()}

    def _scored(
        self,
        prepared: list[dict],
        statistics: torch.Tensor | None = None,
        return_timestamps: bool = False,
        window_s: float = WINDOW_SECONDS,
        hop_s: float | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> list[dict[str, Any]]:
        """Score inputs: for each its `name`, and what `_outputs` gives, windows (`compact`), both, or an `error`."""
        window, hop = _window_and_hop(window_s, hop_s)
        clips = iter(self._outputs([item["clip"] for item in prepared if "clip" in item], statistics))
        scored = [{**(next(clips) if "clip" in item else {}), "name": item["name"]} for item in prepared]
        for item, output in zip(prepared, scored, strict=True):
            if "error" in item:
                output["error"] = item["error"]
                continue
            try:
                if "clip" in item:
                    _check_finite(output, item["name"])
                if return_timestamps or "recording" in item:
                    blocks = stream_audio(item.get("recording", item.get("clip")), window, item["name"], max_seconds)
                    windows = self._windows_of(blocks, window, hop, statistics)
                    output["windows"], output["window_highlights"] = compact(
                        _check_finite(part, item["name"]) for part in windows
                    )
            except INPUT_ERRORS as error:
                output["error"] = error
        return scored

    def _outputs(self, clips: list[np.ndarray], statistics: torch.Tensor | None) -> list[dict[str, Any]]:
        """Run the model: for each clip whether it is `silent`, its `logits` (C,) and `highlights` (T,).

        Silent clips are not shown to the model: they have no logits, and equal highlights.
        """
        silent = [is_silent(clip) for clip in clips]
        audible = [clip for clip, quiet in zip(clips, silent, strict=True) if not quiet]
        heard = iter(self._forward_clips(audible, statistics))
        outputs = []
        for clip, quiet in zip(clips, silent, strict=True):
            frames = max(1, len(clip) // FRAME_SAMPLES)
            output = {"logits": None, "highlights": torch.full((frames,), 1 / frames)} if quiet else next(heard)
            outputs.append({"silent": quiet, **output})
        return outputs

    def _forward_clips(self, clips: list[np.ndarray], statistics: torch.Tensor | None) -> list[dict[str, torch.Tensor]]:
        if not clips:
            return []
        try:
            outputs = self.forward(self._collate(clips), statistics=statistics)
        except ValueError as error:
            if "not finite" not in str(error):
                raise
            if len(clips) > 1:  # some of them: the others have answers
                return [output for clip in clips for output in self._forward_clips([clip], statistics)]
            nothing = torch.full((self.model.config.num_labels,), torch.nan)
            return [{"logits": nothing, "highlights": torch.zeros(1)}]
        frames = [max(1, len(clip) // FRAME_SAMPLES) for clip in clips]
        return [
            # cloned: a view would keep the padded batch alive
            {"logits": logits, "highlights": highlights[:count].clone()}
            for logits, highlights, count in zip(outputs["logits"], outputs["highlights"], frames, strict=True)
        ]

    def _windows_of(
        self, blocks: Iterable[np.ndarray], window: int, hop: int, statistics: torch.Tensor | None
    ) -> Iterator[dict[str, Any]]:
        """Score the windows of a recording: see `_scored_windows`."""
        return self._scored_windows(cut_windows(blocks, window, hop), statistics)

    def _scored_windows(
        self, windows: Iterable[tuple[int, np.ndarray]], statistics: torch.Tensor | None
    ) -> Iterator[dict[str, Any]]:
        """Yield each window's `start` and `end` (samples), `loudness`, and what `_outputs` gives."""
        windows = iter(windows)
        while several := list(islice(windows, WINDOWS_PER_FORWARD)):
            outputs = self._outputs([samples for _, samples in several], statistics)
            for (start, samples), output in zip(several, outputs, strict=True):
                yield {"start": start, "end": start + len(samples), "loudness": loudness_of(samples), **output}

    def stream(
        self,
        speaker_clips: list | None = None,
        window_s: float | None = None,
        hop_s: float | None = None,
        top_k: int | None = None,
        function_to_apply: str | None = None,
        emotions: list[str] | None = None,
    ) -> SereStream:
        """Listen to audio while it is spoken; see [`SereStream`].

        Args:
            speaker_clips, window_s, hop_s, top_k, function_to_apply, emotions: as in a call of the pipeline.

        Raises:
            As a call of the pipeline does for options that are out of range.
        """
        given = _given(
            speaker_clips=speaker_clips, window_s=window_s, hop_s=hop_s,
            top_k=top_k, function_to_apply=function_to_apply, emotions=emotions,
        )  # fmt: skip
        _, forward, postprocess = self._sanitize_parameters(**given)
        forward, postprocess = {**self._forward_params, **forward}, {**self._postprocess_params, **postprocess}
        options = {key: forward[key] for key in ("window_s", "hop_s") if key in forward}
        window, hop = _window_and_hop(**options)
        statistics = forward.get("statistics")
        labels, scores_of = self._scoring(postprocess.get("function_to_apply"), postprocess.get("chosen"))

        def score(windows: list[tuple[int, np.ndarray]]) -> list[dict[str, Any]]:
            with self.device_placement(), torch.inference_mode():
                parts = list(self._scored_windows(windows, statistics))
            kept, _ = compact(_check_finite(part, "the stream") for part in parts)
            return [chunk_of(part, ranked(scores_of(part), labels, postprocess.get("top_k"))) for part in kept]

        return SereStream(score, window, hop)

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: int | None = None,
        function_to_apply: str | None = None,
        chosen: list[int] | None = None,
        return_timestamps: bool = False,
        on_error: str = "raise",
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Return the result for one input; `chosen` are the positions of the emotions to choose among."""
        if (error := model_outputs.get("error")) is not None:
            if on_error == "raise":
                raise error
            return {"error": _sentence(error, model_outputs["name"]), "file": model_outputs["name"]}
        labels, scores_of = self._scoring(function_to_apply, chosen)
        windows = model_outputs.get("windows", [])
        window_scores = [scores_of(window) for window in windows]
        overall = scores_of(model_outputs) if "silent" in model_outputs else weighted_mean(windows, window_scores)
        result = ranked(overall, labels, top_k)
        if not return_timestamps:
            return result
        if "highlights" in model_outputs:
            highlights = model_outputs["highlights"]
        else:
            highlights = joined_highlights(windows, model_outputs["window_highlights"])
        return {
            **best_of(result),
            "scores": result,
            "silent": overall is None,
            "chunks": [
                chunk_of(window, ranked(scores, labels, top_k))
                for window, scores in zip(windows, window_scores, strict=True)
            ],
            "highlights": {"hop_seconds": FRAME_SAMPLES / SAMPLING_RATE, "weights": highlights.tolist()},
        }

    def _scoring(
        self, function_to_apply: str | None, chosen: list[int] | None
    ) -> tuple[list[str], Callable[[dict], torch.Tensor | None]]:
        """Return the labels in question, and what gives their scores from an output; a silent one has none."""
        if function_to_apply is None:
            by_problem = {"regression": "none", "multi_label_classification": "sigmoid"}
            function_to_apply = by_problem.get(self.model.config.problem_type, "softmax")
        apply = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid, "none": lambda x: x}[function_to_apply]
        chosen = list(range(self.model.config.num_labels)) if chosen is None else chosen

        def scores_of(output: dict) -> torch.Tensor | None:
            return None if output["silent"] else apply(torch.as_tensor(output["logits"])[chosen])

        return [self.model.config.id2label[i] for i in chosen], scores_of


class _Indexed(PipelineDataset):
    """Inputs that have places. One that cannot be got, as where a dataset decodes audio itself, becomes its error."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        try:
            return super().__getitem__(i)
        except INPUT_ERRORS as error:
            return {"name": f"<input {i}>", "error": error}


class _InOrder:
    """Scores of prepared inputs in their own order, computed in batches of similar length."""

    def __init__(self, prepared: DataLoader, score: Callable, batch_size: int, batches_ahead: int):
        self.prepared, self.score, self.batch_size = prepared, score, batch_size
        self.ahead = batch_size * batches_ahead if batch_size > 1 else 1

    def __len__(self) -> int:
        return len(self.prepared)

    def __iter__(self) -> Iterator[dict]:
        for group in self._groups():
            order = sorted(range(len(group)), key=lambda i: len(group[i].get("clip", ())))
            outputs: dict[int, dict] = {}
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                outputs.update(zip(batch, self.score([group[i] for i in batch]), strict=True))
            yield from (outputs[i] for i in range(len(group)))

    def _groups(self) -> Iterator[list[dict]]:
        """Yield inputs that are in memory at the same time: of recordings, which may be large, one at most."""
        group = []
        for item in self.prepared:
            group.append(item)
            if len(group) == self.ahead or "recording" in item:
                yield group
                group = []
        if group:
            yield group


def _window_and_hop(window_s: float = WINDOW_SECONDS, hop_s: float | None = None) -> tuple[int, int]:
    """Return length and distance of windows in samples, whole frames; the distance is half of the length by default."""
    hop_s = window_s / 2 if hop_s is None else hop_s
    window, hop = (max(1, round(s * SAMPLING_RATE / FRAME_SAMPLES)) * FRAME_SAMPLES for s in (window_s, hop_s))
    if hop > window:
        raise ValueError(f"hop_s is {hop_s} and window_s {window_s}: windows further apart than long leave gaps")
    return window, hop


def _check_finite(output: dict[str, Any], name: str) -> dict[str, Any]:
    logits = output["logits"]
    if logits is not None and not (logits.isfinite().all() and output["highlights"].isfinite().all()):
        raise ValueError(
            f"{name} gets scores from the model that are not finite: its weights are damaged, or its precision is too"
            " low for them (load it with dtype=torch.float32)"
        )
    return output


def _sentence(error: Exception, name: str) -> str:
    """Put the error into one line that names the input."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if name in text else f"{name} cannot be read ({text})"


def _audio_in(item: Any) -> Any:
    """Return the audio of a row of a dataset, or the item itself."""
    return item["audio"] if isinstance(item, Mapping) and "audio" in item else item


def _url_in(inputs: Any) -> str | None:
    """Return the URL that an input is, or that its mapping has as "path" without any content."""
    if isinstance(inputs, Mapping) and all(inputs.get(key) is None for key in ("array", "raw", "bytes")):
        inputs = inputs.get("path")
    return inputs if isinstance(inputs, str) and is_url(inputs) else None


def _is_collection(inputs: Any) -> bool:
    """Tell whether this is an iterable of inputs that the base class would take for one input."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, torch.Tensor, Mapping)
    handled = (list, Dataset)
    return (
        isinstance(inputs, Iterable)
        and not isinstance(inputs, (*one, *handled))
        and not hasattr(inputs, "read")
        and not hasattr(inputs, "get_all_samples")
    )


def _given(**options: Any) -> dict[str, Any]:
    return {option: value for option, value in options.items() if value is not None}


def _check_count(option: str, value: Any):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{option} is {value!r}, expected a whole number of at least 1")


def _check_number(option: str, value: Any, low: float, high: float):
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) <= high:
        raise ValueError(f"{option} is {value!r}, expected a number from {low:g} to {high:g}")


def _check_choice(option: str, value: Any, choices: tuple[str, ...]):
    if value is not None and value not in choices:
        raise ValueError(f"{option} is {value!r}, expected " + " or ".join(f'"{choice}"' for choice in choices))


def _normal(name: str) -> str:
    """Normalise a label as it is compared: in one form of Unicode, without case and surrounding blanks."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _as_is(item: Any) -> Any:
    return item

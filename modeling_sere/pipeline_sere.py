"""The audio-classification pipeline of SERE: emotions of clips, and the emotion timeline of recordings of any length.

It gives what transformers' own `AudioClassificationPipeline` gives, and needs neither ffmpeg nor torchaudio to do so.
"""

import os
import urllib.error
import urllib.request
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AudioClassificationPipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .audio_sere import MIN_SECONDS, SAMPLING_RATE, AudioError, stream_audio

CLIP_SECONDS = 30.0  # up to here a recording is one clip and one forward pass
FRAME_SAMPLES = 320  # of the model's highlights: 50 frames per second
WINDOWS_PER_FORWARD = 8
BATCHES_AHEAD = 16  # clips of a list are sorted by length this many batches at a time
URL_TIMEOUT = 60.0


class SerePipeline(AudioClassificationPipeline):
    """Speech emotion classification of audio in any form.

    An input is a path, an `http(s)` URL (fetched into memory), the bytes of an audio file, a binary file object, a
    numpy array or torch tensor at 16 kHz, `{"array" | "raw", "sampling_rate"}`, `{"bytes", "path"}` as `datasets` gives
    it with `Audio(decode=False)`, or a mapping that has one of these as `"audio"`. A list (or tuple) of inputs returns
    a list; a generator, `datasets.Dataset` or torch dataset is read lazily and returns an iterator. In a list with
    `batch_size > 1` clips of similar length share a batch; the order of the results is that of the inputs.

    Recordings up to 30 s are one forward pass. Longer ones are read and scored window by window (`window_s`, `hop_s`),
    in memory that does not grow with the length of a file, and their score is the mean of the windows' scores weighted
    by loudness: mean square amplitude to the power 0.3 (Stevens' law, twice as loud every 10 dB). Pauses hardly count.

    With `return_timestamps=True` an input gives a timeline instead of the list of scores:

        {"label": "anger", "score": 0.81,                    # of the whole recording, the same as without timestamps
         "scores": [{"score": 0.81, "label": "anger"}, ...],
         "chunks": [{"timestamp": [0.0, 3.0],                # start and end of the window in seconds
                     "label": "anger", "score": 0.7, "scores": [...],
                     "highlight": 1.27},                     # second of the recording where the window is strongest
                    ...],
         "highlights": {"hop_seconds": 0.02,                 # weight t is that of the instant (t + 0.5) * hop_seconds
                        "weights": [...]}}                   # sum 1 over the recording

    The windows overlap and cover the recording; the last one is moved back to end with it. The highlights of a
    recording up to 30 s are the model's; those of a longer one are the windows' highlights, each weighted by the
    loudness of its window, averaged where windows overlap and scaled to sum 1.
    """

    def __init__(self, *args, top_k: int | None = None, **kwargs):
        super().__init__(*args, top_k=top_k, **kwargs)  # all labels: the base class would say 5

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Classify one input or many; see the class for the kinds of input and the result.

        Args:
            inputs: one input, or a list, generator or dataset of inputs.
            batch_size (`int`, defaults to 1): clips per forward pass.
            top_k (`int`, *optional*): how many labels to return, best first; all by default.
            function_to_apply (`str`, *optional*): "softmax" (the default), "sigmoid" or "none" (logits).
            return_timestamps (`bool`, defaults to `False`): return the timeline.
            window_s, hop_s (`float`, default to 3.0 and 1.5): length and distance of the windows in seconds, rounded to
                frames of 20 ms; `hop_s` may not exceed `window_s`.
            speaker_clips (`list`, *optional*): earlier recordings (up to 30 s each) of the speaker of all `inputs`.
                The model then compares the inputs with how this speaker usually sounds.

        Raises:
            AudioError: the audio is unusable; the message names it.
            OSError, TypeError, ImportError: as `read_audio` of `audio_sere.py`.
            ValueError: an option is out of range.
        """
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
        return_timestamps: bool | None = None,
        window_s: float | None = None,
        hop_s: float | None = None,
        speaker_clips: list | None = None,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            raise TypeError(f"SerePipeline has no option {', '.join(sorted(unknown))}")
        forward, postprocess = {}, {}
        if top_k is not None:
            if top_k < 1:
                raise ValueError(f"top_k is {top_k}, expected at least 1")
            postprocess["top_k"] = top_k
        if function_to_apply is not None:
            if function_to_apply not in ("softmax", "sigmoid", "none"):
                raise ValueError(f'function_to_apply is "{function_to_apply}", expected "softmax", "sigmoid" or "none"')
            postprocess["function_to_apply"] = function_to_apply
        if return_timestamps is not None:
            forward["return_timestamps"] = postprocess["return_timestamps"] = return_timestamps
        for option, seconds in (("window_s", window_s), ("hop_s", hop_s)):
            if seconds is not None:
                if not MIN_SECONDS <= seconds <= CLIP_SECONDS:
                    raise ValueError(f"{option} is {seconds}, expected {MIN_SECONDS} to {CLIP_SECONDS} seconds")
                forward[option] = seconds
        if speaker_clips is not None:
            forward["statistics"] = self._speaker_statistics(speaker_clips)
        return {}, forward, postprocess

    def _speaker_statistics(self, clips: list) -> torch.Tensor:
        if not isinstance(clips, (list, tuple)) or not clips:
            raise TypeError("speaker_clips expects a list of one or more recordings of the speaker")
        prepared = [self.preprocess(clip) for clip in clips]
        if any("recording" in clip for clip in prepared):
            raise ValueError(f"speaker_clips expects clips of up to {CLIP_SECONDS:g} s, cut longer recordings")
        batch = self._ensure_tensor_on_device(self._collate([clip["clip"] for clip in prepared]), self.device)
        with self.device_placement(), torch.inference_mode():
            return self.model.speaker_statistics(**batch)

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        """`{"clip": samples (n,)}`, or `{"recording": source, "name"}` for one of over 30 s, which is left unread."""
        if isinstance(inputs, Mapping) and "audio" in inputs:
            inputs = inputs["audio"]
        name = None
        if isinstance(inputs, str) and inputs.startswith(("http://", "https://")):
            inputs, name = _fetched(inputs), inputs
        with closing(stream_audio(inputs, int(CLIP_SECONDS * SAMPLING_RATE), name)) as blocks:
            clip = next(blocks)
            if next(blocks, None) is None:
                return {"clip": clip}
        return {"recording": inputs, "name": name}

    def get_inference_context(self) -> Callable:
        return torch.inference_mode

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> PipelineIterator:
        if isinstance(inputs, Sized):
            dataset, batches_ahead = PipelineDataset(inputs, self.preprocess, preprocess_params), BATCHES_AHEAD
        else:  # of unknown pace: its results should not wait for more than their own batch
            dataset, batches_ahead = PipelineIterator(inputs, self.preprocess, preprocess_params), 1
            num_workers = min(num_workers, 1)  # each worker would iterate over everything
        prepared = DataLoader(dataset, batch_size=None, num_workers=num_workers, collate_fn=_as_is)
        outputs = _InOrder(prepared, lambda batch: self._scored(batch, **forward_params), batch_size, batches_ahead)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params) -> Any:
        prepared = self.preprocess(inputs, **preprocess_params)
        return self.postprocess(self._scored([prepared], **forward_params)[0], **postprocess_params)

    def _collate(self, clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Right-padded float32 input_values (B, N) and attention_mask (B, N).

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
        window_s: float = 3.0,
        hop_s: float = 1.5,
    ) -> list[dict[str, Any]]:
        """For each input `logits` (C,) and `highlights` (T,), windows (see `_compact`), or both."""
        window, hop = (max(1, round(s * SAMPLING_RATE / FRAME_SAMPLES)) * FRAME_SAMPLES for s in (window_s, hop_s))
        if hop > window:
            raise ValueError(f"hop_s is {hop_s} and window_s {window_s}: windows further apart than long leave gaps")
        scored = [{} for _ in prepared]
        clips = [i for i, item in enumerate(prepared) if "clip" in item]
        if clips:
            outputs = self._forward_clips([prepared[i]["clip"] for i in clips], statistics)
            for i, output in zip(clips, outputs, strict=True):
                scored[i].update(output)
        for item, output in zip(prepared, scored, strict=True):
            if return_timestamps or "recording" in item:
                blocks = stream_audio(item.get("recording", item.get("clip")), window, item.get("name"))
                output["windows"], output["window_highlights"] = _compact(
                    self._windows_of(blocks, window, hop, statistics)
                )
        return scored

    def _forward_clips(self, clips: list[np.ndarray], statistics: torch.Tensor | None) -> list[dict[str, torch.Tensor]]:
        outputs = self.forward(self._collate(clips), statistics=statistics)
        frames = [max(1, len(clip) // FRAME_SAMPLES) for clip in clips]
        return [
            # cloned: a view would keep the padded batch alive
            {"logits": logits, "highlights": highlights[:count].clone()}
            for logits, highlights, count in zip(outputs["logits"], outputs["highlights"], frames, strict=True)
        ]

    def _windows_of(
        self, blocks: Iterable[np.ndarray], window: int, hop: int, statistics: torch.Tensor | None
    ) -> Iterator[dict[str, Any]]:
        """Each window's `start` and `end` (samples), `loudness`, `logits` (C,) and `highlights` (T,)."""
        windows = _windows(blocks, window, hop)
        while several := list(islice(windows, WINDOWS_PER_FORWARD)):
            outputs = self._forward_clips([samples for _, samples in several], statistics)
            for (start, samples), output in zip(several, outputs, strict=True):
                loudness = float(np.mean(np.square(samples, dtype=np.float64))) ** 0.3
                yield {"start": start, "end": start + len(samples), "loudness": loudness, **output}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        top_k: int | None = None,
        function_to_apply: str | None = None,
        return_timestamps: bool = False,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        if function_to_apply is None:
            by_problem = {"regression": "none", "multi_label_classification": "sigmoid"}
            function_to_apply = by_problem.get(self.model.config.problem_type, "softmax")
        apply = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid, "none": lambda x: x}[function_to_apply]

        windows = model_outputs.get("windows", [])
        window_scores = [apply(torch.tensor(window["logits"])) for window in windows]
        if "logits" in model_outputs:
            overall = apply(model_outputs["logits"])
        else:
            overall = torch.stack(window_scores, dim=1) @ torch.tensor(_weights(windows), dtype=torch.float32)
        ranked = self._ranked(overall, top_k)
        if not return_timestamps:
            return ranked

        chunks = []
        for window, scores in zip(windows, window_scores, strict=True):
            best = self._ranked(scores, top_k)
            peak = window["start"] + FRAME_SAMPLES * (window["peak"] + 0.5)
            chunks.append(
                {
                    "timestamp": [window["start"] / SAMPLING_RATE, window["end"] / SAMPLING_RATE],
                    **_first(best),
                    "scores": best,
                    "highlight": peak / SAMPLING_RATE,
                }
            )
        if "highlights" in model_outputs:
            highlights = model_outputs["highlights"]
        else:
            highlights = _joined_highlights(windows, model_outputs["window_highlights"])
        return {
            **_first(ranked),
            "scores": ranked,
            "chunks": chunks,
            "highlights": {"hop_seconds": FRAME_SAMPLES / SAMPLING_RATE, "weights": highlights.tolist()},
        }

    def _ranked(self, scores: torch.Tensor, top_k: int | None) -> list[dict[str, Any]]:
        values, ids = scores.topk(min(top_k or len(scores), len(scores)))
        id2label = self.model.config.id2label
        return [{"score": score, "label": id2label[i]} for score, i in zip(values.tolist(), ids.tolist(), strict=True)]


class _InOrder:
    """Scores of prepared inputs in their own order, computed in batches of similar length."""

    def __init__(self, prepared: Iterable[dict], score: Callable, batch_size: int, batches_ahead: int):
        self.prepared, self.score, self.batch_size = prepared, score, batch_size
        self.ahead = batch_size * batches_ahead if batch_size > 1 else 1

    def __len__(self) -> int:
        return len(self.prepared)

    def __iter__(self) -> Iterator[dict]:
        prepared = iter(self.prepared)
        while held := list(islice(prepared, self.ahead)):
            order = sorted(range(len(held)), key=lambda i: len(held[i].get("clip", ())))
            outputs = {}
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                outputs.update(zip(batch, self.score([held[i] for i in batch]), strict=True))
            yield from (outputs[i] for i in range(len(held)))


def _windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Start (sample, on the frame grid) and samples of windows that cover the joined blocks.

    The last window starts early enough to have full length (up to one frame more) unless the recording is shorter.
    """
    held, offset = np.zeros(0, np.float32), 0  # held[0] is sample `offset` of the recording
    start = covered = 0
    for block in blocks:
        held = np.concatenate([held, block])
        while start + window <= offset + len(held):
            yield start, held[start - offset : start - offset + window]
            covered = start + window
            start += hop
        keep = min(start, max(0, offset + len(held) - window - FRAME_SAMPLES))
        held, offset = held[keep - offset :], keep
    end = offset + len(held)
    if end > covered:
        start = max(0, end - window) // FRAME_SAMPLES * FRAME_SAMPLES
        yield start, held[start - offset :]


def _weights(windows: list[dict]) -> np.ndarray:
    """Share of each window in the whole by loudness, (K,) with sum 1; equal if all of them are silent."""
    loudness = np.array([window["loudness"] for window in windows])
    return loudness / loudness.sum() if loudness.any() else np.full(len(windows), 1 / len(windows))


def _compact(windows: Iterable[dict]) -> tuple[list[dict], np.ndarray]:
    """Windows with plain numbers for tensors (`frames`, and `peak`, the strongest of them), and all their highlights.

    Thousands of small tensors, made between the large ones of forward passes, would keep the heap from shrinking: an
    hour then took up to half as much memory again as a minute.
    """
    kept, highlights = [], array("f")
    for window in windows:
        weights = window.pop("highlights").numpy()
        window["logits"] = tuple(window["logits"].tolist())
        kept.append(window | {"frames": len(weights), "peak": int(weights.argmax())})
        highlights.frombytes(weights.tobytes())
    return kept, np.frombuffer(highlights, np.float32)


def _joined_highlights(windows: list[dict], highlights: np.ndarray) -> np.ndarray:
    """Highlights of the recording (T,) with sum 1 from those of its overlapping windows, one after the other."""
    frames = max(1, windows[-1]["end"] // FRAME_SAMPLES)
    total, count = np.zeros(frames, np.float32), np.zeros(frames, np.int32)
    past = 0
    for window, weight in zip(windows, _weights(windows), strict=True):
        first = window["start"] // FRAME_SAMPLES
        span = slice(first, first + window["frames"])
        total[span] += weight * highlights[past : past + window["frames"]]
        count[span] += 1
        past += window["frames"]
    joined = total / count
    return joined / joined.sum()


def _first(ranked: list[dict[str, Any]]) -> dict[str, Any]:
    return {"label": ranked[0]["label"], "score": ranked[0]["score"]}


def _is_collection(inputs: Any) -> bool:
    """Whether this is an iterable of inputs that the base class would take for one input."""
    one = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray, torch.Tensor, Mapping)
    handled = (list, Dataset)
    return (
        isinstance(inputs, Iterable)
        and not isinstance(inputs, (*one, *handled))
        and not hasattr(inputs, "read")
        and not hasattr(inputs, "get_all_samples")
    )


def _fetched(url: str) -> bytes:
    # some hosts refuse urllib's own name
    request = urllib.request.Request(url, headers={"User-Agent": "sere"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as response:
            return response.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise AudioError(f"{url} cannot be fetched ({getattr(error, 'reason', error)})") from error


def _as_is(item: Any) -> Any:
    return item

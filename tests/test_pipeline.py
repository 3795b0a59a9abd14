"""The pipeline: every kind of input, batches, timelines, silence, inputs that fail, threads, and memory."""

import io
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import Pipeline, Wav2Vec2FeatureExtractor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.audio_sere import AudioError
from modeling_sere.embedding_sere import moments
from modeling_sere.pipeline_sere import SerePipeline

EMOTIONS = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with statistics of its domain, whose untrained classifier tells clips apart."""
    torch.manual_seed(0)
    model = SereForAudioClassification(SereConfig(id2label=dict(enumerate(EMOTIONS)))).eval()
    torch.nn.init.normal_(model.classifier.weight, std=3.0)
    with torch.inference_mode():
        features = model(torch.from_numpy(np.stack([voice(2.0, seed) for seed in range(100, 116)]))).features
    model.sere.embedding.statistics[0] = moments(features.clone())
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


def load(folder: Path, **options) -> SerePipeline:
    model = SereForAudioClassification.from_pretrained(folder, dtype=options.pop("dtype", torch.float32))
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    return SerePipeline(model=model, feature_extractor=extractor, task="audio-classification", device="cpu", **options)


@pytest.fixture(scope="module")
def pipe(folder):
    return load(folder)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Something like speech: a gliding harmonic tone in bursts, with noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = rng.uniform(90, 250) * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.2, 1) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(np.sin(k * phase) / k ** rng.uniform(0.8, 2) for k in range(1, 9))
    bursts = np.clip(np.sin(2 * np.pi * rng.uniform(0.5, 2) * time + rng.uniform(0, 6)), 0, 1)
    return (0.1 * tone * bursts + 0.003 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def clips():
    return [voice(seconds, seed) for seed, seconds in enumerate([2.0, 0.5, 3.1, 1.0, 4.3, 0.12, 2.0, 1.7])]


def vector(result: list[dict]) -> np.ndarray:
    return np.array([next(item["score"] for item in result if item["label"] == label) for label in EMOTIONS])


def assert_same(result, expected, tolerance=1e-6):
    np.testing.assert_allclose(vector(result), vector(expected), atol=tolerance)


def test_result_is_that_of_the_stock_pipeline(pipe, clips):
    result = pipe(clips[0])
    assert [set(item) for item in result] == [{"score", "label"}] * len(EMOTIONS)
    scores = [item["score"] for item in result]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        logits = pipe.model(torch.from_numpy(clips[0])[None]).logits
    np.testing.assert_allclose(vector(result), logits.softmax(-1)[0], atol=1e-6)
    tops = {clip_result[0]["label"] for clip_result in pipe(clips)}
    assert len(tops) > 1, "the fixture's classifier should tell clips apart, or the tests below prove nothing"


def test_kinds_of_input_give_equal_results(pipe, tmp_path):
    path = tmp_path / "clip.wav"
    clip = voice(1.5)
    soundfile.write(path, clip, RATE, subtype="FLOAT")
    data = path.read_bytes()
    expected = pipe(clip)
    inputs = [
        str(path), path, data, io.BytesIO(data), clip.astype(np.float64), torch.from_numpy(clip),
        np.stack([clip, clip]), {"array": clip, "sampling_rate": RATE}, {"raw": clip, "sampling_rate": RATE},
        {"bytes": data, "path": None}, {"bytes": None, "path": str(path)},
        {"audio": {"array": clip, "sampling_rate": RATE}, "label": 3}, (RATE, clip), {"audio": (RATE, clip)},
    ]  # fmt: skip
    for source in inputs:
        assert_same(pipe(source), expected)
    for result in pipe(inputs, batch_size=3):
        assert_same(result, expected, 1e-4)


def test_other_rates_are_resampled(pipe):
    clip = voice(2.0)
    high = np.fft.irfft(np.fft.rfft(clip), 3 * len(clip)) * 3  # the same signal at 48 kHz
    assert_same(pipe({"array": high, "sampling_rate": 3 * RATE}), pipe(clip), 0.15)


@pytest.fixture
def served(tmp_path):
    """The address of a server of the files in `tmp_path`."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    handler.func.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls(pipe, tmp_path, served):
    soundfile.write(tmp_path / "clip.flac", voice(1.0), RATE)
    soundfile.write(tmp_path / "long.flac", voice(31.0), RATE)
    for name in ("clip.flac", "long.flac"):
        expected = pipe(str(tmp_path / name))
        url = f"http://{served}/{name}?token=secret"
        for source in (url, url.replace("http", "HTTP"), {"path": url, "bytes": None}, {"audio": url}):
            assert_same(pipe(source), expected)
    with pytest.raises(AudioError, match=r"/gone\.flac cannot be fetched: 404 Not Found$"):
        pipe(f"http://{served}/gone.flac")
    with pytest.raises(AudioError, match=r"more than the limit of 1000 \(max_bytes\)"):
        pipe(f"http://{served}/clip.flac", max_bytes=1_000)
    with pytest.raises(AudioError, match=r"^ftp://host/x\.wav cannot be fetched: give an http or https URL"):
        pipe("ftp://anna:secret@host/x.wav")


def test_no_result_and_no_error_repeats_credentials(pipe, tmp_path, served):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), RATE)
    urls = [f"http://anna:secret@{served}/{name}?token=secret" for name in ("text.wav", "short.wav", "gone.wav")]
    urls += ["https://anna:secret@localhost:port/x", "s3://anna:secret@bucket/x.wav", Path("http://anna:secret@host/x")]
    results = pipe(urls, on_error="return")
    assert [set(result) for result in results] == [{"error", "file"}] * 6
    assert not any(word in json.dumps(results) for word in ("secret", "anna"))
    assert results[0]["file"] == f"http://{served}/text.wav?..."
    assert results[0]["error"].startswith(f"http://{served}/text.wav?... cannot be read as audio")


def test_lists_generators_and_datasets(pipe, clips, tmp_path):
    expected = [pipe(clip) for clip in clips[:4]]
    paths = []
    for i, clip in enumerate(clips[:4]):
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], clip, RATE, subtype="FLOAT")
    dataset = Dataset.from_dict({"audio": paths}).cast_column("audio", Audio(decode=False))
    collections = [
        clips[:4], tuple(clips[:4]), (clip for clip in clips[:4]), iter(clips[:4]), dataset, dataset["audio"],
        KeyDataset(dataset, "audio"), dataset.to_iterable_dataset(),
    ]  # fmt: skip
    for collection in collections:
        results = list(pipe(collection, batch_size=2))
        assert len(results) == 4
        for result, single in zip(results, expected, strict=True):
            assert_same(result, single, 1e-4)
    assert isinstance(pipe(clips[:2]), list)
    assert len(pipe(KeyDataset(dataset, "audio"))) == 4  # for progress bars
    assert pipe([]) == []
    assert list(pipe(clip for clip in [])) == []


def test_generators_are_read_as_results_are_taken(pipe, clips):
    taken = []
    results = iter(pipe(taken.append(i) or clip for i, clip in enumerate(clips)))
    next(results)
    assert len(taken) < len(clips)


@pytest.mark.parametrize("batch_size", [3, 50])
def test_batches_equal_single_clips_in_order(pipe, clips, batch_size):
    expected = [pipe(clip) for clip in clips]
    for result, single in zip(pipe(clips, batch_size=batch_size), expected, strict=True):
        assert_same(result, single, 1e-4)


def test_lists_are_batched_by_length(pipe, clips, monkeypatch):
    shapes = []
    collate = pipe._collate
    monkeypatch.setattr(pipe, "_collate", lambda batch: shapes.append(sorted(map(len, batch))) or collate(batch))
    pipe(clips, batch_size=4)
    assert shapes == [sorted(map(len, clips))[:4], sorted(map(len, clips))[4:]]


def test_one_long_recording_is_held_at_a_time(pipe, monkeypatch):
    """URLs are fetched into memory: a list of them must not be, while the first is scored."""
    prepared, score, held = pipe.preprocess, pipe._scored, []
    monkeypatch.setattr(pipe, "preprocess", lambda item, **options: held.append(item) or prepared(item, **options))
    counts = []
    monkeypatch.setattr(pipe, "_scored", lambda batch, **options: counts.append(len(held)) or score(batch, **options))
    pipe([voice(31.0), voice(1.0), voice(1.5), voice(31.0), voice(1.0)], batch_size=2)
    assert counts == [1, 4, 4, 5]


def test_what_workers_are_given_can_be_pickled(pipe, clips):
    """Where processes are not forked, each worker gets a copy."""
    for inputs in (clips[:1], iter(clips[:1])):
        dataset = pipe.get_iterator(inputs, 0, 1, {"max_seconds": 9.0}, {}, {}).loader.prepared.dataset
        copy = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(next(iter(copy))["clip"], clips[0])


def test_workers_change_nothing(pipe, clips):
    for result, single in zip(pipe(clips, num_workers=2, batch_size=3), pipe(clips, batch_size=3), strict=True):
        assert_same(result, single)


def test_top_k_and_function_to_apply(folder, pipe, clips):
    everything = pipe(clips[0])
    assert pipe(clips[0], top_k=2) == everything[:2]
    assert pipe(clips[0], top_k=None) == pipe(clips[0], top_k=99) == everything
    assert load(folder, top_k=3)(clips[0]) == everything[:3]
    logits = vector(pipe(clips[0], function_to_apply="none"))
    np.testing.assert_allclose(vector(everything), np.exp(logits) / np.exp(logits).sum(), atol=1e-6)
    np.testing.assert_allclose(
        vector(pipe(clips[0], function_to_apply="sigmoid")), 1 / (1 + np.exp(-logits)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "top_k is 0"),
        ({"function_to_apply": "tanh"}, ValueError, "tanh"),
        ({"window_s": 0}, ValueError, "window_s is 0"),
        ({"hop_s": 4.0, "return_timestamps": True}, ValueError, "hop_s is 4.0"),
        ({"topk": 3}, TypeError, "no option topk"),
        ({"top_k": "3"}, ValueError, "top_k is '3'"),
        ({"window_s": "3"}, ValueError, "window_s is '3'"),
        ({"window_s": float("nan")}, ValueError, "window_s is nan"),
        ({"return_timestamps": "word"}, ValueError, "return_timestamps is 'word'"),
        ({"on_error": "ignore"}, ValueError, """on_error is 'ignore', expected "raise" or "return\""""),
        ({"timeout": 0}, ValueError, "timeout is 0"),
        ({"max_bytes": -1}, ValueError, "max_bytes is -1"),
        ({"max_seconds": True}, ValueError, "max_seconds is True"),
        ({"emotions": "anger"}, ValueError, "emotions is 'anger', expected a list of names"),
        ({"emotions": ["anger", "joy"]}, ValueError, "'joy', which the model does not know: choose among anger, disg"),
        ({"emotions": ["anger", None]}, ValueError, "None, which the model does not know"),
        ({"emotions": ["anger", "Anger"]}, ValueError, "at least two to choose among"),
        ({"emotions": []}, ValueError, "at least two to choose among"),
        ({"speaker_clips": [np.zeros(RATE)]}, ValueError, "speaker_clips has <ndarray>, which is silent"),
        ({"speaker_clips": "one.wav"}, TypeError, "expects a list"),
        ({"speaker_clips": []}, TypeError, "one or more"),
        ({"speaker_clips": [np.zeros(RATE * 31)]}, ValueError, "up to 30 s"),
    ],
)
def test_wrong_options_are_named(pipe, clips, options, error, message):
    with pytest.raises(error, match=message):
        pipe(clips[0], **options)


def test_batch_sizes_are_checked(pipe, clips):
    for size in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"batch_size is {size}, expected a whole number"):
            pipe(clips, batch_size=size)


def test_emotions_restrict_and_renormalise(pipe, clips):
    everything, chosen = pipe(clips[0]), ["sadness", "anger", "neutral"]
    scores = {item["label"]: item["score"] for item in everything if item["label"] in chosen}
    result = pipe(clips[0], emotions=[" Sadness", "ANGER", "neutral", "anger"])
    assert [item["label"] for item in result] == [item["label"] for item in everything if item["label"] in chosen]
    for item in result:
        assert item["score"] == pytest.approx(scores[item["label"]] / sum(scores.values()), abs=1e-5)
    logits = {item["label"]: item["score"] for item in pipe(clips[0], function_to_apply="none")}
    for item in pipe(clips[0], function_to_apply="none", emotions=chosen):
        assert item["score"] == pytest.approx(logits[item["label"]])
    timeline = pipe(voice(32.0), return_timestamps=True, emotions=chosen, top_k=2)
    for scored in (timeline, *timeline["chunks"]):
        assert len(scored["scores"]) == 2
        assert {item["label"] for item in scored["scores"]} < set(chosen)
    assert timeline["scores"] == pipe(voice(32.0), emotions=chosen, top_k=2)


# Inputs that fail


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, clips):
    """Inputs, some of which are no audio, and the beginning of each one's error."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "text.wav").write_text("no audio")
    data = io.BytesIO()
    soundfile.write(data, voice(40.0), RATE, format="FLAC")
    (folder / "late.flac").write_bytes(data.getvalue()[: -len(data.getvalue()) // 10])  # goes wrong after 30 s
    gone = folder / "gone.wav"
    return [
        (clips[0], None), (str(folder / "text.wav"), f"{folder / 'text.wav'} cannot be read as audio"),
        (clips[1], None), (gone, f"{gone} cannot be read (No such file or directory)"),
        (None, "<NoneType> is not audio"),
        (folder / "late.flac", f"{folder / 'late.flac'} cannot be read as audio"), (clips[2], None),
        ({"array": clips[0]}, "<ndarray> cannot be read (a mapping with audio samples needs"),
        (np.full(RATE, np.nan), "<ndarray> contains NaN"), (clips[3], None),
    ]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", [list, iter])
def test_one_bad_input_does_not_cost_the_others(pipe, mixed, form, batch_size, num_workers):
    inputs = form([source for source, _ in mixed])
    results = list(pipe(inputs, on_error="return", batch_size=batch_size, num_workers=num_workers))
    assert len(results) == len(mixed)
    for result, (source, message) in zip(results, mixed, strict=True):
        if message is None:
            assert_same(result, pipe(source), 1e-4)
        else:
            assert set(result) == {"error", "file"}
            assert result["error"].startswith(message)
            assert result["file"] in message
            assert result["error"].isprintable()


def test_errors_of_single_inputs_and_timelines(pipe, mixed):
    for source, message in mixed:
        if message is not None:
            result = pipe(source, on_error="return", return_timestamps=True)
            assert result["error"].startswith(message)
            with pytest.raises((AudioError, OSError, TypeError)):
                pipe(source)


def test_iterators_go_on_after_an_error(pipe, mixed):
    """Also where errors are raised: the next input is the next one."""
    for inputs in ((source for source, _ in mixed), Dataset.from_dict({"x": range(len(mixed))})["x"]):
        if not hasattr(inputs, "send"):
            inputs = KeyDataset([{"x": source} for source, _ in mixed], "x")
        results = iter(pipe(inputs, batch_size=2))
        outcomes = []
        while len(outcomes) < len(mixed):
            try:
                outcomes.append(next(results))
            except (AudioError, OSError, TypeError) as error:
                outcomes.append(error)
        assert [isinstance(outcome, Exception) for outcome in outcomes] == [message is not None for _, message in mixed]
        assert next(results, "no more") == "no more"


def test_datasets_whose_items_fail(pipe, clips):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, place):
            if place == 1:
                raise RuntimeError("Could not decode\nthis")
            return clips[place]

    results = list(pipe(Broken(), on_error="return"))
    assert results[1] == {"error": "<input 1> cannot be read (Could not decode this)", "file": "<input 1>"}
    assert_same(results[2], pipe(clips[2]))


def test_lists_raise_the_first_error(pipe, mixed):
    with pytest.raises(AudioError, match=r"text\.wav cannot be read"):
        pipe([source for source, _ in mixed])
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        pipe([source for source, _ in mixed][2:], num_workers=2)


def test_scores_that_are_not_finite_are_no_answer(folder, clips):
    pipe = load(folder)
    with torch.no_grad():
        pipe.model.classifier.weight[2] = torch.inf
    for options in ({}, {"return_timestamps": True}, {"function_to_apply": "none"}):
        with pytest.raises(ValueError, match="^<ndarray> gets scores from the model that are not finite"):
            pipe(clips[0], **options)
        with pytest.raises(ValueError, match="not finite"):
            pipe(voice(31.0), **options)
    assert "not finite" in pipe(clips[0], on_error="return")["error"]


def test_recordings_longer_than_max_seconds_are_refused(pipe, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(100 * RATE), RATE)
    for limit in (20, 50):  # within the first clip, and after it
        with pytest.raises(AudioError, match=rf"long\.flac lasts more than {limit} s \(max_seconds\)"):
            pipe(str(tmp_path / "long.flac"), max_seconds=limit)
    assert pipe(str(tmp_path / "long.flac"), max_seconds=100)[0]["label"] == "silence"


# Silence


@pytest.mark.parametrize("seconds", [0.1, 1.0, 40.0])
def test_silence_is_an_answer_of_its_own(pipe, seconds):
    noise = 1e-4 * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    for clip in (0 * noise, noise, noise + 0.2):
        result = pipe(clip)
        assert result[0] == {"score": 1.0, "label": "silence"}
        assert vector(result).tolist() == [0.0] * len(EMOTIONS)
        assert pipe(clip, top_k=1, function_to_apply="none") == result[:1]
        assert len(pipe(clip, emotions=["anger", "fear"])) == 3
        timeline = pipe(clip, return_timestamps=True)
        json.dumps(timeline)
        assert (timeline["label"], timeline["score"], timeline["silent"]) == ("silence", 1.0, True)
        assert all(chunk["silent"] and chunk["label"] == "silence" for chunk in timeline["chunks"])
        assert all(chunk["timestamp"][0] <= chunk["highlight"] <= chunk["timestamp"][1] for chunk in timeline["chunks"])
        assert sum(timeline["highlights"]["weights"]) == pytest.approx(1, abs=1e-4)


def test_silence_is_not_shown_to_the_model(pipe, clips, monkeypatch):
    shown, forward = [], pipe._forward_clips
    monkeypatch.setattr(pipe, "_forward_clips", lambda clips, *a: shown.append(len(clips)) or forward(clips, *a))
    results = pipe([np.zeros(RATE), clips[0], np.zeros(2 * RATE), clips[1]], batch_size=4)
    assert shown == [2]
    assert [result[0]["label"] == "silence" for result in results] == [True, False, True, False]
    monkeypatch.undo()
    assert_same(results[1], pipe(clips[0]), 1e-4)


def test_silent_windows_of_a_recording_do_not_count(pipe):
    speech = voice(6.0, 1)
    timeline = pipe(np.concatenate([speech, np.full(30 * RATE, 0.05, np.float32)]), return_timestamps=True, hop_s=3.0)
    assert [chunk["silent"] for chunk in timeline["chunks"]] == [False] * 2 + [True] * 10
    assert not timeline["silent"]
    alone = pipe(np.concatenate([speech, np.zeros(30 * RATE, np.float32)]), hop_s=3.0)
    assert_same(timeline["scores"], alone, 1e-4)
    assert sum(timeline["highlights"]["weights"][301:]) == 0


def test_threads_share_a_pipeline(pipe, clips, folder):
    """Options, inputs and errors of calls at the same time do not mix."""
    calls = [
        ({"return_timestamps": True}, clips[0]), ({"top_k": 2}, clips[1]), ({"on_error": "return"}, None),
        ({"emotions": ["anger", "fear"]}, clips[2]), ({"speaker_clips": clips[3:5]}, clips[0]), ({}, np.zeros(RATE)),
        ({"batch_size": 3}, clips), ({"function_to_apply": "none"}, clips[6]), ({"window_s": 1.0}, voice(31.0)),
    ]  # fmt: skip
    before = {name: repr(value) for name, value in vars(pipe).items() if name != "call_count"}
    expected = [pipe(source, **options) for options, source in calls]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(pipe, source, **options) for options, source in 6 * calls]
        results = [future.result() for future in futures]
    assert {name: repr(value) for name, value in vars(pipe).items() if name != "call_count"} == before
    assert json.dumps(results, default=str) == json.dumps(6 * expected, default=str)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(folder, pipe, clips, dtype):
    half = load(folder)
    half.model.to(dtype)  # without an encoder, loading in half precision leaves every weight in float32
    assert half.model.dtype == dtype
    for result, single in zip(half(clips, batch_size=4), pipe(clips, batch_size=4), strict=True):
        assert_same(result, single, 0.05)
    assert_same(half(clips[0], speaker_clips=clips[1:4]), pipe(clips[0], speaker_clips=clips[1:4]), 0.05)


def test_speaker_clips_are_the_model_s_statistics(folder, pipe, clips):
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    batch = extractor(clips[1:5], sampling_rate=RATE, padding=True, return_tensors="pt")
    with torch.inference_mode():
        statistics = pipe.model.speaker_statistics(batch["input_values"], batch["attention_mask"])
        expected = pipe.model(torch.from_numpy(clips[0])[None], statistics=statistics).logits.softmax(-1)[0]
    result = pipe(clips[0], speaker_clips=clips[1:5])
    np.testing.assert_allclose(vector(result), expected, atol=1e-5)
    assert np.abs(vector(result) - vector(pipe(clips[0]))).max() > 1e-3
    assert_same(load(folder, speaker_clips=clips[1:5])(clips[0]), result)


@pytest.mark.parametrize("seconds", [0.1, 3.0, 7.77, 30.0, 41.234])
def test_timeline_covers_the_recording(pipe, seconds):
    recording = voice(seconds)
    timeline = pipe(recording, return_timestamps=True)
    json.dumps(timeline)
    assert list(timeline) == ["label", "score", "scores", "silent", "chunks", "highlights"]
    assert timeline["scores"] == pipe(recording)
    assert {"label": timeline["label"], "score": timeline["score"]} == timeline["scores"][0]
    spans = [chunk["timestamp"] for chunk in timeline["chunks"]]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(recording) / RATE
    assert all(later[0] <= earlier[1] for earlier, later in pairwise(spans))
    assert all(end - start >= min(3.0, len(recording) / RATE) - 1e-9 for start, end in spans)
    for chunk in timeline["chunks"]:
        assert chunk["timestamp"][0] <= chunk["highlight"] <= chunk["timestamp"][1]
        assert chunk["scores"][0] == {"score": chunk["score"], "label": chunk["label"]}
    weights = timeline["highlights"]["weights"]
    assert len(weights) == max(1, len(recording) // 320)
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1, abs=1e-4)


def test_chunks_are_the_scores_of_their_window(pipe):
    recording = voice(34.0)
    for chunk in pipe(recording, return_timestamps=True, window_s=2.0, hop_s=1.0)["chunks"][::6]:
        start, end = (round(seconds * RATE) for seconds in chunk["timestamp"])
        assert_same(chunk["scores"], pipe(recording[start:end]), 1e-4)


def test_long_recordings_are_weighted_by_loudness(pipe):
    loud, silence = voice(3.0, 1), np.zeros(33 * RATE, np.float32)
    assert_same(pipe(np.concatenate([loud, silence]), hop_s=3.0), pipe(loud), 1e-4)
    other = voice(3.0, 2)
    weights = np.array([np.mean(np.square(clip, dtype=np.float64)) ** 0.3 for clip in (loud, other)])
    expected = (weights[0] * vector(pipe(loud)) + weights[1] * vector(pipe(other))) / weights.sum()
    result = pipe(np.concatenate([loud, silence, other]), hop_s=3.0)
    np.testing.assert_allclose(vector(result), expected, atol=1e-4)


def test_highlights_of_long_recordings_find_the_loud_moment(pipe):
    recording = 0.02 * voice(36.0, 3)
    recording[20 * RATE : 20 * RATE + RATE // 2] += voice(0.5, 4)
    timeline = pipe(recording, return_timestamps=True)
    peak = np.argmax(timeline["highlights"]["weights"]) * timeline["highlights"]["hop_seconds"]
    assert 20 <= peak <= 20.5
    inside = [c["highlight"] for c in timeline["chunks"] if c["timestamp"][0] <= 20 and c["timestamp"][1] >= 20.5]
    assert inside
    assert all(20 <= second <= 20.5 for second in inside)


def test_long_and_short_recordings_in_one_list(pipe, clips, tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, voice(33.0), RATE)
    inputs = [clips[0], str(path), clips[1], voice(32.0), clips[2]]
    for result, single in zip(pipe(inputs, batch_size=2), [pipe(item) for item in inputs], strict=True):
        assert_same(result, single, 1e-4)


def test_memory_does_not_grow_with_the_recording(pipe, tmp_path, monkeypatch):
    """20 minutes against 1: the model's own work is replaced, since only what the pipeline holds can grow."""

    def instant(model_inputs, statistics=None):
        batch, samples = model_inputs["input_values"].shape
        frames = samples // 320
        return {"logits": torch.zeros(batch, len(EMOTIONS)), "highlights": torch.full((batch, frames), 1 / frames)}

    monkeypatch.setattr(pipe, "_forward", instant)
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        minute = np.tile(voice(6.0), 10)
        for _ in range(20):
            file.write(minute)
    pipe(minute, return_timestamps=True)
    process, rss = psutil.Process(), []
    forward = pipe._forward

    def measured(model_inputs, statistics=None):
        rss.append(process.memory_info().rss)
        return forward(model_inputs, statistics)

    monkeypatch.setattr(pipe, "_forward", measured)
    timeline = pipe(str(path), return_timestamps=True)
    assert timeline["chunks"][-1]["timestamp"][1] == 1200
    assert len(rss) == 100
    assert max(rss) - rss[0] < 20e6  # the decoded file is 77 MB


def test_loaded_by_name(folder, clips, pipe):
    """As users do it; the loaded pipeline can be saved again."""
    loaded = pipeline("audio-classification", model=str(folder), trust_remote_code=True, device="cpu")
    assert type(loaded).__name__ == "SerePipeline"
    assert isinstance(loaded, Pipeline)
    assert_same(loaded(clips[0]), pipe(clips[0]))
    entry = json.loads(loaded.model.config.to_json_string())["custom_pipelines"]["audio-classification"]
    assert entry["pt"] == ["AutoModelForAudioClassification"]
    again = folder / "again"
    loaded.save_pretrained(again)
    reloaded = pipeline("audio-classification", model=str(again), trust_remote_code=True, device="cpu")
    assert_same(reloaded(clips[0]), pipe(clips[0]))


def test_real_recordings(pipe):
    root = Path(__file__).resolve().parents[1]
    files = sorted((root / "samples").rglob("*.flac"))[:6]
    if not files:
        pytest.skip("samples/ holds no recordings")
    for result, single in zip(pipe([str(f) for f in files], batch_size=3), map(pipe, files), strict=True):
        assert np.isfinite(vector(result)).all()
        assert_same(result, single, 1e-4)

"""The pipeline: every kind of input, batches, timelines of long recordings, and memory."""

import io
import json
import threading
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
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Pipeline, Wav2Vec2FeatureExtractor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_sere import SereConfig, SereForAudioClassification
from modeling_sere.audio_sere import AudioError
from modeling_sere.embedding_sere import moments
from modeling_sere.pipeline_sere import SerePipeline, _windows

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
        {"audio": {"array": clip, "sampling_rate": RATE}, "label": 3},
    ]  # fmt: skip
    for source in inputs:
        assert_same(pipe(source), expected)
    for result in pipe(inputs, batch_size=3):
        assert_same(result, expected, 1e-4)


def test_other_rates_are_resampled(pipe):
    clip = voice(2.0)
    high = np.fft.irfft(np.fft.rfft(clip), 3 * len(clip)) * 3  # the same signal at 48 kHz
    assert_same(pipe({"array": high, "sampling_rate": 3 * RATE}), pipe(clip), 0.02)


def test_urls(pipe, tmp_path):
    clip = voice(1.0)
    soundfile.write(tmp_path / "clip.flac", clip, RATE)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    handler.func.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert_same(pipe(f"{url}/clip.flac"), pipe(str(tmp_path / "clip.flac")))
        with pytest.raises(AudioError, match=r"/gone\.flac cannot be fetched \(File not found\)"):
            pipe(f"{url}/gone.flac")
        server.shutdown()


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
        ({"speaker_clips": "one.wav"}, TypeError, "expects a list"),
        ({"speaker_clips": []}, TypeError, "one or more"),
        ({"speaker_clips": [np.zeros(RATE * 31)]}, ValueError, "up to 30 s"),
    ],
)
def test_wrong_options_are_named(pipe, clips, options, error, message):
    with pytest.raises(error, match=message):
        pipe(clips[0], **options)


def test_bad_audio_in_a_list_is_named(pipe, clips, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(AudioError, match=r"bad\.wav cannot be read"):
        pipe([clips[0], str(bad)])


def test_silence_and_the_shortest_clip_have_scores(pipe):
    for clip in (np.zeros(RATE), np.zeros(RATE // 10), np.zeros(40 * RATE)):
        assert np.isfinite(vector(pipe(clip))).all()
        timeline = pipe(clip, return_timestamps=True)
        assert np.isfinite(timeline["highlights"]["weights"]).all()


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
    assert list(timeline) == ["label", "score", "scores", "chunks", "highlights"]
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


@given(
    length=st.integers(1_600, 60_000), frames=st.integers(5, 60), hop=st.integers(1, 60), block=st.integers(1, 20_000)
)
@settings(max_examples=60, deadline=None)
def test_windows_tile_any_recording(length, frames, hop, block):
    window, hop = 320 * frames, 320 * min(hop, frames)
    recording = np.arange(length, dtype=np.float32)
    blocks = (recording[start : start + block] for start in range(0, length, block))
    windows = list(_windows(blocks, window, hop))
    covered = 0
    for start, samples in windows:
        assert start % 320 == 0
        assert start <= covered
        covered = max(covered, start + len(samples))
        np.testing.assert_array_equal(samples, recording[start : start + len(samples)])
        assert min(window, length) <= len(samples) < window + 320
    assert covered == length
    assert len(windows) <= 2 + max(0, length - window) // hop


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

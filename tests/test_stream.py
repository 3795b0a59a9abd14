"""Live audio: windows equal those of the whole recording, come in time, and leave nothing behind."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.audio_sere import AudioError, to_mono_16k
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.stream_sere import SereStream

RATE = 16_000
ROOT = Path(__file__).resolve().parents[1]
WINDOWS = {"window_s": 0.6, "hop_s": 0.3}


@pytest.fixture(scope="module")
def classifier(make_model):
    return SerePipeline(model=make_model(), feature_extractor=feature_extractor(), device="cpu")


@pytest.fixture(scope="module")
def recording(voice) -> np.ndarray:
    """Speech, a pause of digital silence, speech; its end is on no grid."""
    return np.concatenate([voice(1.7, 0), np.zeros(RATE, np.float32), voice(1.4567, 1)])


def cut(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Chunks of these sizes in turns."""
    chunks, start = [], 0
    while start < len(samples):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(samples[start : start + size])
        start += size
    return chunks


def stream_all(stream: SereStream, chunks: list, rate: float = RATE) -> list[dict]:
    return [window for chunk in chunks for window in stream.push(chunk, rate)] + stream.finish()


def assert_same(windows: list[dict], expected: list[dict]):
    assert len(windows) == len(expected)
    for window, other in zip(windows, expected, strict=True):
        assert window["timestamp"] == other["timestamp"]
        assert window["silent"] == other["silent"] and window["label"] == other["label"]
        scores, others = ({x["label"]: x["score"] for x in part["scores"]} for part in (window, other))
        assert scores == pytest.approx(others, abs=1e-5)
        assert window["score"] == pytest.approx(other["score"], abs=1e-5)
        assert window["highlight"] == pytest.approx(other["highlight"])


@pytest.mark.parametrize("sizes", [[160, 0, 4801], [1_000_000], [127, 20_000, 3]], ids=str)
def test_windows_are_those_of_the_whole_recording(classifier, recording, sizes):
    expected = classifier(recording, return_timestamps=True, **WINDOWS)["chunks"]
    assert any(chunk["silent"] for chunk in expected) and not all(chunk["silent"] for chunk in expected)
    chunks = cut(recording, [max(size, 1) for size in sizes])
    chunks[1:1] = [recording[:0]] * sizes.count(0)
    assert_same(stream_all(classifier.stream(**WINDOWS), chunks), expected)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_rate(classifier, voice, rate):
    recording = voice(2.3).numpy()[: rate * 2]
    source = {"array": recording, "sampling_rate": rate}
    expected = classifier(source, return_timestamps=True, **WINDOWS)["chunks"]
    assert_same(stream_all(classifier.stream(**WINDOWS), cut(recording, [333, 4_096]), rate), expected)


@given(sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=4), length=st.integers(1_600, 40_000))
@settings(max_examples=25, deadline=None)
def test_any_cuts_give_the_same_windows(sizes, length):
    def told(windows):
        return [(start, samples.tobytes()) for start, samples in windows]

    recording = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    whole, parts = SereStream(told, 9_600, 3_200), SereStream(told, 9_600, 3_200)
    assert stream_all(parts, cut(recording, sizes)) == stream_all(whole, [recording])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_window_is_at_most_one_and_a_half_hops_late(rate):
    window, hop = 3 * RATE, 3 * RATE // 2
    stream = SereStream(lambda windows: [start for start, _ in windows], window, hop)
    seen = []
    for k in range(200):
        seconds = 0.1 * (k + 1)
        seen += [(start, seconds) for start in stream.push(np.zeros(rate // 10, np.float32), rate)]
    assert [start for start, _ in seen] == list(range(0, hop * len(seen), hop)) and len(seen) == 12
    lateness = [seconds - (start + window) / RATE for start, seconds in seen]
    assert min(lateness) >= -1e-6 and max(lateness) <= 0.25  # of the 2.25 s that 1.5 hops are


def test_options_and_speakers_are_those_of_a_call(classifier, recording, voice):
    options = {"speaker_clips": [voice(1.0, 5).numpy(), voice(0.8, 6).numpy()], "emotions": ["anger", "sadness"]}
    options |= {"function_to_apply": "none", "top_k": 1, **WINDOWS}
    expected = classifier(recording, return_timestamps=True, **options)["chunks"]
    assert_same(stream_all(classifier.stream(**options), cut(recording, [5_000])), expected)
    plain = classifier(recording, return_timestamps=True, function_to_apply="none", **WINDOWS)["chunks"]
    assert expected[0]["score"] != pytest.approx(plain[0]["score"], abs=1e-3)
    by_default = SerePipeline(model=classifier.model, feature_extractor=feature_extractor(), device="cpu", **options)
    assert_same(stream_all(by_default.stream(), cut(recording, [5_000])), expected)
    for wrong, message in (({"hop_s": 9.0}, "hop_s is 9.0"), ({"top_k": 0}, "top_k is 0"), ({"emotions": []}, "two")):
        with pytest.raises(ValueError, match=message):
            classifier.stream(**wrong)


def test_streams_do_not_disturb_each_other(classifier, recording, voice):
    other = voice(2.0, 9).numpy()
    first, second = classifier.stream(**WINDOWS), classifier.stream(speaker_clips=[other], **WINDOWS)
    windows = [[], []]
    for chunk, another in zip(cut(recording, [4_000]), cut(other.repeat(3), [4_000]), strict=False):
        windows[0] += first.push(chunk)
        windows[1] += second.push(another)
    expected = classifier(recording, return_timestamps=True, **WINDOWS)["chunks"]
    assert_same(windows[0], expected[: len(windows[0])])


def test_kinds_of_chunks(classifier, voice):
    pcm = (voice(1.0).numpy() * 20_000).astype(np.int16)
    expected = classifier({"array": pcm, "sampling_rate": RATE}, return_timestamps=True, **WINDOWS)["chunks"]
    for chunk in (pcm, pcm.tobytes(), torch.from_numpy(pcm), np.stack([pcm, pcm], 1), (pcm / 32768).astype("f8")):
        assert_same(stream_all(classifier.stream(**WINDOWS), [chunk]), expected)


@pytest.mark.parametrize(
    ("chunk", "rate", "error", "message"),
    [
        (np.full(100, np.nan, np.float32), RATE, AudioError, "the stream contains NaN"),
        (np.full(100, 3e4, np.float32), RATE, AudioError, "full scale is 1"),
        (np.zeros((2, 500), np.float32), RATE, AudioError, r"shape \(2, 500\), expected \(n,\) or \(n, channels\)"),
        (np.zeros(100, np.int64), RATE, AudioError, "samples of type int64"),
        (np.zeros(100, np.float32), 44_100, AudioError, "rate from 16000.0 to 44100.0 Hz"),
        (np.zeros(100, np.float32), "fast", AudioError, "sampling rate 'fast'"),
        (b"odd", RATE, AudioError, "3 bytes, an odd number"),
        ([0.0] * 100, RATE, TypeError, "got a list"),
    ],
)
def test_a_bad_chunk_is_left_out_and_the_stream_goes_on(classifier, recording, chunk, rate, error, message):
    stream = classifier.stream(**WINDOWS)
    windows = stream.push(recording[:5_000])
    with pytest.raises(error, match=message):
        stream.push(chunk, rate)
    windows += stream.push(recording[5_000:]) + stream.finish()
    assert_same(windows, classifier(recording, return_timestamps=True, **WINDOWS)["chunks"])


def test_the_end(classifier, recording):
    stream = classifier.stream(**WINDOWS)
    assert stream.push(recording[:1_599]) == [] and stream.finish() == []  # shorter than any clip
    with pytest.raises(ValueError, match="the stream is finished"):
        stream.push(recording)
    assert classifier.stream().finish() == []


def test_ten_hours_take_the_memory_of_a_minute():
    """What is scored is counted, not computed: the windows of ten hours, pushed second by second at 8 kHz."""
    stream = SereStream(lambda windows: [0] * len(windows), 3 * RATE, 3 * RATE // 2)
    second, count, held = np.zeros(8_000, np.float32), 0, []
    tracemalloc.start()
    try:
        for k in range(36_000):
            count += len(stream.push(second, 8_000))
            if k in (60, 35_999):
                held.append(tracemalloc.get_traced_memory())
                tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert count == 23_998  # the one after them waits for the last 0.1 s, which resampling holds back
    (early, early_peak), (late, late_peak) = held
    assert late < early + 3 * RATE * 4 and late_peak < early_peak + 3 * RATE * 4  # one window
    assert stream._cutter.end - stream._cutter.offset <= 3 * RATE + 3 * RATE // 2 + 320 + RATE


def test_resampled_samples_are_those_of_the_whole(voice):
    recording = voice(1.2).numpy()
    parts = SereStream(lambda windows: [samples for _, samples in windows], 30 * RATE, 30 * RATE)
    (whole,) = stream_all(parts, cut(recording, [77]), 44_100)
    np.testing.assert_allclose(whole, to_mono_16k(recording, 44_100), atol=1e-6)


def test_the_example_of_the_documents(make_model, tmp_path, monkeypatch, capsys):
    make_model().save_pretrained(tmp_path / "out/english-polish")
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/live.md").read_text(encoding="utf-8"), re.S)
    exec(compile(code, "docs/live.md", "exec"), {})
    assert re.fullmatch(r"(\[[\d.]+, [\d.]+\] \w+ strongest at [\d.]+ s\n){3}", capsys.readouterr().out)

"""Clips that are parts of longer files."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.audio_sere import AudioError, read_audio
from modeling_sere.training.corpora import corpus as corpus_module
from modeling_sere.training.corpora import segments
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.corpora.segments import cut, parse_span, segment_name

from .helpers import error_of, fill

RATE = 16_000


def recording(seconds: float, rate: int = RATE, kind: str = "WAV", seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(file, noise, rate, format=kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("cells", "span"),
    [
        (("1", "2.5", None), (1.0, 2.5)), ((1, 2.5, 9), (1.0, 2.5)), (("1", None, "0.5"), (1.0, 1.5)),
        (("1", "", ""), (1.0, None)), (("", "2", None), (0.0, 2.0)), ((None, None, "3"), None),
        ((float("nan"), "nan", None), None), ((" 1e1 ", ".5e2", None), (10.0, 50.0)),
    ],
)  # fmt: skip
def test_cells_are_seconds(cells, span):
    assert parse_span(*cells) == span


def test_decimal_commas_where_something_else_separates_the_cells():
    assert parse_span("1,5", "2,25", None, decimal_comma=True) == (1.5, 2.25)
    with pytest.raises(ValueError, match="'1,5' is no number of seconds"):
        parse_span("1,5", "2", None)


@pytest.mark.parametrize(
    "cells",
    [("x", "1"), ("2", "1"), ("1", "1"), ("-1", "1"), ("1", "inf"), ("1", "1e400"), ("0:01", "2"), ("1_0", "20"),
     ("١", "2"), (True, 3), ("1 s", "2")],
)  # fmt: skip
def test_other_cells_are_refused(cells):
    with pytest.raises(ValueError, match=r" seconds, like | s is no | s, not after "):
        parse_span(*cells, None)


seconds = st.floats(0, 100) | st.none() | st.text(max_size=5) | st.integers(-5, 5)


@given(seconds, seconds, seconds, st.booleans())
def test_any_cells_are_a_span_or_refused(begin, end, duration, comma):
    try:
        span = parse_span(begin, end, duration, comma)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert span is None or (span[0] >= 0 and (span[1] is None or span[1] > span[0]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.11, 2)), min_size=1, max_size=6),
    st.sampled_from([(RATE, "WAV"), (8_000, "FLAC"), (44_100, "WAV")]),
)
def test_cutting_in_one_pass_is_cutting_the_whole(spans, form):
    data = recording(3, *form)
    whole = read_audio(data)
    spans = [(begin, begin + length) for begin, length in spans]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "BLOCK_SECONDS", 1)  # so that spans cross blocks
        found = dict((k, (waveform, error)) for k, waveform, error in cut(data, spans, ["x"] * len(spans), "x"))
    assert sorted(found) == list(range(len(spans)))
    for k, (begin, end) in enumerate(spans):
        waveform, error = found[k]
        expected = whole[round(begin * RATE) : round(end * RATE)]
        if end > 3.1 or len(expected) < 0.1 * RATE:
            assert isinstance(error, AudioError) and waveform is None
        elif error is None:
            np.testing.assert_array_equal(waveform, expected)


def test_ends_beyond_the_file():
    found = list(cut(recording(1), [(0.5, 1.05), (0.5, 2), (3, 4), (0.2, None)], list("abcd"), "x"))
    assert {k: waveform is not None for k, waveform, _ in found} == {0: True, 1: False, 2: False, 3: True}
    errors = {k: str(error) for k, _, error in found if error}
    assert errors == {
        1: "b ends at 2 s, but the file at 1.00 s already",
        2: "c begins at 3 s, but the file at 1.00 s already",
    }


def test_what_is_before_the_damage_is_used():
    data = recording(60, kind="FLAC")
    found = {k: error for k, _, error in cut(data[: len(data) // 2], [(1, 2), (58, 59)], list("ab"), "x.flac")}
    assert found[0] is None and "x.flac" in str(found[1])


# Corpora of them


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A corpus of two files of 20 s, of which 60 clips are cut, in no order; and how often a file is decoded."""
    spans = [(f"{k % 2}.flac", 0.3 * k, 0.3 * k + 0.25) for k in range(60)]
    np.random.default_rng(0).shuffle(spans)
    lines = [f"{name},{float(begin):.2f},{float(end):.2f},anger\n" for name, begin, end in spans]
    texts = {f"{k}.flac": recording(20, kind="FLAC", seed=k) for k in range(2)}
    fill(tmp_path / "set", texts=texts | {"metadata.csv": "file_name,start,end,emotion\n" + "".join(lines)})
    decoded, stream_audio = [], segments.stream_audio
    monkeypatch.setattr(segments, "stream_audio", lambda *a, **k: decoded.append(k["name"]) or stream_audio(*a, **k))
    return load_corpus(tmp_path / "set"), texts, decoded


def test_each_file_is_decoded_once(rows):
    corpus, texts, decoded = rows
    clips = {clip.index: clip for clip in corpus.iter_audio()}
    assert sorted(decoded) == ["0.flac", "1.flac"] and len(clips) == len(corpus) == 60
    whole = {name: read_audio(data) for name, data in texts.items()}
    for clip in corpus.clips:
        name, _, span = clip.name.removesuffix("]").partition("[")
        begin, end = (round(float(text) * RATE) for text in span.split("-"))
        np.testing.assert_array_equal(clips[clip.index].waveform, whole[name][begin:end])
    assert "60 clips cut out of 2 files by the columns start, end" in corpus.reading["files"]


def test_keys_are_of_the_part_and_known_parts_are_not_decoded(rows):
    corpus, _, decoded = rows
    keys = {clip.index: clip.key for clip in corpus.iter_audio()}
    assert len(set(keys.values())) == 60
    decoded.clear()
    known = set(keys.values()) - {keys[3]}
    again = list(corpus.iter_audio(known=known))
    assert {clip.index: clip.key for clip in again} == keys
    assert [clip.index for clip in again if clip.waveform is not None] == [3] and len(decoded) == 1
    assert all(clip.waveform is None for clip in corpus.iter_audio(known=set(keys.values()))) and len(decoded) == 1


def test_few_long_files_are_held_at_once(rows, monkeypatch):
    corpus, _, _ = rows
    monkeypatch.setattr(corpus_module, "PREFETCHED_LONG_FILES", 1)
    assert len(list(corpus.iter_audio())) == 60


@pytest.mark.parametrize(
    "header", ["start,end", "Start Time,End Time", "onset,offset", "begin,stop", "start_s,end_s", "offset,duration"]
)
def test_names_of_the_columns(tmp_path, header):
    ends = "0.2,0.2" if header == "offset,duration" else "0.2,0.4"
    text = f"file_name,emotion,{header}\na.wav,anger,0,0.2\na.wav,fear,{ends}\n"
    corpus = load_corpus(fill(tmp_path / "set", texts={"a.wav": recording(1), "metadata.csv": text}))
    assert corpus.names == ["a.wav[0-0.2]", "a.wav[0.2-0.4]"]


def test_durations_alone_are_those_of_whole_files(tmp_path):
    text = "file_name,emotion,duration\na.wav,anger,9\n"
    assert load_corpus(fill(tmp_path / "set", ["a.wav"], {"metadata.csv": text})).names == ["a.wav"]


def test_columns_of_segments_can_be_ignored(tmp_path):
    text = "file_name,emotion,start,end\na.wav,anger,12.5,14\nb.wav,fear,14,15\n"
    root = fill(tmp_path / "set", ["a.wav", "b.wav"], {"metadata.csv": text})
    assert all(clip.error for clip in load_corpus(root).iter_audio())
    corpus = load_corpus(root, segments=False)
    assert corpus.names == ["a.wav", "b.wav"] and not any(clip.error for clip in corpus.iter_audio())


def test_bad_rows_are_one_sentence(tmp_path):
    for cells, message in (
        ("x,2", "row 2: 'x' is no number of seconds, like 12.5 (--no_segments reads whole files)"),
        ("2,1", "row 2: the clip ends at 1 s, not after its beginning at 2 s"),
        ("0,1\na.wav,fear,0,1.0", "row 3: a.wav is already in row 2"),
    ):
        text = f"file_name,emotion,start,end\na.wav,anger,{cells}\n"
        assert message in error_of(fill(tmp_path / "set", ["a.wav"], {"metadata.csv": text}))


def test_names_of_segments():
    assert segment_name("a.wav", (0.5, 2.25)) == "a.wav[0.5-2.25]"
    assert segment_name("a.wav", (3.0, None)) == "a.wav[3-]"
    assert segment_name("a.wav", None) == "a.wav"

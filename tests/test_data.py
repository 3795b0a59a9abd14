import csv
import io
import itertools
import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_sere.audio_sere import AudioError, to_mono_16k
from modeling_sere.training import data
from modeling_sere.training.data import (
    LABEL_ALIASES,
    Clip,
    DataError,
    SkippedClip,
    check_skipped,
    load_corpus,
    parse_label_map,
)

CORPORA = Path(__file__).resolve().parents[1].parent / "shared" / "corpora"


def wav(pitch: int, seconds: float = 0.2) -> bytes:
    buffer = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 50 * (pitch + 1) * np.arange(int(16000 * seconds)) / 16000)
    soundfile.write(buffer, samples, 16000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder with WAV files and a metadata file of the given text (or bytes)."""

    def make(metadata: str | bytes, files=("a.wav", "b.wav", "sub/c.wav"), kind="csv"):
        root = tmp_path / "corpus"
        for number, name in enumerate(files):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(wav(number))
        path = root / f"metadata.{kind}"
        path.write_bytes(metadata.encode() if isinstance(metadata, str) else metadata)
        return root

    return make


def error_of(*args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders


def test_reads_names_labels_speakers_and_language(folder):
    root = folder("file_name,emotion,speaker,language\na.wav,anger,s1,de\nsub/c.wav,,s2,de\n./b.wav,Fear ,s1,de\n")
    corpus = load_corpus(root)
    assert corpus.name == "corpus"
    assert corpus.language == "de"
    assert corpus.clips == [
        Clip(0, "a.wav", "anger", "s1"), Clip(1, "sub/c.wav", None, "s2"), Clip(2, "b.wav", "fear", "s1")
    ]  # fmt: skip
    assert corpus.has_speakers
    assert corpus.relabelled == {}
    assert (corpus.names[1], corpus.labels[1], corpus.speakers[1]) == ("sub/c.wav", None, "s2")


def test_jsonl_equals_csv(folder):
    rows = [{"file_name": "a.wav", "emotion": "anger", "speaker": 7}, {"file_name": "b.wav", "emotion": None}]
    root = folder("\n".join(map(json.dumps, rows)) + "\n\n", kind="jsonl")
    assert load_corpus(root).clips == [Clip(0, "a.wav", "anger", "7"), Clip(1, "b.wav", None, None)]


def test_bom_crlf_quotes_blank_lines_and_short_rows(folder):
    text = '\ufefffile_name,"speaker",emotion\r\n"a.wav","Doe, ""J""",anger\r\n\r\nb.wav\r\n'
    clips = load_corpus(folder(text.encode())).clips
    assert clips == [Clip(0, "a.wav", "anger", 'Doe, "J"'), Clip(1, "b.wav", None, None)]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4))
@example([('"\n', ",")])
def test_any_text_survives_csv(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("csv")
    with open(root / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "emotion", "speaker"])
        for number, row in enumerate(rows):
            (root / f"{number}.wav").touch()
            writer.writerow([f"{number}.wav", *row])
    corpus = load_corpus(root, require_labels=False)
    assert corpus.speakers == [speaker.strip() or None for _, speaker in rows]
    assert [label is None for label in corpus.labels] == [not label.strip() for label, _ in rows]
    shutil.rmtree(root)


def test_language_must_be_constant(folder):
    assert load_corpus(folder("file_name,emotion,language\na.wav,anger,de\nb.wav,fear,it\n")).language is None


def test_missing_speakers_are_told(folder, caplog):
    root = folder("file_name,emotion,speaker_id\na.wav,anger,x\nb.wav,fear,\n")
    corpus = load_corpus(root)
    assert corpus.speakers == ["x", None]
    assert not corpus.has_speakers
    assert "1 of 2 clips have no speaker" in caplog.text


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (b"", "no column 'file_name'"),
        ("file_name,emotion\n", "no rows"),
        ("file_name;emotion\na.wav;anger\n", "separate the cells with commas"),
        ("file_name,emotion\na.wav,anger,x\n", "row 2: 3 cells, but the header has 2"),
        ('file_name,emotion\na.wav,fear\n"b.wav,anger\n', "row 3 is not valid CSV"),
        ('"file_name"x,emotion\na.wav,anger\n', "row 1 is not valid CSV"),
        (f"file_name,emotion\na.wav,{'x' * 200_000}\n", "row 2 is not valid CSV"),
        ("\ufefffile_name,emotion\n".encode() + "a.wav,W\u00fct\n".encode("latin-1"), "line 2 is not in UTF-8"),
        ("file_name,emotion,emotion\na.wav,anger,x\n", "two columns of the same name"),
        ("file_name,emotion\na.wav,anger\nb.wav,fear\n./a.wav,anger\n", "row 4: a.wav is already in row 2"),
        ("file_name,emotion\na.wav,anger\nz.wav,fear\n", "row 3: z.wav does not exist"),
        ("file_name,emotion\nsub\\c.wav,anger\n", "does not exist (use / between folders)"),
        ("file_name,emotion\na\0.wav,anger\n", r"row 2: 'a\x00.wav' does not exist"),
        ("file_name,emotion\n,anger\n", "row 2: the file name is empty"),
        ("file_name,emotion\nsub,anger\n", "row 2: sub is not a file"),
        ("file_name,emotion\na.wav,\n", "every cell of it is empty"),
        ("file_name,mood\na.wav,anger\n", "no column named emotion or label or labels, only file_name, mood"),
    ],
)
def test_bad_csv_is_one_clear_sentence(folder, metadata, message):
    assert message in error_of(folder(metadata))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ('{"file_name": "a.wav"}\n[1]\n', "row 2: expected a JSON object"),
        ('{"file_name": "a.wav"}\n{"file_name"\n', "row 2: not JSON"),
        (b"\xff", "line 1 is not in UTF-8"),
        ('{"file_name": "a.wav"}\n{"file_name": "b.wav", "emotion": ["x"]}\n', "row 2: emotion holds several values"),
        ('{"file_name": "a.wav", "emotion": "\\ud800"}\n', "row 1: not JSON ('utf-8' codec can't encode"),
        ('{"file_name": ' + "[" * 100_000, "row 1: not JSON (maximum recursion"),
        ('{"file_name": ' + "9" * 5_000 + "}", "row 1: not JSON (Exceeds the limit"),
    ],
)
def test_bad_jsonl_is_one_clear_sentence(folder, metadata, message):
    assert message in error_of(folder(metadata, kind="jsonl"))


@pytest.mark.parametrize("name", ["/etc/hosts", "../x.wav", "sub/../../x.wav", "..\\x.wav", "C:\\x.wav", "\\\\host\\x"])
def test_file_names_stay_in_the_folder(folder, tmp_path, name):
    (tmp_path / "x.wav").write_bytes(wav(0))
    message = error_of(folder(f"file_name,emotion\na.wav,anger\n{name},fear\n"))
    assert "row 3" in message
    assert "outside the folder" in message


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_stay_in_the_folder(folder, tmp_path, linked):
    root = folder("file_name,emotion\na.wav,anger\nout/x.wav,fear\n")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "x.wav").write_bytes(wav(0))
    if linked == "folder":
        (root / "out").symlink_to(tmp_path / "away")
    else:
        (root / "out").mkdir()
        (root / "out" / "x.wav").symlink_to(tmp_path / "away" / "x.wav")
    message = error_of(root)
    assert "row 3" in message
    assert "symbolic link out of the folder" in message


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_stays_in_the_folder(folder, tmp_path, kind):
    root = folder("secret,words\n", kind=kind)
    (root / f"metadata.{kind}").rename(tmp_path / "secret")
    (root / f"metadata.{kind}").symlink_to(tmp_path / "secret")
    message = error_of(root)
    assert f"metadata.{kind} of corpus is a symbolic link out of the folder" in message and "secret" not in message


def test_other_languages_and_upper_case(folder):
    root = folder("file_name,emotion\na.wav,WUT\nb.wav,\u017bAL\nsub/c.wav,\u6124\u6012\n")
    assert load_corpus(root).labels == ["wut", "\u017cal", "\u6124\u6012"]
    mapped = load_corpus(root, label_map=parse_label_map("Wut=anger,\u017bal=sadness,\u6124\u6012=anger"))
    assert mapped.labels == ["anger", "sadness", "anger"]


lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["a.wav,anger", "../x.wav,fear", "/etc/hosts,fear", '"a.wav', "a.wav,fear,x", "\ufeffa.wav,x", "out.wav,x"]
        ),
        st.text(max_size=12),
        st.dictionaries(st.sampled_from(["file_name", "emotion"]), st.text(max_size=6) | st.none()).map(json.dumps),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    lines, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.sampled_from(["csv", "jsonl"]), st.booleans(),
)  # fmt: skip
def test_any_metadata_is_read_or_refused_in_one_line(tmp_path_factory, rows, end, encoding, kind, header):
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / "a.wav").touch()
    if not (root / "out.wav").is_symlink():
        (root / "out.wav").symlink_to("/etc/hosts")
    (root / f"metadata.{kind}").write_bytes(end.join(["file_name,emotion"] * header + rows).encode(encoding, "replace"))
    try:
        assert set(load_corpus(root).names) == {"a.wav"}  # nothing else is in the folder
    except DataError as error:
        assert str(error).isprintable()
    finally:
        (root / f"metadata.{kind}").unlink()


def test_links_within_the_folder_and_to_the_folder_are_fine(folder, tmp_path):
    root = folder("file_name,emotion\na.wav,anger\nlink.wav,fear\n")
    (root / "link.wav").symlink_to("sub/c.wav")
    (tmp_path / "alias").symlink_to(root)
    corpus = load_corpus(tmp_path / "alias")
    assert len(corpus) == 2
    assert corpus.content_key(1) != corpus.content_key(0)


def test_folder_without_metadata_says_what_to_add(tmp_path):
    assert "add a metadata.csv with the columns file_name and emotion" in error_of(tmp_path)
    assert "add a metadata.csv with the column file_name" in error_of(tmp_path, require_labels=False)


def test_two_metadata_files_are_refused(folder):
    root = folder("file_name,emotion\na.wav,anger\n")
    (root / "metadata.jsonl").touch()
    assert "keep one" in error_of(root)


def test_a_missing_folder_is_no_dataset_id(tmp_path):
    assert "is not a folder" in error_of(tmp_path / "nowhere")
    assert "is not a folder" in error_of("./nowhere")


def test_dataset_options_do_not_fit_a_folder(folder):
    root = folder("file_name,emotion\na.wav,anger\n")
    assert "has no split" in error_of(root, split="train")
    assert "has no revision" in error_of(root, revision="main")


def test_columns_by_name(folder):
    root = folder("path,mood,who,lang,emotion\na.wav,joy,s1,de,anger\n")
    corpus = load_corpus(
        root, audio_column="path", label_column="mood", speaker_column="who", language_column="lang"
    )
    assert (corpus.clips, corpus.language) == ([Clip(0, "a.wav", "happiness", "s1")], "de")


@pytest.mark.parametrize("option", ["audio_column", "label_column", "speaker_column", "language_column"])
def test_a_named_column_must_exist(folder, option):
    message = error_of(folder("file_name,emotion\na.wav,anger\n"), require_labels=False, **{option: "foo"})
    assert "'foo'" in message
    assert "file_name, emotion" in message


def test_unlabelled_target(folder):
    root = folder("file_name\na.wav\nb.wav\n")
    assert load_corpus(root, require_labels=False).labels == [None, None]


def test_100000_rows_in_seconds(tmp_path):
    names = [f"{i % 100}/{i}.wav" for i in range(100_000)]
    for part in range(100):
        (tmp_path / str(part)).mkdir()
    for name in names:
        os.close(os.open(tmp_path / name, os.O_CREAT))
    rows = (f"{name},anger,s{i % 50},de\n" for i, name in enumerate(names))
    (tmp_path / "metadata.csv").write_text("file_name,emotion,speaker,language\n" + "".join(rows))
    start = time.process_time()
    corpus = load_corpus(tmp_path)
    seconds = time.process_time() - start  # of this process: others share the machine
    shutil.rmtree(tmp_path)
    assert len(corpus) == 100_000
    assert seconds < 5


# Labels


def test_aliases_are_applied_and_told(folder, caplog):
    rows = "a.wav,Angry\nb.wav,ANGER\nsub/c.wav,frustration\n"
    corpus = load_corpus(folder("file_name,label\n" + rows))
    assert corpus.labels == ["anger", "anger", "frustration"]
    assert corpus.relabelled == {"Angry": "anger"}
    assert "Angry -> anger" in caplog.text


def test_aliases_lead_to_emotions_in_one_step():
    assert not set(LABEL_ALIASES) & set(LABEL_ALIASES.values())
    assert all(text == text.strip().lower() for text in LABEL_ALIASES)


def test_label_map_takes_precedence(folder):
    root = folder("file_name,label\na.wav,joy\nb.wav,WUT\n")
    assert load_corpus(root, label_map={"Joy": "joy", "wut": "Anger "}).labels == ["joy", "anger"]


def test_parse_label_map(tmp_path):
    expected = {"wut": "anger", "freude": "happiness"}
    assert parse_label_map(" Wut=anger, Freude = Happiness,") == expected
    (tmp_path / "map.json").write_text('{"Wut": "anger", "Freude": "happiness"}', encoding="utf-8-sig")
    assert parse_label_map(str(tmp_path / "map.json")) == expected


@pytest.mark.parametrize("text", ["Wut", "Wut=a=b", "=anger", "Wut=", "Wut=anger,wut=fear", "missing.json"])
def test_parse_label_map_refuses(text):
    with pytest.raises(DataError, match="label map"):
        parse_label_map(text)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '[["a", "b"]]', '{"a": "x", "a": "y"}', '"ab"'])
def test_parse_label_map_refuses_json(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(DataError, match="label map"):
        parse_label_map(str(tmp_path / "map.json"))


word = st.text(st.characters(codec="utf-8", exclude_characters=",="), max_size=8).map(lambda t: t.strip().lower())


@given(st.dictionaries(word.filter(bool), word.filter(bool).filter(lambda text: not text.endswith(".json"))))
def test_label_map_text_round_trips(mapping):
    # lowering twice can differ from once for a few letters: compare what lowering leaves alone
    mapping = {k: v for k, v in mapping.items() if k == k.strip().lower() and v == v.strip().lower()}
    assert parse_label_map(",".join(f"{k}={v}" for k, v in mapping.items())) == mapping


# Audio


def test_iter_audio_decodes_in_the_order_asked_for(folder):
    corpus = load_corpus(folder("file_name,emotion\na.wav,anger\nb.wav,fear\nsub/c.wav,anger\n"))
    clips = list(corpus.iter_audio([2, 0]))
    assert [clip.index for clip in clips] == [2, 0]
    assert all(clip.error is None and clip.waveform.dtype == np.float32 for clip in clips)
    expected, _ = soundfile.read(io.BytesIO(wav(2)), dtype="float32")
    np.testing.assert_array_equal(clips[0].waveform, expected)
    assert [clip.index for clip in corpus.iter_audio()] == [0, 1, 2]
    with pytest.raises(IndexError, match="index 3"):
        list(corpus.iter_audio([3]))
    with pytest.raises(IndexError):
        corpus.content_key(-1)


def test_content_key_needs_no_decoding(folder, monkeypatch):
    root = folder("file_name,emotion\na.wav,anger\nb.wav,fear\nsub/c.wav,fear\n")
    shutil.copy(root / "a.wav", root / "b.wav")
    corpus = load_corpus(root)
    decoded = {clip.index: clip.key for clip in corpus.iter_audio()}
    corpus = load_corpus(root)
    monkeypatch.setattr(data, "read_audio", lambda *_, **__: pytest.fail("decoded"))
    assert {i: corpus.content_key(i) for i in range(3)} == decoded
    assert decoded[0] == decoded[1] != decoded[2]
    known = list(corpus.iter_audio(known={*decoded.values()}))
    assert [(clip.key, clip.waveform, clip.error) for clip in known] == [(decoded[i], None, None) for i in range(3)]


def test_bad_clips_come_with_their_error(folder):
    root = folder("file_name,emotion\na.wav,anger\nb.wav,fear\nsub/c.wav,anger\n")
    corpus = load_corpus(root)
    (root / "a.wav").write_bytes(b"not audio")
    (root / "b.wav").unlink()
    broken, missing, good = corpus.iter_audio()
    assert isinstance(broken.error, AudioError)
    assert "a.wav" in str(broken.error)
    assert str(root) not in str(broken.error)
    assert broken.waveform is None
    assert isinstance(missing.error, AudioError)
    assert missing.key is None
    assert good.error is None
    with pytest.raises(AudioError, match=r"b\.wav"):
        corpus.content_key(1)


def test_files_that_would_fill_the_memory_are_skipped(folder):
    """Hours in a small file, and gigabytes of nothing, become clips with a reason."""
    root = folder("file_name,emotion\na.wav,anger\nb.flac,fear\nsub/c.wav,anger\nd.wav,fear\n", ["a.wav", "sub/c.wav"])
    with soundfile.SoundFile(root / "b.flac", "w", 8_000, 1, "PCM_16") as file:
        for _ in range(12):
            file.write(np.zeros(60 * 8_000, np.int16))
    (root / "d.wav").write_bytes(wav(0))
    os.truncate(root / "d.wav", 20 * 2**30)
    first, long, third, huge = load_corpus(root).iter_audio()
    assert first.error is None
    assert third.error is None
    assert str(long.error) == "b.flac lasts more than 600 s (max_seconds): cut it into shorter clips"
    assert str(huge.error) == "d.wav has more than 512 MB: cut it into clips, or leave it out"


def test_a_file_that_became_a_pipe_is_skipped(folder):
    corpus = load_corpus(folder("file_name,emotion\na.wav,anger\n", ["a.wav"]))
    path = corpus._audio._root + "/a.wav"
    os.unlink(path)
    os.mkfifo(path)
    clips = []
    reader = threading.Thread(target=lambda: clips.extend(corpus.iter_audio()), daemon=True)
    reader.start()
    reader.join(20)
    (clip,) = clips
    assert str(clip.error) == "a.wav is a pipe or a device, not a file: read it and pass its bytes"


def test_prefetching_is_bounded_and_stops_with_the_caller(folder, monkeypatch):
    files = [f"{i:03}.wav" for i in range(100)]
    corpus = load_corpus(folder("file_name,emotion\n" + "".join(f"{name},fear\n" for name in files), files))
    read, lock, read_audio = [], threading.Lock(), data.read_audio

    def counting(source, name):
        with lock:
            read.append(name)
        return read_audio(source, name=name)

    monkeypatch.setattr(data, "read_audio", counting)
    clips = corpus.iter_audio()
    assert next(clips).index == 0
    time.sleep(0.3)
    clips.close()
    assert 1 <= len(read) <= data.PREFETCHED_CLIPS


def test_check_skipped():
    skipped = [SkippedClip(f"{i}.wav", "is empty") for i in range(5)]
    check_skipped([], 0)
    check_skipped(skipped, 100)
    with pytest.raises(DataError, match=r"5 of 99 .* limit of 5%.*0\.wav: is empty; .*2\.wav: is empty; and 2 more"):
        check_skipped(skipped, 99)
    check_skipped(skipped, 6, limit=0.9)
    with pytest.raises(DataError, match="5 of 5"):
        check_skipped(skipped, 5, limit=1.0)


# Datasets


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def write_parquet(root: Path, rows: int = 6, split: str = "train", **columns) -> Path:
    """A folder as `datasets` writes it: audio bytes, class labels (-1: none), speakers, a language."""
    table = {
        "audio": [{"bytes": wav(i), "path": f"{i}.wav"} for i in range(rows)],
        "label": [i % 3 - 1 for i in range(rows)],
        "speaker": [f"s{i % 2}" for i in range(rows)],
        "language": ["it"] * rows,
        **columns,
    }
    dataset = datasets.Dataset.from_dict({name: column for name, column in table.items() if column is not None})
    dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    if "label" in dataset.features and "label" not in columns:
        dataset = dataset.cast_column("label", datasets.ClassLabel(names=["ang", "fear"]))
    root.mkdir(exist_ok=True)
    dataset.to_parquet(root / f"{split}-00000-of-00001.parquet", batch_size=2)
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_folder(tmp_path, cache, streaming):
    corpus = load_corpus(write_parquet(tmp_path / "set"), streaming=streaming)
    assert (corpus.name, corpus.language) == ("set", "it")
    assert corpus.labels == [None, "anger", "fear"] * 2
    assert corpus.relabelled == {"ang": "anger"}
    assert corpus.clips[3] == Clip(3, "train[3]", None, "s1")
    clips = list(corpus.iter_audio([1, 4]))
    assert [clip.index for clip in clips] == [1, 4]
    expected, _ = soundfile.read(io.BytesIO(wav(4)), dtype="float32")
    np.testing.assert_array_equal(clips[1].waveform, expected)
    assert corpus.content_key(4) == clips[1].key


def test_streaming_reads_the_audio_once_and_in_order(tmp_path, cache):
    corpus = load_corpus(write_parquet(tmp_path / "set"), streaming=True)
    with pytest.raises(DataError, match="before asking for content keys"):
        corpus.content_key(0)
    with pytest.raises(DataError, match="ascending"):
        list(corpus.iter_audio([1, 0]))
    assert [clip.index for clip in corpus.iter_audio()] == list(range(6))


def test_streaming_metadata_never_asks_for_the_audio_column(tmp_path, cache, monkeypatch):
    root, asked, load = write_parquet(tmp_path / "set"), [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append(k.get("columns")) or load(*a, **k))
    load_corpus(root, streaming=True)
    assert asked == [None, ["label", "speaker", "language"], ["audio"]]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("columns", [{"language": ["it"] * 6}, {"language": None}])
def test_rows_are_counted_without_useful_columns(tmp_path, cache, streaming, columns):
    root = write_parquet(tmp_path / "set", label=None, speaker=None, **columns)
    corpus = load_corpus(root, streaming=streaming, require_labels=False)
    assert corpus.labels == [None] * 6
    assert sum(clip.error is None for clip in corpus.iter_audio()) == 6


@pytest.mark.parametrize("streaming", [False, True])
def test_splits(tmp_path, cache, streaming):
    root = write_parquet(tmp_path / "set")
    write_parquet(root, rows=4, split="test")
    assert "has the splits train, test: choose one" in error_of(root, streaming=streaming)
    assert load_corpus(root, split="test", streaming=streaming).names == [f"test[{i}]" for i in range(4)]
    message = error_of(root, split="dev", streaming=streaming)
    assert message.startswith("set is a folder of parquet files that cannot be loaded: ")
    assert "dev" in message


def test_dataset_columns(tmp_path, cache):
    root = write_parquet(tmp_path / "set", emotion=["Joy", "sad", None, "joy", "sad", ""], many=[["a"]] * 6)
    assert load_corpus(root).labels == ["happiness", "sadness", None] * 2
    assert load_corpus(root, label_column="label").labels[1] == "anger"
    assert "expected one text or class per row" in error_of(root, label_column="many")
    message = error_of(root, label_column="mood")
    assert "'mood'" in message
    assert "audio, label, speaker, language, emotion, many" in message
    assert "'sound'" in error_of(root, audio_column="sound")
    assert "has no revision" in error_of(root, revision="main")


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_without_features_or_with_two_audio_columns(tmp_path, cache, streaming):
    (tmp_path / "set").mkdir()
    audio = [{"bytes": wav(i), "path": None} for i in range(3)]
    pq.write_table(pa.table({"file": audio, "emotion": ["fear"] * 3}), tmp_path / "set" / "x.parquet")
    assert [clip.error for clip in load_corpus(tmp_path / "set", streaming=streaming).iter_audio()] == [None] * 3
    pq.write_table(pa.table({"one": audio, "two": audio, "emotion": ["fear"] * 3}), tmp_path / "set" / "x.parquet")
    assert "no obvious audio column" in error_of(tmp_path / "set", streaming=streaming)
    assert len(list(load_corpus(tmp_path / "set", streaming=streaming, audio_column="two").iter_audio())) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_with_decoded_audio(tmp_path, cache, streaming):
    """Columns of {array, sampling_rate}, as they come from audio that was decoded and saved; integers are PCM."""
    tone = 0.5 * np.sin(2 * np.pi * 50 * np.arange(6_400) / 32_000)
    cells = [
        {"array": tone.tolist(), "sampling_rate": 32_000}, None, {"array": [0.0] * 10, "sampling_rate": 32_000},
        {"array": tone.tolist(), "sampling_rate": None},
    ]  # fmt: skip
    for name in ("floats", "integers"):
        (tmp_path / name).mkdir()
    pq.write_table(pa.table({"audio": cells, "emotion": ["fear"] * 4}), tmp_path / "floats" / "x.parquet")
    pcm = [{"array": np.round(32_767 * tone).astype(int), "sampling_rate": 32_000}]
    pq.write_table(pa.table({"audio": pcm, "emotion": ["fear"]}), tmp_path / "integers" / "x.parquet")
    clips = list(load_corpus(tmp_path / "floats", streaming=streaming).iter_audio())
    assert clips[0].error is None
    np.testing.assert_allclose(clips[0].waveform, to_mono_16k(tone, 32_000), atol=1e-6)
    assert [str(clip.error) for clip in clips[1:]] == [
        "train[1] has no audio",
        "train[2] lasts 0.000 s, at least 0.1 s are needed",
        'train[3] cannot be read (a mapping with audio samples needs their "sampling_rate" in Hz)',
    ]
    (clip,) = load_corpus(tmp_path / "integers", streaming=streaming).iter_audio()
    assert clip.error is None
    np.testing.assert_allclose(clip.waveform, clips[0].waveform, atol=1e-4)


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_with_paths_reads_within_the_folder_only(tmp_path, cache, streaming):
    (tmp_path / "x.wav").write_bytes(wav(0))
    paths = ["in.wav", "../x.wav", str(tmp_path / "x.wav"), "gone.wav", None]
    root = write_parquet(
        tmp_path / "set", 5, audio=[{"bytes": None, "path": path} for path in paths], label=None, language=None
    )
    (root / "in.wav").write_bytes(wav(1))
    corpus = load_corpus(root, require_labels=False, streaming=streaming)
    errors = [clip.error and str(clip.error) for clip in corpus.iter_audio()]
    assert errors[0] is None
    assert all("leads to no file in the folder" in error for error in errors[1:4])
    assert errors[4] == "train[4] has no audio"


class FakeHub(MemoryFileSystem):
    protocol = "hf"
    store = {}
    pseudo_dirs = [""]
    tokens = []

    def __init__(self, token=None, **kwargs):
        super().__init__(**kwargs)
        self.tokens.append(token)

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("hf://").lstrip("/")


@pytest.fixture
def hub(tmp_path, cache, monkeypatch):
    """Puts a dataset in place of the Hub's org/set: a function of the audio cells."""
    fsspec.register_implementation("hf", FakeHub, clobber=True)
    monkeypatch.setattr(data, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def make(audio: list):
        dataset = datasets.Dataset.from_dict({"audio": audio, "label": ["anger"] * len(audio)})
        calls = []
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a, **k: ["train"])
        monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: calls.append((a, k)) or dataset)
        return calls

    yield make
    fsspec.register_implementation("hf", "huggingface_hub.HfFileSystem", clobber=True)


def test_hub_dataset_reads_its_own_files_only(tmp_path, hub):
    fsspec.filesystem("hf", token="t").pipe("hf://datasets/org/set@1/a.wav", wav(0))
    (tmp_path / "hub").mkdir()
    for path in ("hub/b.wav", "private.wav"):
        (tmp_path / path).write_bytes(wav(1))
    paths = [
        "hf://datasets/org/set@1/a.wav",
        str(tmp_path / "hub" / "b.wav"),
        str(tmp_path / "private.wav"),
        str(tmp_path / "hub" / ".." / "private.wav"),
        "hf://datasets/org/other@1/a.wav",
        "hf://datasets/org/set@1/../../org/other/a.wav",
        "hf://datasets/org/set@1/a.wav::file:///etc/passwd",
        "http://127.0.0.1/a.wav::hf://datasets/org/set@1/a.wav",
        "file:///etc/passwd",
        "hf://datasets/org/set@1/gone.wav",
    ]
    calls = hub([{"bytes": None, "path": path} for path in paths])
    corpus = load_corpus("org/set", config="de", revision="1", token="t")
    assert calls[0] == (
        ("org/set",), {"name": "de", "split": "train", "streaming": False, "revision": "1", "token": "t"}
    )  # fmt: skip
    assert corpus.name == "org/set"
    errors = [clip.error and str(clip.error) for clip in corpus.iter_audio()]
    assert errors[:2] == [None, None]
    assert all("its path is not part of org/set" in error for error in errors[2:-1])
    assert errors[-1] == "train[9] cannot be read (no such file in org/set)"
    assert set(FakeHub.tokens) == {"t"}


def test_failures_of_the_hub_are_one_sentence(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nTraceback ...")

    monkeypatch.setattr(datasets, "get_dataset_split_names", refuse)
    assert error_of("org/set").endswith("cannot be loaded: Couldn't reach the Hub")


# Real corpora


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the real corpora are not beside the repository")
@pytest.mark.parametrize(("name", "language", "clips"), [("emodb", "de", 535), ("emovo", "it", 588)])
def test_real_corpora(name, language, clips, caplog):
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus(CORPORA / name)
    assert (corpus.name, corpus.language, len(corpus)) == (name, language, clips)
    assert corpus.has_speakers
    assert not caplog.text
    decoded = list(itertools.islice(corpus.iter_audio(), 5))
    assert all(clip.error is None and len(clip.waveform) > 16000 for clip in decoded)

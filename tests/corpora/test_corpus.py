"""A corpus' audio: read, hashed and decoded ahead of the caller."""

import io
import shutil
import threading
import time

import numpy as np
import pytest
import soundfile

from modeling_sere.audio_sere import AudioError
from modeling_sere.training.corpora import corpus as corpus_module
from modeling_sere.training.corpora.corpus import SkippedClip, check_skipped
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.errors import RunError

from .helpers import wav


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
        list(corpus.iter_audio([-1]))


def test_known_clips_are_not_decoded(folder, monkeypatch):
    root = folder("file_name,emotion\na.wav,anger\nb.wav,fear\nsub/c.wav,fear\n")
    shutil.copy(root / "a.wav", root / "b.wav")
    corpus = load_corpus(root)
    decoded = {clip.index: clip.key for clip in corpus.iter_audio()}
    corpus = load_corpus(root)
    monkeypatch.setattr(corpus_module, "read_audio", lambda *_, **__: pytest.fail("decoded"))
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
    assert "b.wav cannot be read" in str(missing.error)


def test_prefetching_is_bounded_and_stops_with_the_caller(folder, monkeypatch):
    files = [f"{i:03}.wav" for i in range(100)]
    corpus = load_corpus(folder("file_name,emotion\n" + "".join(f"{name},fear\n" for name in files), files))
    read, lock, read_audio = [], threading.Lock(), corpus_module.read_audio

    def counting(source, name):
        with lock:
            read.append(name)
        return read_audio(source, name=name)

    monkeypatch.setattr(corpus_module, "read_audio", counting)
    clips = corpus.iter_audio()
    assert next(clips).index == 0
    time.sleep(0.3)
    clips.close()
    assert 1 <= len(read) <= corpus_module.PREFETCHED_CLIPS


def test_check_skipped():
    skipped = [SkippedClip(f"{i}.wav", "is empty") for i in range(5)]
    check_skipped([], 0)
    check_skipped(skipped, 100)
    with pytest.raises(RunError, match=r"5 of 99 .* limit of 5%.*0\.wav: is empty; .*2\.wav: is empty; and 2 more"):
        check_skipped(skipped, 99)
    check_skipped(skipped, 6, limit=0.9)
    with pytest.raises(RunError, match="5 of 5"):
        check_skipped(skipped, 5, limit=1.0)


def test_a_clip_that_does_not_fit_into_the_memory_is_one_bad_clip(folder, monkeypatch):
    corpus = load_corpus(folder("file_name,emotion\na.wav,anger\nb.wav,fear\n"))
    read_audio = corpus_module.read_audio

    def limited(data, name):
        if name == "a.wav":
            raise MemoryError
        return read_audio(data, name=name)

    monkeypatch.setattr(corpus_module, "read_audio", limited)
    big, good = corpus.iter_audio()
    assert str(big.error) == "a.wav does not fit into the memory: cut it into shorter files" and good.error is None

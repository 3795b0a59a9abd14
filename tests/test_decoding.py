"""Encoded files: containers of phones and browsers, files that are none, and disks that fail."""

import io
import os
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_sere import decoding_sere
from modeling_sere.audio_sere import read_audio
from modeling_sere.decoding_sere import AudioError, file_blocks
from testing.containers import CONTAINERS, WITH_VIDEO, container


def tone(rate: int, channels: int = 1, seconds: float = 1.0) -> np.ndarray:
    return np.tile(0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate), (channels, 1))


def encoded(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(16_000)[0], 16_000, format=kind, **options)
    return buffer.getvalue()


FILES = {
    **{kind: encoded(kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF")},
    **{name: container(name, tone(CONTAINERS[name][2])) for name in ("m4a", "webm", "aac", "wma", "avi", "ts")},
}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_keep_length_frequency_and_level(tmp_path, name, channels):
    data = container(name, tone(CONTAINERS[name][2], channels))
    samples = read_audio(data)
    assert abs(len(samples) - 16_000) < 2_500  # codecs add up to two frames
    inner = samples[4_000:12_000]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner))))
    assert abs(spectrum.argmax() * 2 - 440) <= 4
    assert np.sqrt(np.mean(inner**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)
    path = tmp_path / "clip.wav"  # whatever its name says
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        np.testing.assert_array_equal(read_audio(source), samples)


def test_containers_without_pyav_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r'^call\.m4a cannot .* \(pip install av, or .* its extra "formats"\)'):
        read_audio(container("m4a", tone(44_100)), "call.m4a")


@pytest.mark.parametrize("name", WITH_VIDEO)
def test_video_without_sound(name):
    with pytest.raises(AudioError, match=r"^clip\.mp4 cannot be read as audio: it is a video without sound$"):
        read_audio(container(name, tone(16_000), sound=False), "clip.mp4")


def test_holes_are_not_searched_to_their_end(tmp_path):
    """A sparse file of 20 GB takes no room on a disk, and minutes of a decoder that looks for the next packet."""
    path = tmp_path / "sparse.bin"
    for data in (FILES["webm"], FILES["OGG"], FILES["FLAC"][:3_000]):
        path.write_bytes(data)
        os.truncate(path, 20 * 2**30)
        start = time.process_time()
        with pytest.raises(AudioError, match=r"^clip 7 has more than 64 MB of zeros in place of audio"):
            read_audio(path, "clip 7")
        assert time.process_time() - start < 20
    silence = tmp_path / "silence.wav"
    with soundfile.SoundFile(silence, "w", 48_000, 8, "PCM_24") as file:  # zeros that are audio are no hole
        for _ in range(80):
            file.write(np.zeros((48_000, 8), np.int16))
    assert not read_audio(silence).any()


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        '<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="0">'
        "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ],
    ids=["hls", "concat", "dash"],
)
def test_playlists_open_no_other_file(tmp_path, text):
    """FFmpeg alone would read the file that is named: uploads could fetch what lies on a server, or beside it."""
    other = tmp_path / "other.ts"
    other.write_bytes(container("ts", tone(16_000)))
    opened = []
    sys.addaudithook(lambda event, values: event in ("open", "socket.connect") and opened.append(str(values[0])))
    with pytest.raises(AudioError, match="cannot be read as audio"):
        read_audio(text.format(f"file://{other}").encode())
    assert not any("other.ts" in place for place in opened)


def test_named_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refused = []

    def read():  # in a thread, since opening a pipe that nobody writes to lasts for ever
        for path in (tmp_path / "pipe.wav", "/dev/zero"):
            with pytest.raises(AudioError, match="is a pipe or a device"):
                read_audio(path)
            refused.append(path)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(20)
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b.wav", "holds a null character"),
        ("UklGR" * 2_000, "is too long for a path: pass the audio itself as bytes"),
        ("ftp://anna:secret@host/a.wav", r"^ftp://host/a\.wav is a URL, not a file"),
        ("data:audio/wav;base64,UklGR", r"^data:\.\.\. is a URL, not a file"),
    ],
)
def test_texts_that_are_no_path(path, message):
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_files_that_are_not_open_for_bytes(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encoded("WAV"))
    with path.open() as text, pytest.raises(AudioError, match="is a text stream"):
        read_audio(text)
    with path.open("rb") as closed:
        pass
    with pytest.raises(AudioError, match="is a closed file"):
        read_audio(closed)

    class Upload:  # as web frameworks hand it out
        async def read(self, size):
            return b""

    with pytest.raises(AudioError, match=r"^<Upload> is a stream that cannot seek"):
        read_audio(Upload())


class Failing(io.BytesIO):
    def read(self, size=-1):
        if self.tell() + size > len(self.getbuffer()) // 2:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("data", [encoded("WAV"), encoded("FLAC"), container("mov", tone(16_000))])
def test_disks_that_fail_are_no_end_of_a_file(data):
    with pytest.raises(OSError, match="Input/output error"):
        read_audio(Failing(data))


@pytest.mark.parametrize("channels", [6, 8, 16])
def test_many_channels_in_a_container(channels):
    """Of 8 planes or more PyAV's own `to_ndarray` reads past the last, and the process dies."""
    layout = {6: "5.1", 8: "7.1", 16: "hexadecagonal"}[channels]
    samples = np.repeat(tone(48_000), channels, axis=0)
    assert 0.2 < read_audio(container("mp4", samples, layout=layout))[2_000:15_000].std() < 0.4


def test_absurd_numbers_of_channels_are_refused():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((16_000, 65)), 16_000, format="WAV")
    with pytest.raises(AudioError, match="has 65 channels, at most 64"):
        read_audio(buffer.getvalue())


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_files_give_samples_or_one_sentence(data):
    """Bytes changed, lost, doubled or cut anywhere, most often in the header, in every format."""
    content = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(data.draw(st.integers(1, 4))):
        reach = data.draw(st.sampled_from([64, 600, len(content)]))
        start = data.draw(st.integers(0, max(0, min(reach, len(content)) - 1)))
        size = data.draw(st.sampled_from([1, 2, 4, 8, 100, 5_000]))
        new = data.draw(st.one_of(st.binary(max_size=8), st.just(bytes(content[start : start + size]) * 2)))
        content[start : start + size] = new
    try:
        samples = read_audio(bytes(content), "clip 7", max_seconds=60)
    except AudioError as error:
        assert str(error).startswith("clip 7 ")
        assert str(error).isprintable()
    else:
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert 1_600 <= len(samples) <= 960_000


@given(st.binary(max_size=2_000))
@example(b"")
@example(b"\xff\xf1" * 500)
@example(bytes(100_000))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_no_audio(content):
    with pytest.raises(AudioError, match=r"^clip 7 "):
        read_audio(content, "clip 7")


def test_blocks_are_small_and_end_with_the_file(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros((400_000, 2)), 48_000)
    blocks = list(file_blocks(path, "long.flac"))
    assert {rate for _, rate in blocks} == {48_000}
    assert sum(len(block) for block, _ in blocks) == 400_000
    assert max(block.size for block, _ in blocks) <= decoding_sere.BLOCK_VALUES

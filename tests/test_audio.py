"""Reading audio: every format, rate and kind of source gives the same samples, and bad audio is named."""

import ast
import io
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sere.audio_sere import AudioError, is_silent, name_of, read_audio, stream_audio, to_mono_16k
from modeling_sere.dynamics_sere import SILENCE_RMS

ROOT_FILES = sorted((Path(__file__).resolve().parents[1] / "modeling_sere").glob("*_sere.py"))


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def peak_frequency(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * 16_000 / len(samples)


FORMATS = [
    ("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("wav", "DOUBLE"),
    ("wav", "ULAW"), ("flac", "PCM_16"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("aiff", "PCM_16"),
    ("mp3", "MPEG_LAYER_III"), ("au", "PCM_16"), ("caf", "PCM_16"),
]  # fmt: skip


@pytest.mark.parametrize(("extension", "subtype"), FORMATS)
def test_formats_keep_length_frequency_and_level(tmp_path, extension, subtype):
    path = tmp_path / f"clip.{extension}"
    soundfile.write(path, tone(16_000), 16_000, subtype=subtype)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.shape == (16_000,)
    assert abs(peak_frequency(samples) - 440) < 2
    inner = samples[4_000:-4_000]  # lossy codecs overshoot at the sudden start and end
    assert abs(np.sqrt(np.mean(inner**2)) - 0.5 / np.sqrt(2)) < 0.01


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_rates_and_channels(tmp_path, rate, channels):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.repeat(tone(rate)[:, None], channels, axis=1), rate, subtype="FLOAT")
    samples = read_audio(path)
    assert abs(len(samples) - 16_000) <= 1
    inner = slice(400, -400)  # the resampling filter starts and ends in silence
    assert np.abs(samples[:15_999] - tone(16_000)[:15_999])[inner].max() < 1e-3


def test_channels_are_averaged(tmp_path):
    left, right = tone(16_000), tone(16_000, hertz=1000)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), (left + right) / 2, atol=1e-6)


def test_every_kind_of_source_gives_the_same_samples(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(16_000), 16_000, subtype="FLOAT")
    expected = read_audio(path)
    data = path.read_bytes()
    used = io.BytesIO(data)
    used.read(100)
    sources = [
        str(path), data, bytearray(data), io.BytesIO(data), used, expected, expected.astype(np.float64),
        torch.from_numpy(expected), expected[None], np.stack([expected, expected]), np.stack([expected] * 2, axis=1),
        {"array": expected, "sampling_rate": 16_000}, {"raw": expected.tolist(), "sampling_rate": 16_000.0},
        {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, {"array": expected, "sampling_rate": 16_000,
        "path": "nowhere.wav"}, (16_000, expected), (expected, 16_000.0), torch.from_numpy(expected)[None, None],
        expected[None, :, None], {"array": expected, "sampling_rate": "16000"},
        {"array": expected, "sampling_rate": np.float32(16_000)},
    ]  # fmt: skip
    for source in sources:
        np.testing.assert_array_equal(read_audio(source), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_audio(file), expected)


def test_decoder_objects_are_read():
    class Samples:
        data = torch.from_numpy(np.stack([tone(8_000)] * 2))
        sample_rate = 8_000

    class Decoder:
        def get_all_samples(self):
            return Samples

    np.testing.assert_array_equal(read_audio(Decoder()), to_mono_16k(tone(8_000), 8_000))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8"])
def test_integers_are_pcm(dtype):
    wave = tone(16_000)
    info = np.iinfo(dtype)
    offset = 128 if dtype == "uint8" else 0
    pcm = np.round(wave * (info.max - offset) + offset).astype(dtype)
    np.testing.assert_allclose(read_audio(pcm), wave, atol=0.02 if info.bits == 8 else 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_float_type(dtype):
    wave = torch.from_numpy(tone(16_000)).requires_grad_().to(dtype)
    np.testing.assert_allclose(read_audio(wave), tone(16_000), atol=5e-3)


def test_arrays_and_files_are_resampled_alike(tmp_path):
    wave = tone(44_100, seconds=2.3).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", wave, 44_100, subtype="FLOAT")
    np.testing.assert_array_equal(to_mono_16k(wave, 44_100), read_audio(tmp_path / "clip.wav"))


@given(
    block=st.integers(1_600, 50_000),
    length=st.integers(5_000, 120_000),
    rate=st.sampled_from([8_000, 16_000, 44_100]),
)
@settings(max_examples=25, deadline=None)
def test_blocks_joined_are_the_whole(block, length, rate):
    source = {"array": np.random.default_rng(length).uniform(-1, 1, length), "sampling_rate": rate}
    blocks = list(stream_audio(source, block))
    assert all(len(b) == block for b in blocks[:-1])
    assert 0 < len(blocks[-1]) <= block
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(source))


def test_blocks_of_less_than_the_minimum_are_refused():
    with pytest.raises(ValueError, match="block_samples is 100"):
        next(stream_audio(tone(16_000), 100))


def test_silence_and_overs_are_legal(tmp_path):
    assert not read_audio(np.zeros(16_000)).any()
    soundfile.write(tmp_path / "loud.wav", tone(16_000, level=3.0), 16_000, subtype="FLOAT")
    assert read_audio(tmp_path / "loud.wav").max() == pytest.approx(3.0, rel=1e-3)


def test_silence_is_told_by_level_alone():
    rng = np.random.default_rng(0)
    quiet, loud = (level * rng.standard_normal(32_000).astype(np.float32) for level in (0.5e-3, 2e-3))
    offset = np.full(32_000, 0.1, np.float32)
    assert is_silent(np.zeros(1_600, np.float32))
    assert is_silent(quiet)
    assert is_silent(offset)
    assert is_silent(quiet + offset)
    assert not is_silent(loud)
    assert not is_silent(loud + offset)
    assert not is_silent(loud[:900])
    for start in (0, 15_000, 31_100):  # one short sound anywhere, also in an incomplete last frame
        sound = quiet.copy()
        sound[start : start + 900] = 10 * SILENCE_RMS
        sound[start : start + 900 : 2] *= -1
        assert not is_silent(sound)


def test_long_recordings_are_not_read_whole(tmp_path):
    """A file of 0.1 MB that holds hours: it is refused by what is decoded, before it fills the memory."""
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8_000, np.int16))
    assert path.stat().st_size < 1e6
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match=r"bomb\.flac lasts more than 600 s \(max_seconds\): cut it into"):
            read_audio(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6  # 10 minutes are 38 MB, the hour would be 230
        with pytest.raises(AudioError, match="more than 5 s"):
            list(stream_audio(path, 16_000, max_seconds=5))
    finally:
        tracemalloc.stop()
    assert len(read_audio(np.zeros(601 * 16_000, np.int16), max_seconds=None)) == 601 * 16_000


def broken_files(folder: Path) -> dict[str, str]:
    """File name -> what the error says."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    soundfile.write(folder / "good.flac", noise, 16_000)
    good = (folder / "good.flac").read_bytes()
    (folder / "cut.flac").write_bytes(good[: len(good) // 2])
    (folder / "text.wav").write_text("not audio at all" * 100)
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "headless.raw").write_bytes(bytes(32_000))
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "short.wav", tone(16_000, seconds=0.09), 16_000)
    soundfile.write(folder / "nan.wav", np.where(np.arange(16_000) == 7_000, np.nan, 0), 16_000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.where(np.arange(16_000) == 7_000, -np.inf, 0), 16_000, subtype="DOUBLE")
    soundfile.write(folder / "unscaled.wav", tone(16_000, level=12_000), 16_000, subtype="FLOAT")
    soundfile.write(folder / "rate.wav", tone(16_000), 10)
    return {
        "cut.flac": "cannot be read as audio",
        "text.wav": "cannot be read as audio",
        "nothing.wav": "cannot be read as audio",
        "headless.raw": "cannot be read as audio",
        "empty.wav": "contains no samples",
        "short.wav": r"lasts 0.090 s, at least 0.1 s",
        "nan.wav": "contains NaN or infinite samples",
        "inf.wav": "contains NaN or infinite samples",
        "unscaled.wav": "float samples up to .* where full scale is 1",
        "rate.wav": "claims a sampling rate of 10 Hz",
    }


def test_bad_files_are_named(tmp_path):
    for file, message in broken_files(tmp_path).items():
        path = tmp_path / file
        with pytest.raises(AudioError, match=message) as caught:
            read_audio(path)
        assert str(path) in str(caught.value)
        with pytest.raises(AudioError, match=r"^clip 7 .*" + message):
            read_audio(path.read_bytes() if file != "headless.raw" else path, "clip 7")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_bad_files_print_no_traceback():
    """The decoder of this one asks for a place before the start of the file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(16_000), 16_000, format="AIFF", subtype="PCM_16")
    with pytest.raises(AudioError):
        read_audio(buffer.getvalue().replace(b"SSND", b"S[ND"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(0), "contains no samples"),
        (np.zeros((2, 0)), "contains no samples"),
        (np.zeros((2, 3, 16_000)), r"has shape \(2, 3, 16000\)"),
        (np.zeros((2, 1, 16_000)), r"has shape \(2, 1, 16000\).* several clips as a list"),
        (np.zeros((3, 16_000)), r"has shape \(3, 16000\).* several clips as a list"),
        (np.zeros((16_000, 8)), r"has shape \(16000, 8\).* average more channels"),
        (np.zeros((400, 400)), r"has shape \(400, 400\)"),
        (np.zeros((80, 3_000), np.float32), r"has shape \(80, 3000\)"),
        (np.zeros(()), r"has shape \(\)"),
        (np.full(16_000, 2**40), "type int64"),
        (np.zeros(16_000, np.uint16), "type uint16"),
        (np.zeros(16_000, bool), "type bool"),
        (np.zeros(16_000, complex), "type complex128"),
        (np.full(16_000, np.nan), "NaN or infinite"),
        (np.full(16_000, 1e300), "full scale is 1"),
    ],
)
def test_bad_arrays_are_named(array, message):
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(array, "row 12")
    assert str(caught.value).startswith("row 12 ")


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_integers_of_64_bits_have_the_narrowest_width_that_holds_them(bits):
    """What lists, JSON and parquet make of PCM."""
    wave = tone(16_000, level=0.9)
    pcm = np.round(wave * (2 ** (bits - 1) - 1)).astype(np.int64)
    for source in (pcm, torch.from_numpy(pcm), {"array": pcm.tolist(), "sampling_rate": 16_000}):
        np.testing.assert_allclose(read_audio(source), wave, atol=1e-4)
    pcm[5] = -(2 ** (bits - 1))
    assert read_audio(pcm).min() == -1


def test_tuples_of_rate_and_samples():
    """As microphones of web pages give them: integers, (n,) or (n, 2), at the rate of the device."""
    pcm = np.round(32_767 * tone(48_000)).astype(np.int16)
    expected = to_mono_16k(pcm, 48_000)
    for source in ((48_000, pcm), (48_000, np.stack([pcm, pcm], axis=1)), (torch.from_numpy(pcm), np.int64(48_000))):
        np.testing.assert_allclose(read_audio(source), expected, atol=1e-6)


def test_raw_pcm_with_a_rate(tmp_path):
    pcm = np.round(32_767 * tone(8_000)).astype("<i2")
    for data in (pcm.tobytes(), bytearray(pcm.tobytes()), memoryview(pcm.tobytes())):
        np.testing.assert_array_equal(read_audio({"raw": data, "sampling_rate": 8_000}), to_mono_16k(pcm, 8_000))
    with pytest.raises(AudioError, match="15999 bytes of raw PCM, an odd number"):
        read_audio({"raw": pcm.tobytes()[1:], "sampling_rate": 8_000})
    with pytest.raises(AudioError, match='has "bytes" and a rate: give raw PCM as "raw"'):
        read_audio({"bytes": pcm.tobytes(), "sampling_rate": 8_000})
    soundfile.write(tmp_path / "clip.wav", pcm, 8_000)
    file = {"bytes": (tmp_path / "clip.wav").read_bytes(), "sampling_rate": 16_000}  # its header knows better
    np.testing.assert_allclose(read_audio(file), to_mono_16k(pcm, 8_000), atol=1e-6)
    with pytest.raises(AudioError, match='is a whole audio file, not raw PCM: give it as "bytes"'):
        read_audio({"raw": (tmp_path / "clip.wav").read_bytes(), "sampling_rate": 8_000})


@pytest.mark.parametrize("rate", ["", "fast", "16 kHz", [16_000, 8_000], {}, 10**400])
def test_rates_that_are_no_number(rate):
    with pytest.raises(AudioError, match="^clip 7 has the sampling rate .*, expected a number in Hz"):
        to_mono_16k(np.zeros(16_000), rate, "clip 7")


@pytest.mark.parametrize("rate", [0, -16_000, float("nan"), 1, 10**9, "1", True])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(AudioError, match="sampling rate"):
        to_mono_16k(np.zeros(16_000), rate)


@pytest.mark.parametrize("source", [None, 3, [0.0, 0.1], {"array": np.zeros(16_000)}, {"text": "hello"}])
def test_things_that_are_not_audio(source):
    with pytest.raises(TypeError, match="audio"):
        read_audio(source)


def test_rows_of_different_lengths():
    with pytest.raises(AudioError, match="rows of different lengths"):
        read_audio({"array": [[0.0] * 9, [0.0] * 8], "sampling_rate": 16_000})


def test_decoders_that_fail_are_named():
    class Decoder:
        def get_all_samples(self):
            raise RuntimeError("Could not decode\nframe 3")

    with pytest.raises(AudioError, match=r"^clip 7 cannot be decoded \(Could not decode\): it is damaged$"):
        read_audio(Decoder(), "clip 7")


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 80, 1_600, 16_000]), max_size=4).filter(lambda s: np.prod(s) < 1e6)
TYPES = st.sampled_from("f2 f4 f8 i1 i2 i4 i8 u1 u2 u8 ? c8 U3 S4 O M8[s]".split())
RATES = st.one_of(
    st.sampled_from([16_000, 8_000.0, "16000", "44100", "16 kHz", None, 0, -1, 1e9, float("nan"), True, b"16000", [1]]),
    st.integers(),
    st.floats(),
)


@given(SHAPES, TYPES, RATES, st.integers(0, 2**32 - 1), st.sampled_from(["array", "raw", "tuple", "bare", "tensor"]))
@settings(max_examples=150, deadline=None)
def test_any_array_gives_samples_or_one_sentence(shape, kind, rate, seed, form):
    values = np.random.default_rng(seed).integers(-100, 100, shape)
    array = values.astype(kind) if kind != "O" else values.astype(object)
    if form == "tensor":
        array = torch.from_numpy(values.astype(kind if kind[0] in "fi?c" else "f4"))
    source = {"tuple": (rate, array), "bare": array}.get(form, {"raw" if form == "raw" else "array": array})
    source = {**source, "sampling_rate": rate} if isinstance(source, dict) else source
    try:
        samples = read_audio(source, "clip 7")
    except (AudioError, TypeError) as error:
        assert "clip 7" in str(error) or "sampling_rate" in str(error)
        assert str(error).isprintable()
    else:
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert np.isfinite(samples).all()


def test_names_are_printable_short_and_hold_no_secret(tmp_path):
    assert name_of("a/ü b.wav") == "a/ü b.wav"
    assert name_of({"bytes": b"", "path": "https://anna:pw@host/x.wav?token=t"}) == "https://host/x.wav?..."
    assert name_of(Path("https://anna:pw@host/x.wav")) == "https:..."
    assert name_of(io.BytesIO()) == "<BytesIO>"
    assert name_of({"array": np.zeros(1), "sampling_rate": 1}) == "<ndarray>"
    assert name_of("a\nb\udcff.wav") == r"'a\nb\udcff.wav'"
    assert len(name_of("x" * 10_000)) < 300


def test_missing_files_and_folders_raise_as_in_python(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(OSError, match=tmp_path.name):
        read_audio(tmp_path)


def test_streams_that_cannot_seek_say_what_to_do():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as stream, os.fdopen(write_end, "wb"), pytest.raises(AudioError, match="its bytes"):
        read_audio(stream)


@pytest.mark.parametrize(
    ("module", "source"),
    [("soundfile", b"RIFF"), ("soxr", {"array": np.zeros(8_000), "sampling_rate": 8_000})],
)
def test_missing_libraries_say_what_to_install(monkeypatch, module, source):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {module}"):
        read_audio(source)


def test_arrays_at_16_khz_need_no_library(monkeypatch):
    for module in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, module, None)
    assert len(read_audio(np.zeros((2, 16_000), np.int16))) == 16_000


def claiming_ten_hours(data: bytes, extension: str) -> bytes:
    claimed = bytearray(data)
    if extension == "wav":
        claimed[4:8] = claimed[40:44] = (0x7FFF_FFFE).to_bytes(4, "little")  # RIFF and data chunk sizes
    else:
        claimed[21:26] = bytes([claimed[21] & 0xF0 | 0x0F]) + b"\xff" * 4  # STREAMINFO: 36 bits of total samples
    return bytes(claimed)


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_lying_headers_take_no_memory(tmp_path, extension):
    path = tmp_path / f"lie.{extension}"
    soundfile.write(path, tone(16_000, seconds=3), 16_000)
    path.write_bytes(claiming_ten_hours(path.read_bytes(), extension))
    tracemalloc.start()
    try:
        if extension == "wav":  # streaming encoders leave such sizes: the samples that exist are good
            assert len(read_audio(path)) == 48_000
        else:
            with pytest.raises(AudioError, match=r"lie\.flac cannot be read"):
                read_audio(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_streaming_a_long_file_takes_no_memory(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 24_000, 2) as file:
        for _ in range(20):
            file.write(np.zeros((24_000 * 60, 2), np.int16))
    tracemalloc.start()
    try:
        total = sum(len(block) for block in stream_audio(path, 48_000))
        assert tracemalloc.get_traced_memory()[1] < 20e6  # the whole would be 77 MB
    finally:
        tracemalloc.stop()
    assert total == 20 * 60 * 16_000


def imported_modules(tree: ast.Module) -> set[str]:
    """What importing the module imports: its top-level statements, functions left out."""
    found, pending = set(), list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or "") if node.level else node.module.split(".")[0])
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("path", ROOT_FILES, ids=lambda path: path.name)
def test_files_that_travel_import_only_what_every_user_has(path):
    siblings = {f".{file.stem}" for file in ROOT_FILES}
    allowed = {"torch", "transformers", "numpy", "safetensors"} | set(sys.stdlib_module_names) | siblings
    assert imported_modules(ast.parse(path.read_text(encoding="utf-8"))) <= allowed


@pytest.mark.parametrize("path", ROOT_FILES, ids=lambda path: path.name)
def test_files_that_travel_show_no_requirement_to_transformers(path):
    """transformers searches the text: what it takes for an import must be installed, or must be a file beside it."""
    from transformers.dynamic_module_utils import get_imports, get_relative_imports

    stdlib = set(sys.stdlib_module_names)
    assert set(get_imports(path)) <= {"torch", "transformers", "numpy", "safetensors"} | stdlib
    assert set(get_relative_imports(path)) <= {file.stem for file in ROOT_FILES}

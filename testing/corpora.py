"""Small corpora on disk for the tests of training: voices whose pitch, loudness and tempo tell the emotion."""

import csv
import io
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
# emotion -> pitch in Hz, loudness, syllables per second
SOUNDS = {"anger": (230, 0.3, 5.0), "neutral": (150, 0.15, 3.5), "sadness": (110, 0.05, 2.0)}


def voice(emotion: str, speaker: int, seed: int, seconds: float = 0.6) -> np.ndarray:
    """Make a harmonic tone in syllables, (N,) float32; every seed gives another one."""
    random = np.random.default_rng([seed, speaker, list(SOUNDS).index(emotion)])
    pitch, loudness, tempo = SOUNDS[emotion]
    time = np.arange(round(seconds * RATE)) / RATE
    f0 = pitch * (0.7 + 0.6 * (speaker % 2)) * (1 + random.uniform(0.02, 0.1) * np.sin(2 * np.pi * 2 * time))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 10))
    syllables = np.clip(np.sin(2 * np.pi * tempo * random.uniform(0.8, 1.2) * time + random.uniform(0, 6)) + 0.5, 0, 1)
    wave = loudness * random.uniform(0.7, 1.3) * tone * syllables / 3 + 0.002 * random.standard_normal(len(time))
    return wave.clip(-1, 1).astype(np.float32)


def wav(samples: np.ndarray, subtype: str = "FLOAT") -> bytes:
    """Encode samples as a WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype=subtype)
    return buffer.getvalue()


def write_corpus(
    folder: Path,
    clips: int = 4,
    speakers: int = 2,
    emotions=tuple(SOUNDS),
    seed: int = 0,
    columns=("emotion", "speaker"),
) -> Path:
    """Write a folder with metadata.csv: `clips` per emotion and speaker, of different lengths. Returns the folder."""
    folder.mkdir(parents=True)
    rows = []
    for emotion in emotions:
        for speaker in range(speakers):
            for number in range(clips):
                name = f"{emotion}_{speaker}_{number}.wav"
                samples = voice(emotion, speaker, 1000 * seed + number, 0.4 + 0.1 * (number % 4))
                (folder / name).write_bytes(wav(samples))
                rows.append({"file_name": name, "emotion": emotion, "speaker": f"s{speaker}"})
    write_metadata(folder, rows, ("file_name", *columns))
    return folder


def write_metadata(folder: Path, rows: list[dict], columns=("file_name", "emotion", "speaker")):
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_metadata(folder: Path) -> list[dict]:
    with open(folder / "metadata.csv", newline="") as file:
        return list(csv.DictReader(file))


def bad_files() -> dict[str, bytes]:
    """Return files that are not usable audio, each for another reason."""
    good = voice("anger", 0, 0)
    not_finite = good.copy()
    not_finite[100] = np.nan
    return {
        "corrupt.wav": b"RIFF" + bytes(range(200)),
        "empty.wav": wav(good[:0]),
        "nan.wav": wav(not_finite),
        "short.wav": wav(good[:50]),
    }

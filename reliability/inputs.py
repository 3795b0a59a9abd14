"""Odd inputs of the pipeline: arrays of any form, servers of any kind, files that would fill the memory, mixed lists.

    python -m reliability.inputs

* Arrays of random shapes, types, values and sampling rates, in every form in which a recording is given.
* Servers that send without end, byte by byte, broken, or elsewhere; the URL holds a user name, a password and a token.
* Hours of silence in a small file, and sparse files of 20 GB in every format, by the pipeline and by dataset loading:
  memory may grow by 2 GB.
* Lists, generators and datasets with bad inputs at random places: every good one has the answer that it has alone.

Each must give finite scores or one error in one line, which names the input and holds no secret, in ten seconds.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm.auto import tqdm
from transformers.pipelines.pt_utils import KeyDataset

from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.training.corpora.loading import load_corpus
from reliability.audio import FORMATS, recordings, tiny_pipeline
from reliability.outcomes import Outcomes
from testing.containers import CONTAINERS, container
from testing.slow_server import BEHAVIOURS, Server

SECONDS = 10.0
SECRETS = ("anneliese", "swordfish")
LENGTHS = (0, 1, 2, 3, 8, 80, 1_599, 1_600, 16_000, 50_000)
TYPES = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ? c8 U3 S4 O M8[s]".split()
RATES = (16_000, 8_000, 44_100.0, "16000", "44.1 kHz", None, 0, -1, 10**9, float("nan"), True, [16_000], {})


def wrong_with(result) -> list[str]:
    """Return what is wrong with the answer to one input."""
    text = json.dumps(result)
    failures = [f"it tells {secret}" for secret in SECRETS if secret in text]
    if isinstance(result, dict) and "error" in result:
        return failures + ([] if result["error"].isprintable() else [f"no line: {result['error']!r}"])
    scores = [entry["score"] for entry in result]
    return failures + ([] if np.isfinite(scores).all() and abs(sum(scores) - 1) < 1e-4 else [f"scores {scores}"])


def answered(pipe: SerePipeline, source, **options) -> list[str]:
    start = time.process_time()
    try:
        failures = wrong_with(pipe(source, on_error="return", **options))
    except Exception as error:  # whatever is raised here is what this script looks for
        return [f"{type(error).__name__}: {error}"]
    return failures + (["it took too long"] if time.process_time() - start > SECONDS else [])


def array_form(random: np.random.Generator) -> tuple[str, object]:
    """Return a name for what it is, and a recording, or not, as an array in some form."""
    shape = random.choice(LENGTHS, random.integers(0, 4))
    while np.maximum(shape, 1).prod() > 200_000:  # empty ones too: as lists they are full of lists
        shape = random.choice(LENGTHS, random.integers(0, 4))
    kind = str(random.choice(TYPES))
    values = np.asarray(random.standard_normal(shape) * 10 ** random.uniform(-6, 6))
    with np.errstate(all="ignore"):
        array = values.astype("i8").astype(kind) if kind[0] in "iuM" else values.astype(kind)
    rate = RATES[random.integers(len(RATES))]
    form = str(random.choice(["array", "raw", "rate first", "rate last", "bare", "tensor", "list", "bytes"]))
    if form == "tensor":
        array = torch.from_numpy(array) if kind[0] in "fi?c" else torch.from_numpy(values).to(torch.bfloat16)
    sources = {
        "rate first": (rate, array), "rate last": (array, rate), "bare": array, "tensor": array,
        "list": {"array": array.tolist() if kind != "M8[s]" else [[0.0], []], "sampling_rate": rate},
        "bytes": {"raw": array.tobytes() if form == "bytes" else b"", "sampling_rate": rate},
    }  # fmt: skip
    return form, sources.get(form, {form: array, "sampling_rate": rate})


def try_arrays(pipe: SerePipeline, count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    for index in tqdm(range(count), desc="Arrays", unit="input"):
        form, source = array_form(np.random.default_rng([seed, index]))
        one = form not in ("rate first", "rate last")  # a tuple without one number is a list of inputs
        yield f"array: {form}", answered(pipe, source if one else {"audio": source})


def try_servers(pipe: SerePipeline) -> Iterator[tuple[str, list[str]]]:
    with Server() as server:
        host = server.url.removeprefix("http://")
        for name, (sent, _) in tqdm(BEHAVIOURS.items(), desc="Servers", unit="input"):
            server.answers |= {"/it?token=swordfish": sent(), "/it": sent()}
            url = f"HTTP://anneliese:swordfish@{host}/it?token=swordfish"
            start = time.monotonic()
            failures = answered(pipe, url, timeout=1.0, max_bytes=50_000)
            failures += ["it took too long"] if time.monotonic() - start > SECONDS else []
            yield f"server: {name}", failures


def large_files(folder: Path, samples: np.ndarray) -> Iterator[Path]:
    """Yield sparse files of 20 GB that begin like a recording of each format, and six hours of silence in 1 MB."""
    tone = {name: np.tile(samples, CONTAINERS[name][2] // 16_000 or 1)[None] for name in CONTAINERS}
    for name in (*FORMATS, *CONTAINERS):
        path = folder / f"{name.replace(' ', '-')}.bin"
        if name in FORMATS:
            soundfile.write(path, samples, 16_000, format=FORMATS[name][0])
        else:
            path.write_bytes(container(name, tone[name]))
        os.truncate(path, 20 * 2**30)
        yield path
    with soundfile.SoundFile(folder / "six-hours.flac", "w", 16_000, 1, "PCM_16") as file:
        for _ in range(6 * 60):
            file.write(np.zeros(16_000 * 60, np.int16))
    yield folder / "six-hours.flac"


def try_large_files(pipe: SerePipeline, samples: np.ndarray) -> Iterator[tuple[str, list[str]]]:
    with tempfile.TemporaryDirectory() as name:
        for path in tqdm(large_files(Path(name), samples), desc="Large files", unit="file"):
            (path.parent / "metadata.csv").write_text(f"file_name,emotion\n{path.name},anger\n")
            failures = answered(pipe, str(path), max_seconds=3_600)
            (clip,) = load_corpus(path.parent).iter_audio()
            if clip.error is None:
                failures.append("dataset loading took it")
            yield f"large: {path.stem}", failures
            path.unlink()


def try_mixed_lists(pipe: SerePipeline, count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    good = [samples for samples, _ in recordings()]
    alone = [pipe(samples) for samples in good]
    bad = (None, 3, b"no audio", "gone.wav", np.zeros(10), np.full(16_000, np.nan), {"array": 1}, np.zeros((9, 16_000)))
    forms = {"list": list, "generator": iter, "dataset": lambda inputs: KeyDataset([{"x": i} for i in inputs], "x")}
    for index in tqdm(range(count), desc="Mixed lists", unit="list"):
        random = np.random.default_rng([seed, index])
        places = random.integers(-len(bad), len(good), random.integers(1, 20))
        inputs = [good[place] if place >= 0 else bad[place] for place in places]
        name = list(forms)[index % len(forms)]
        results = list(pipe(forms[name](inputs), on_error="return", batch_size=int(random.integers(1, 9))))
        failures = [] if len(results) == len(inputs) else ["answers are missing"]
        for place, result in zip(places, results, strict=False):
            if (place < 0) != (isinstance(result, dict) and "error" in result):
                failures.append(f"{result} for {'a bad' if place < 0 else 'a good'} input")
            elif place >= 0 and not same(result, alone[place]):
                failures.append("another answer than alone")
        yield f"mixed: {name}", failures


def same(result: list[dict], expected: list[dict]) -> bool:
    scores = {entry["label"]: entry["score"] for entry in expected}
    return all(abs(entry["score"] - scores[entry["label"]]) < 1e-4 for entry in result)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000, help="number of arrays; of lists a tenth")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes, pipe = Outcomes(), tiny_pipeline()
    samples = recordings()[0][0]
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, failures in try_large_files(pipe, samples):
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 2**20
        outcomes.add(name, failures + ([f"memory grew by {grown:.1f} GB"] if grown > 2 else []))
    for tried in (
        try_arrays(pipe, arguments.count, arguments.seed),
        try_servers(pipe),
        try_mixed_lists(pipe, arguments.count // 10, arguments.seed),
    ):
        for name, failures in tried:
            outcomes.add(name, failures)
    outcomes.close()


if __name__ == "__main__":
    main()

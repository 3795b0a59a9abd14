"""The web page of a model, on which people speak and see what it hears, in their own browser.

    python -m modeling_sere.space MODEL --output page/ [--samples CLIP ... --samples_license ID] [--push org/sere-demo]

MODEL is a folder or a name on the Hub. The page is a static Space: any host of files can serve it, for example
`python -m http.server --directory page`. Nothing of it is loaded from elsewhere, and nothing that a visitor says leaves
their machine.
"""

import argparse
import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError
from torch import nn

from modeling_sere import SereForAudioClassification
from modeling_sere.dynamics_sere import FUNCTIONAL_NAMES, fourier_basis
from modeling_sere.export import quantised, weight_shapes
from modeling_sere.pipeline_sere import CLIP_SECONDS, WINDOW_SECONDS
from modeling_sere.training.arguments import DEFAULT_CACHE
from modeling_sere.training.errors import RunError, first_line, writing
from modeling_sere.training.reporting.hub import Destination

SOURCES = Path(__file__).resolve().parents[1] / "space/page"
SHIPPED = (".html", ".css", ".js", ".svg", ".txt")
RUNTIME = "onnxruntime-web-1.30.0.tgz"
RUNTIME_HASH = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # SHA-512
# the smallest build that runs every operator; packed it is 3.7 MB instead of 14
RUNTIME_SCRIPT, RUNTIME_BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
VOICED = "voiced.segments_per_second"  # 0 where no voice is heard
SOUNDS = (".flac", ".m4a", ".mp3", ".ogg", ".wav")  # that every browser decodes
MARK = "model.json"  # tells a folder that holds a page
INPUTS = ("input_values", "attention_mask", "statistics")
OUTPUTS = ("logits", "highlights", "features", "cues", "voice_group")

README = """---
title: {quoted}
sdk: static
app_file: index.html
pinned: false
license: {license}
{models}tags:
- audio-classification
- speech-emotion-recognition
- sere
---

# {title}

Speak, or drop sound files, and see which emotion a voice sounds like, live and in your own browser. Nothing leaves your
machine: recordings are neither sent nor stored.

The model is {model}, made with SERE, and runs as ONNX in WebAssembly.

The page compares how a voice sounds with examples of emotions. It cannot tell what a person feels, means or intends,
and no decision about anybody may rest on it. In the European Union emotion recognition at work and in education is
prohibited except for medical or safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)), and anyone it is used on
must be told (Article 50(3)).
{samples}"""


class PageNetwork(nn.Module):
    """One clip from its waveform to all that the page asks for.

    The statistics come from outside, so that the page can put those of an enrolled voice in place of the domain's.
    """

    def __init__(self, model: SereForAudioClassification):
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor, statistics: torch.Tensor):
        """Return OUTPUTS from (1, N) samples at 16 kHz, their mask (1, N) and statistics (groups, 2, D).

        Shapes: logits (1, C), highlights (1, T), features (1, D), cues (1, 5), voice_group (1,).
        """
        sere = self.model.sere
        highlights, features = sere.pool(sere.frames(input_values, attention_mask))
        group = sere.embedding.voice_groups(features)
        embeddings, cues = sere.embedding(features, statistics[group])
        return self.model.classify(embeddings), highlights, features, cues, group


def build(name: str, output: Path, link: str | None, samples: list[Path], samples_license: str | None) -> None:
    """Put the page of a model into a folder.

    Args:
        name: of the model, a folder or a name on the Hub.
        output: new or empty, or with an earlier page, which is replaced.
        link: the model's name on the Hub, if it has one.
        samples: clips that visitors can try. samples_license: under which they may be given away.

    Raises:
        RunError: the model cannot be loaded, the folder holds something else, a sample is no sound or has no licence,
            or onnxruntime-web cannot be fetched.
    """
    _check_samples(samples, samples_license)
    _check_packages()
    if output.exists() and any(output.iterdir()) and not (output / MARK).is_file():
        raise RunError(f"{output} holds something else than a page: give --output a new folder")
    runtime = runtime_package()
    try:
        model = SereForAudioClassification.from_pretrained(name, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise RunError(f"{name} cannot be loaded ({first_line(error)}): give a SERE model") from error
    with writing(f"The page in {output}", "free some space, or give --output another folder"):
        shutil.rmtree(output / "samples", ignore_errors=True)
        (output / "samples").mkdir(parents=True)
        for source in SOURCES.iterdir():
            if source.suffix in SHIPPED:
                shutil.copyfile(source, output / source.name)
        _put_runtime(runtime, output)
        for clip in samples:
            shutil.copyfile(clip, output / "samples" / clip.name)
        export_network(model, output / "model.onnx")
        settings = _settings(model, name, link, samples, samples_license)
        (output / MARK).write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        (output / "README.md").write_text(_readme(settings, link), encoding="utf-8")


def export_network(model: SereForAudioClassification, path: Path) -> None:
    """Write the ONNX file of INPUTS and OUTPUTS; the weights of an encoder are kept in 8 bits."""
    statistics = model.sere.embedding.statistics
    length = torch.export.Dim("samples", min=1600, max=int(CLIP_SECONDS * 16_000))
    values = torch.randn(1, 32_000, generator=torch.Generator().manual_seed(0)) * 0.1
    program = torch.export.export(
        PageNetwork(model).eval(),
        (values, torch.ones_like(values, dtype=torch.long), statistics.clone()),
        dynamic_shapes=({1: length}, {1: length}, None),
        prefer_deferred_runtime_asserts_over_guards=True,  # what holds for every length need not be proved for it
    )
    names = {"input_names": INPUTS, "output_names": OUTPUTS}
    # the exporter's optimiser takes what is below 1e-8 for zero, the floor of the spectrum among it
    network = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False, **names)
    proto = slim(network.model_proto)
    path.write_bytes(proto.SerializeToString())
    if model.sere.encoder is not None:
        whole = path.rename(path.with_name("whole.onnx"))
        quantised(whole, path, weight_shapes(model))
        whole.unlink()


def slim(proto):
    """Take out of an ONNX model what a browser need not fetch: the exporter's notes, and Fourier bases.

    A basis has as many different numbers as a transform has samples. The runtime puts it together again when it loads
    the model, to a rounding, from one period of a cosine and of a sine.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        for notes in ("metadata_props", "doc_string"):
            part.ClearField(notes)
    nodes = []
    for initializer in list(graph.initializer):
        values = numpy_helper.to_array(initializer)
        if values.ndim != 2 or values.size < 10_000:
            continue
        size = values.shape[1] - 2
        if size % 2 == 0 and np.allclose(values, fourier_basis(len(values), size), atol=1e-6):
            graph.initializer.remove(initializer)
            nodes += _fourier_nodes(initializer.name, len(values), size, graph, helper, numpy_helper)
    nodes += list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    return proto


def _fourier_nodes(name: str, length: int, size: int, graph, helper, numpy_helper) -> list:
    """Return nodes that make `fourier_basis(length, size)` from one period; their constants are put into the graph."""
    angle = -2 * np.pi * np.arange(size) / size
    constants = {
        "sample": np.arange(length)[:, None],
        "bin": np.arange(size // 2 + 1)[None],
        "size": np.array(size),
        "cosine": np.cos(angle).astype(np.float32),
        "sine": np.sin(angle).astype(np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"{name}.{key}") for key, value in constants.items())
    steps = [
        ("Mul", ["sample", "bin"], "product"),
        ("Mod", ["product", "size"], "phase"),
        ("Gather", ["cosine", "phase"], "real"),
        ("Gather", ["sine", "phase"], "imaginary"),
    ]
    made = [helper.make_node(op, [f"{name}.{x}" for x in inputs], [f"{name}.{out}"]) for op, inputs, out in steps]
    return [*made, helper.make_node("Concat", [f"{name}.real", f"{name}.imaginary"], [name], axis=1)]


def runtime_package(cache: Path = DEFAULT_CACHE) -> Path:
    """Return the npm package of onnxruntime-web, from the cache or fetched by npm, whole and unaltered.

    Raises:
        RunError: it is not there and cannot be fetched, or is not what it was when this version was pinned.
    """
    path = cache / RUNTIME
    if not path.is_file():
        version = RUNTIME.removeprefix("onnxruntime-web-").removesuffix(".tgz")
        command = ["npm", "pack", f"onnxruntime-web@{version}", "--silent", "--pack-destination", str(cache)]
        cache.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise RunError(
                f"onnxruntime-web cannot be fetched ({lines[-1] if lines else error}): install npm and connect to the "
                f"network once, or put {RUNTIME} of registry.npmjs.org into {cache}"
            ) from error
    if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != RUNTIME_HASH:
        raise RunError(f"{path} is not the onnxruntime-web that is expected: delete it to have it fetched again")
    return path


def _put_runtime(package: Path, output: Path) -> None:
    with tarfile.open(package) as files:
        script = files.extractfile(f"package/dist/{RUNTIME_SCRIPT}").read()
        binary = files.extractfile(f"package/dist/{RUNTIME_BINARY}").read()
    (output / "ort.mjs").write_bytes(script)
    (output / "ort.wasm.gz").write_bytes(gzip.compress(binary, mtime=0))


def _check_packages() -> None:
    """Before a model is loaded and traced, which takes minutes."""
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise RunError(f'a page needs {", ".join(missing)}, not installed here: pip install "sere[export]"')


def _check_samples(samples: list[Path], samples_license: str | None) -> None:
    if samples and not samples_license:
        raise RunError("--samples needs --samples_license: name the licence under which the clips may be given away")
    for clip in samples:
        if not clip.is_file() or clip.suffix.lower() not in SOUNDS:
            raise RunError(f"--samples has {clip}: give files of the kinds {', '.join(SOUNDS)}")
    names = [clip.name for clip in samples]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RunError(f"--samples has {min(twice)} twice: give the clips different names")


def _settings(model, name: str, link: str | None, samples: list[Path], samples_license: str | None) -> dict:
    """Return what the page knows of its model."""
    config, statistics = model.config, model.sere.embedding.statistics
    return {
        "name": link or Path(name).name,
        "link": f"{HfApi().endpoint}/{link}" if link else None,
        "labels": config.labels,
        "prior": {label: config.prior_profile[label] for label in config.labels if label in config.prior_profile},
        "window": WINDOW_SECONDS,
        "hop": WINDOW_SECONDS / 2,
        "voiced": FUNCTIONAL_NAMES.index(VOICED),
        "statistics_shape": list(statistics.shape),
        "statistics": [[[float(f"{x:.9g}") for x in row] for row in group] for group in statistics.tolist()],
        "samples": [{"file": f"samples/{quote(clip.name)}", "name": clip.stem} for clip in samples],
        "samples_license": samples_license,
    }


def _readme(settings: dict, link: str | None) -> str:
    where = f"[{link}]({settings['link']})" if link else settings["name"]
    title = f"Emotion in a voice ({settings['name']})"
    clips = f"\nThe sample clips are under the licence {settings['samples_license']}.\n" if settings["samples"] else ""
    return README.format(
        title=title,
        quoted=json.dumps(title, ensure_ascii=False),
        license="other",
        models=f"models:\n- {link}\n" if link else "",
        model=where,
        samples=clips,
    )


class SpaceDestination(Destination):
    """A static Space on the Hub."""

    def prepare(self) -> None:
        """Create the Space if it is not there, and find out before the page is built what would stop a push.

        Raises:
            RunError: no token, one that may not write there, or no network.
        """
        api = HfApi()
        with self._explained():
            self._check_rights(api.whoami())
            private = self.private or None  # None: the default of the organisation
            api.create_repo(self.repo_id, repo_type="space", space_sdk="static", private=private, exist_ok=True)

    def push(self, folder: Path) -> str:
        """Make one commit that makes the Space the page in this folder. Returns its address.

        Raises:
            RunError: what went wrong; the page is whole in its folder.
        """
        api, kind = HfApi(), {"repo_id": self.repo_id, "repo_type": "space"}
        with self._explained(f"; the page is whole in {folder}"):
            files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            stale = set(api.list_repo_files(**kind)) - files.keys() - {".gitattributes"}
            operations = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
            operations += [CommitOperationDelete(name) for name in sorted(stale)]
            api.create_commit(**kind, operations=operations, commit_message="The page of a SERE model")
        return f"{HfApi().endpoint}/spaces/{self.repo_id}"

    def link_from(self, model: str) -> None:
        """Name the Space in the card of its model on the Hub, once.

        Raises:
            RunError: the card may not be written.
        """
        api = HfApi()
        with self._explained(f"; the page is at {api.endpoint}/spaces/{self.repo_id}"):
            try:
                card = Path(api.hf_hub_download(model, "README.md")).read_text(encoding="utf-8")
            except EntryNotFoundError:
                card = f"# {model.split('/')[-1]}\n"
            linked = with_link(card, f"{HfApi().endpoint}/spaces/{self.repo_id}")
            if linked != card:
                change = CommitOperationAdd("README.md", linked.encode())
                api.create_commit(model, [change], commit_message="Link to the page of this model")


def with_link(card: str, address: str) -> str:
    """Return the card with a line below its title that leads to the page, unless it has one."""
    if address in card:
        return card
    line = f"**Try it in your browser: [{address.split('/spaces/')[-1]}]({address})**; nothing you say leaves it."
    title = re.search(r"^# .*$", card, re.MULTILINE)
    place = title.end() if title else len(card)
    return f"{card[:place]}\n\n{line}{card[place:]}"


def main():
    """Build a page, and push it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_sere.space", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder, or name on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="folder of the page")
    parser.add_argument("--model_id", help="name of the model on the Hub, where MODEL is a folder")
    parser.add_argument("--samples", type=Path, nargs="+", default=[], help="clips that visitors can try")
    parser.add_argument("--samples_license", help="licence under which these may be given away")
    parser.add_argument("--push", metavar="OWNER/NAME", help="put the page on the Hub as this Space")
    parser.add_argument("--private", action="store_true", help="make the Space a private one")
    arguments = parser.parse_args()
    link = arguments.model_id or (None if Path(arguments.model).exists() else arguments.model)
    destination = SpaceDestination(arguments.push, arguments.private) if arguments.push else None
    try:
        if destination:
            destination.prepare()
        build(arguments.model, arguments.output, link, arguments.samples, arguments.samples_license)
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the name of the folder and the console
        print(f"The page is in {arguments.output}: python -m http.server --directory {arguments.output}")
        if destination:
            print("Pushed to", destination.push(arguments.output))
        if destination and link:
            destination.link_from(link)
    except RunError as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()

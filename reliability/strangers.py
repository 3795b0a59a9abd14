"""Checkpoints that lie, or would run or fill something: each is refused by every way of loading, with the reason.

    python -m reliability.strangers

A small model is saved, spoilt in one way at a time, and loaded by `AutoModel`, `AutoModelForAudioClassification`,
`pipeline` and as `--model` of train_sere.py. Each must say in one sentence what is wrong (`pipeline` puts its own
report around it), run no code that the checkpoint smuggles in, and take no more memory than ROOM.
"""

import argparse
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config

from modeling_sere import SereConfig, SereForAudioClassification
from reliability.outcomes import Outcomes

ROOM = 400e6  # bytes: transformers turns a config.json of a million names, 25 MB, into ten times as much
SECONDS = 10.0  # of computing for one way of loading
LIMIT = 8 * 2**30  # bytes for the process that loads: what takes more fails there, and not on the whole machine
AUTO = ("AutoModel", "AutoModelForAudioClassification", "pipeline")
ENCODER = Wav2Vec2Config(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
)  # fmt: skip


def save_model(folder: Path):
    """Return the model that is then spoilt: a tiny encoder, three emotions, two labelled clips."""
    torch.manual_seed(0)
    config = SereConfig(id2label=dict(enumerate("abc")), encoder_config=ENCODER, num_sources=2)
    SereForAudioClassification(config).save_pretrained(folder)


# Ways to spoil a folder. `mark` is a file that appears if code of the folder runs.

SPOILT: dict[str, tuple[Callable[[Path, Path], None], str]] = {}


def spoils(message: str):
    """Register a function that makes a checkpoint that is refused with this message."""

    def register(function):
        SPOILT[function.__name__] = (function, message)
        return function

    return register


class Payload:
    """Whoever unpickles it makes the mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def change_config(folder: Path, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_encoder(folder: Path, **changes):
    encoder = json.loads((folder / "config.json").read_text())["encoder_config"]
    change_config(folder, encoder_config=encoder | changes)


def change_weights(folder: Path, change: Callable[[dict], None]):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_header(folder: Path, change: Callable[[dict], None] = lambda header: None, **parts):
    """Return another header before the same data. parts: `length` it claims to have, or `text` in its place."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = parts.get("text", json.dumps(header).encode())
    path.write_bytes(parts.get("length", len(text)).to_bytes(8, "little") + text + data[8 + size :])


@spoils("has no model.safetensors: SERE reads no other weights")
def pickle_weights(folder, mark):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))


@spoils("has no model.safetensors: SERE reads no other weights")
def pickle_by_an_index(folder, mark):
    places = dict.fromkeys(load_file(folder / "model.safetensors"), "pytorch_model.bin")
    pickle_weights(folder, mark)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@spoils("claims a header of")
def pickle_by_another_name(folder, mark):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(mark)))


@spoils("transformers_weights must not be set")
def pickle_by_the_configuration(folder, mark):
    (folder / "adapter.bin").write_bytes(pickle.dumps(Payload(mark)))
    change_config(folder, transformers_weights="adapter.bin")


@spoils("claims a header of 0 bytes in a file of 0")
def empty_weights(folder, mark):
    (folder / "model.safetensors").write_bytes(b"")


@spoils("claims a header of 1152921504606846976 bytes")
def header_of_an_exabyte(folder, mark):
    change_header(folder, length=2**60)


@spoils("claims a header of 900000000 bytes")
def header_of_a_gigabyte(folder, mark):
    change_header(folder, length=900_000_000)
    os.truncate(folder / "model.safetensors", 2**30)  # takes no place on the disk


@spoils("is not true to its file")
def header_that_is_no_json(folder, mark):
    change_header(folder, text=b"{" + bytes(100))


@spoils("is not true to its file")
def header_of_brackets(folder, mark):
    change_header(folder, text=b'{"a":' + b"[" * 100_000)


@spoils("does not have the size of its shape")
def offsets_beyond_the_file(folder, mark):
    change_header(folder, lambda header: header["classifier.bias"].update(data_offsets=[0, 2**50]))


@spoils("its tensors end at")
def tensor_beyond_the_file(folder, mark):
    def change(header):
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        header["more"] = {"dtype": "U8", "shape": [2**40], "data_offsets": [end, end + 2**40]}

    change_header(folder, change)


@spoils("not where the one before it ends")
def two_tensors_in_one_place(folder, mark):
    change_header(folder, lambda header: header.update(more=header["classifier.bias"]))


@spoils("does not have the size of its shape")
def shape_that_is_too_large(folder, mark):
    change_header(folder, lambda header: header["classifier.bias"].update(shape=[2**62, 2**62, 2**62]))


@spoils("impossible shape")
def shape_below_zero(folder, mark):
    change_header(folder, lambda header: header["classifier.bias"].update(shape=[-1, -3]))


@spoils("does not have the size of its shape")
def wider_numbers_than_there_are(folder, mark):
    change_header(folder, lambda header: header["classifier.weight"].update(dtype="F64"))


@spoils("holds numbers of type I32 in model.safetensors, not torch.float32")
def numbers_of_another_kind(folder, mark):
    change_header(folder, lambda header: header["classifier.weight"].update(dtype="I32"))


@spoils("is of the unknown type 'F1000'")
def numbers_of_no_kind(folder, mark):
    change_header(folder, lambda header: header["classifier.weight"].update(dtype="F1000"))


@spoils("its tensors end at")
def weights_cut_short(folder, mark):
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1000)


@spoils("model.safetensors lacks sere.embedding.log_gain, which config.json calls for|lacks embedding.log_gain")
def weights_that_lack_a_tensor(folder, mark):
    change_weights(folder, lambda weights: weights.pop("sere.embedding.log_gain"))


@spoils("holds NaN or infinite numbers")
def not_a_number(folder, mark):
    change_weights(folder, lambda weights: weights["sere.embedding.log_gain"].fill_(float("nan")))


@spoils("holds NaN or infinite numbers")
def infinite_statistics(folder, mark):
    change_weights(folder, lambda weights: weights["sere.embedding.statistics"][..., -1].fill_(float("-inf")))


@spoils("in model.safetensors, .* by config.json")
def another_width_than_the_weights(folder, mark):
    change_encoder(folder, hidden_size=36)


@spoils("in model.safetensors, .* by config.json")
def encoder_of_a_million_features(folder, mark):
    change_encoder(folder, hidden_size=2**20, intermediate_size=2**20)


@spoils("describes no model that can be built")
def encoder_that_no_machine_can_hold(folder, mark):
    change_encoder(folder, hidden_size=2**40)


@spoils("encoder_config must have from 1 to 200 layers")
def encoder_of_a_million_layers(folder, mark):
    change_encoder(folder, num_hidden_layers=10**6)
    change_config(folder, encoder_layers=[10**6])


@spoils("encoder_config")
def encoder_of_many_convolutions(folder, mark):
    many = {"conv_dim": [16] * 10**5, "conv_kernel": [3] * 10**5, "conv_stride": [1] * 10**5}
    change_encoder(folder, num_feat_extract_layers=10**5, **many)


@spoils("encoder_config is none of wav2vec2: .*hidden_size")
def encoder_of_no_width(folder, mark):
    change_encoder(folder, hidden_size="wide")


@spoils("num_labels must be")
def a_million_classes_by_number(folder, mark):
    change_config(folder, id2label=None, label2id=None, num_labels=10**6)


@spoils("num_labels must be")
def a_billion_classes_by_number(folder, mark):
    change_config(folder, id2label=None, label2id=None, num_labels=10**9)


@spoils("num_labels must be from 2 to 1000, not 1000000")
def a_million_classes_by_name(folder, mark):
    change_config(folder, id2label={k: f"emotion {k}" for k in range(10**6)}, label2id=None)


@spoils("in model.safetensors, .* by config.json|cannot be loaded")
def more_classes_than_the_weights(folder, mark):
    change_config(folder, id2label=dict(enumerate("abcd")), label2id=None)


@spoils("source_embeddings has the shape .* in model.safetensors, .* by config.json")
def a_million_sources(folder, mark):
    change_config(folder, num_sources=10**6)


@spoils("model.safetensors lacks source_embeddings")
def a_million_sources_and_none(folder, mark):
    def change(weights):
        for name in ("source_embeddings", "source_cues", "source_labels"):
            del weights[name]

    change_config(folder, num_sources=10**6)
    change_weights(folder, change)


def _elsewhere(folder: Path, mark: Path) -> Path:
    """Return another repository, whose code makes the mark."""
    other = folder.parent / "elsewhere"
    other.mkdir(exist_ok=True)
    for name in ("modeling_sere", "pipeline_sere"):
        (other / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\nraise SystemExit\n")
    return other


@spoils("config.json takes code from .*elsewhere, and a pinned revision does not reach there")
def code_of_another_repository(folder, mark):
    place = f"{_elsewhere(folder, mark)}--modeling_sere"
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    auto_map |= {
        "AutoModel": f"{place}.SereModel", "AutoModelForAudioClassification": f"{place}.SereForAudioClassification"
    }  # fmt: skip
    change_config(folder, auto_map=auto_map)


@spoils("config.json takes code from .*elsewhere, and a pinned revision does not reach there")
def pipeline_of_another_repository(folder, mark):
    task = {"impl": f"{_elsewhere(folder, mark)}--pipeline_sere.SerePipeline", "type": "audio"}
    change_config(folder, custom_pipelines={"audio-classification": task | {"pt": ["AutoModel"]}})


@spoils("config.json takes code from owner/kernel, and a pinned revision does not reach there")
def attention_of_another_repository(folder, mark):
    change_config(folder, attn_implementation="owner/kernel")


@spoils("config.json takes code from owner/kernel, and a pinned revision does not reach there")
def attention_of_another_repository_in_the_encoder(folder, mark):
    change_encoder(folder, attn_implementation="owner/kernel")


def _extractor_with_code(folder: Path, mark: Path, **changes) -> dict:
    (folder / "extractor_sere.py").write_text(f"open({str(mark)!r}, 'w')\nraise SystemExit\n")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    return values | {"auto_map": {"AutoFeatureExtractor": "extractor_sere.Extractor"}} | changes


@spoils("preprocessor_config.json has a feature extractor with 'auto_map' of its own")
def feature_extractor_with_code(folder, mark):
    (folder / "preprocessor_config.json").write_text(json.dumps(_extractor_with_code(folder, mark)))


@spoils("preprocessor_config.json has a feature extractor with 'auto_map' of its own")
def feature_extractor_of_another_repository(folder, mark):
    place = {"AutoFeatureExtractor": f"{_elsewhere(folder, mark)}--modeling_sere.Extractor"}
    values = _extractor_with_code(folder, mark, auto_map=place)
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


@spoils("processor_config.json has a feature extractor with 'auto_map' of its own")
def processor_with_code(folder, mark):
    values = {"feature_extractor": _extractor_with_code(folder, mark)}
    (folder / "processor_config.json").write_text(json.dumps(values))


@spoils("preprocessor_config.json has a feature extractor with 'feature_extractor_type' of its own")
def feature_extractor_of_another_type(folder, mark):
    values = json.loads((folder / "preprocessor_config.json").read_text())
    values["feature_extractor_type"] = "WhisperFeatureExtractor"
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


@spoils("preprocessor_config.json has a feature extractor with 'do_normalize' of its own")
def feature_extractor_that_changes_the_audio(folder, mark):
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(values | {"do_normalize": True}))


@spoils("preprocessor_config.json is no feature extractor's")
def feature_extractor_that_is_no_json(folder, mark):
    (folder / "preprocessor_config.json").write_text('{"a":' + "[" * 100_000)


@spoils("has adapters")
def adapters_beside_the_weights(folder, mark):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "."}))


@spoils("has adapters")
def adapters_of_another_model(folder, mark):
    base = shutil.copytree(folder, folder.parent / "base", dirs_exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(base)}))
    (folder / "adapter_model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())


@spoils("label2id is .*, which contradicts id2label")
def names_that_contradict_each_other(folder, mark):
    change_config(folder, label2id={"a": 2, "b": 1, "c": 0})


@spoils("log_gain holds numbers of 1e.03, where 40 is the most that means anything")
def gains_beyond_all_numbers(folder, mark):
    change_weights(folder, lambda weights: weights["sere.embedding.log_gain"].add_(1000))


@spoils("source_labels holds numbers that are no label")
def sources_of_no_emotion(folder, mark):
    change_weights(folder, lambda weights: weights["source_labels"].fill_(7))


@spoils("field_rounds must be a whole number from 0 to 100")
def rounds_without_end(folder, mark):
    change_config(folder, field_rounds=1000)


@spoils("describes no model that can be built")
def unknown_activation(folder, mark):
    change_encoder(folder, hidden_act="rm -rf")


BESIDE = "code_beside_it"  # which --model must not run, and nothing else is wrong
# The base model has no head and no sources: there is nothing to refuse
HEAD = {
    "sources_of_no_emotion", "numbers_of_another_kind",
    "more_classes_than_the_weights", "a_million_sources", "a_million_sources_and_none",
}  # fmt: skip


# Loading, in a process of its own

LOADING = """
import json, os, resource, sys, time
root, limit, ways, cases = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
import torch
torch.set_num_threads(1)
from transformers import AutoModel, AutoModelForAudioClassification, pipeline
from transformers.utils import logging
logging.disable_progress_bar()
if "--model" in ways:
    sys.path.insert(0, root)
    from modeling_sere.training.arguments import SereArguments
    from modeling_sere.training.running.models import load_checkpoint
else:
    sys.modules["modeling_sere"] = None  # where it is installed, the code beside the weights would not be used
load = {
    "AutoModel": lambda name: AutoModel.from_pretrained(name, trust_remote_code=True),
    "AutoModelForAudioClassification":
        lambda name: AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True),
    "pipeline": lambda name: pipeline("audio-classification", model=name, trust_remote_code=True, device="cpu"),
    "--model": lambda name: load_checkpoint(SereArguments(model=name)),
}
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
largest = None
for name in cases:
    for way in ways:
        start = time.process_time()
        try:
            load[way](name)
            said = None
        except (OSError, ValueError) as error:
            said = str(error)
        except BaseException as error:
            said = f"\\n{type(error).__name__}: {error}"
        grown, largest = peak() - (largest or peak()), peak()
        line = {"name": os.path.basename(name), "way": way, "said": said, "memory": grown}
        print(json.dumps(line | {"seconds": time.process_time() - start}), flush=True)
"""


def loaded(root: Path, names: Sequence[str], ways: Sequence[str]) -> list[dict]:
    """Return how each way of loading ended for each folder: name, way, what was `said`, seconds, and `memory`.

    This package is used if `--model` is the way, else the code beside the weights. The first folder should be intact:
    memory is by how many bytes the process grew beyond its largest so far.
    """
    task = json.dumps([str(Path(__file__).resolve().parents[1]), LIMIT, ways, [str(root / name) for name in names]])
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hf"), "HF_MODULES_CACHE": str(root / "modules")
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LOADING, task], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"The process that loads ended with status {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]


def try_strangers(root: Path, ways: Sequence[str] = AUTO) -> Iterator[tuple[str, list[str]]]:
    """Yield for each way to spoil a model and each way to load it the name of the former, and what is wrong."""
    save_model(root / "intact")
    for name, (spoil, _) in SPOILT.items():
        spoil(Path(shutil.copytree(root / "intact", root / name)), root / f"{name} ran")
    beside = Path(shutil.copytree(root / "intact", root / BESIDE))
    for path in beside.glob("*.py"):
        path.write_text(f"open({str(root / f'{BESIDE} ran')!r}, 'w')\nraise SystemExit\n")
    names = ["intact", *SPOILT]
    for result in [*loaded(root, names, ways), *loaded(root, [*names, BESIDE], ["--model"])]:
        yield result["name"], [f"{result['way']}: {failure}" for failure in wrong_with(root, result)]


def wrong_with(root: Path, result: dict) -> list[str]:
    name, way, said = result["name"], result["way"], result["said"]
    failures = [f"took {result['seconds']:.0f} s"] if result["seconds"] > SECONDS else []
    if result["memory"] > ROOM:
        failures.append(f"took {result['memory'] / 1e6:.0f} MB more than the intact model")
    if (root / f"{name} ran").exists():
        failures.append("code of the checkpoint ran")
    if name in ("intact", BESIDE) or (way == "AutoModel" and name in HEAD):
        return failures if said is None else [*failures, f"was refused: {said}"]
    if said is None:
        return [*failures, "was not refused"]
    sentence = said.strip().splitlines()[-1] if way == "pipeline" else said
    if "\n" in sentence or not re.search(SPOILT[name][1], sentence):
        failures.append(f"said {sentence!r}")
    return failures


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as name:
        for what, failures in try_strangers(Path(name)):
            outcomes.add(what, failures)
    outcomes.close()


if __name__ == "__main__":
    main()

"""Arguments of train_sere.py: flags, or the same in a JSON file."""

import importlib.util
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from huggingface_hub.constants import HF_HOME
from transformers import HfArgumentParser

from modeling_sere.training.errors import RunError

MAX_SEED = 2**32  # of NumPy
DEFAULT_CACHE = Path(HF_HOME) / "sere"
SAMPLES, RECIPES = (Path(__file__).resolve().parents[2] / folder for folder in ("samples", "recipes"))


PATHS = ("source", "target", "model", "encoder", "label_map", "output_dir", "cache_dir")


def as_on_disk(address: str) -> str:
    """Return a path as it is spelled on the disk, where another Unicode form of it is there; else the same."""
    path = Path(address).expanduser()
    try:
        if os.path.lexists(path):
            return address
        found = Path(path.anchor)
        for part in path.parts[bool(path.anchor) :]:
            if not os.path.lexists(found / part):
                (part,) = (name for name in os.listdir(found) if normalize("NFC", name) == normalize("NFC", part))
            found = found / part
    except (OSError, ValueError):  # not there, or more than one
        return address
    return str(found)


def _spelled(name: str, value: str) -> str:
    """Return the value of a flag as the disk spells it. Raises ValueError: it cannot be written down."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"--{name} {ascii(value)} is not in UTF-8: rename the file or folder.") from error
    return as_on_disk(value) if name in PATHS else value


def _option(default, text: str, **metadata):
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class SereArguments:
    """Every flag can also stand in a JSON file: `train_sere.py run.json`, then flags that differ from it.

    A name without .json is that of a recipe: `train_sere.py cameo-polish`.
    """

    source: list[str] | None = _option(None, "Labelled corpora, one or more: folder, table, or dataset on the Hub; "
                                       "docs/corpora.md has the forms (default: the sample; with --model the labelled "
                                       "clips in it).")  # fmt: skip
    target: str | None = _option(None, "Corpus in the new language (default: the sample). Labels, if any, choose the "
                                 "emotions and clips that take part, and score the result; nothing is learned from "
                                 "them.")  # fmt: skip
    output_dir: str | None = _option(None, "New folder for the model, its card and results.json (default: a free one "
                                     "named after the corpora, as out/english-polish).")  # fmt: skip
    encoder: str = _option("none", "Encoder's folder or Hub id (WavLM, wav2vec2, HuBERT, w2v-bert, Whisper), or none.")
    encoder_revision: str | None = _option(None, "Revision of an encoder on the Hub.")
    model: str | None = _option(None, "SERE model to start from, folder or Hub id, in place of an encoder.")
    model_revision: str | None = _option(None, "Revision of a model on the Hub.")

    source_split: str | None = _option(None, "Split of the source dataset, of each if there are several.")
    source_config: str | None = _option(None, "Configuration of the source dataset, likewise.")
    source_revision: str | None = _option(None, "Revision of the source dataset on the Hub, likewise.")
    target_split: str | None = _option(None, "Split of the target dataset.")
    target_config: str | None = _option(None, "Configuration of the target dataset.")
    target_revision: str | None = _option(None, "Revision of a target dataset on the Hub.")
    streaming: bool = _option(False, "Read Hub datasets in passes instead of downloading them.")
    audio_column: str | None = _option(None, "Audio column (default: file_name, path, audio and the like).")
    label_column: str | None = _option(None, "Emotion column (default: emotion, label or labels).")
    speaker_column: str | None = _option(None, "Speaker column (default: speaker, speaker_id, actor and the like).")
    speaker_ids: bool = _option(True, "Normalise per speaker where at least half of the clips have a speaker id.")
    label_map: str | None = _option(None, "'Wut=anger,Freude=happiness' or a JSON file: corpus label = emotion.")
    emotions: str | None = _option(None, "'anger,sadness,neutral': which emotions take part (default: those of source "
                                   "and target; all of the source if the target has no labels).")  # fmt: skip
    segments: bool = _option(True, "Cut clips out of files where columns tell start and end in seconds.")
    outside_files: bool = _option(False, "Let file names lead out of a corpus' folder: absolute paths, .., links.")
    max_skipped: float = _option(0.05, "Stop if more than this share of a corpus' clips is unusable.")

    shots: int = _option(
        5, "Labelled source clips per emotion and corpus; 0: the prior alone tells the emotions apart."
    )
    target_shots: str | None = _option(None, "Labelled target clips per emotion that may help, or all; they are never "
                                       "scored.")  # fmt: skip
    seed: int = _option(0, "Seed of the shots and of everything else that is random.")
    draws: int = _option(5, "Shot draws (seeds seed, seed+1, ...) for the spread; the model saved is the first.")
    setting: str = _option(
        "transductive", "Adapt on the whole target and score it, or adapt on half of its speakers and score the rest.",
        choices=["transductive", "inductive"],
    )  # fmt: skip

    prior_weight: float | None = _option(None, "Weight of the prior (default: 2 with speaker ids, 1 without).")
    field_balance: float = _option(0.5, "Strength of the balance towards equal class shares, 0 to 1.")

    refine_steps: int = _option(0, "Gradient steps between two rounds of organising.")
    train_encoder: str = _option(
        "none", "Train the encoder while refining: all of it, or LoRA adapters (needs peft).",
        choices=["none", "full", "lora"],
    )  # fmt: skip
    learning_rate: float = _option(1e-3, "Learning rate of refining (for a full encoder rather 1e-5).")
    batch_size: int = _option(32, "Labelled, and as many unlabelled, clips per refining step and process.")
    tric_weight: float = _option(0.0, "Weight of TRIC in the refining loss; it lost in every measurement.")
    consistency_weight: float = _option(0.5, "Weight of the consistency between two views in the refining loss.")

    push_to_hub: bool = _option(False, "Put the finished model and its card on the Hub.")
    hub_model_id: str | None = _option(None, "Its name there: owner/name.")
    hub_private: bool = _option(False, "In a private repository.")
    hub_revision_tag: str | None = _option(None, "Tag of the commit, for example v1.")
    push_predictions: bool = _option(False, "With predictions.csv, which names the clips of the target.")
    license: str | None = _option(None, "Licence of the checkpoint (default: as the licences of the data allow).")

    cache_dir: str = _option(str(DEFAULT_CACHE), "Feature cache.")
    resume: bool = _option(False, "Go on with the unfinished run of the same flags.")
    overwrite_output_dir: bool = _option(False, "Replace the run in --output_dir.")
    report_to: str | None = _option(None, "Trackers, comma separated, or none (default: tensorboard if installed).")

    def __post_init__(self):
        if isinstance(self.source, str):
            self.source = [self.source]
        self._check_texts()
        self._check_sources()
        for name, low in (("shots", 0), ("draws", 1), ("batch_size", 1), ("refine_steps", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"--{name} must be at least {low}, not {getattr(self, name)}.")
        if self.target_shots not in (None, "all") and not (self.target_shots.isdecimal() and int(self.target_shots)):
            raise ValueError(f"--target_shots must be a whole number from 1 on, or all, not {self.target_shots}.")
        if self.target_shots is not None and self.refine_steps > 0:
            raise ValueError("--target_shots takes no part in gradient steps: leave --refine_steps out.")
        if self.shots == 0 and self.refine_steps > 0:
            raise ValueError("--refine_steps needs labelled clips: leave --shots 0 out.")
        if self.seed + self.draws > MAX_SEED:
            raise ValueError(f"--seed must be at most {MAX_SEED - self.draws}, not {self.seed}.")
        if self.source is None and self.model is None:
            self.source = [_sample("source", "english")]
        if self.target is None:
            self.target = _sample("target", "polish")
        self._check_start()
        self._check_hub()
        if self.train_encoder != "none" and self.encoder == "none" and self.model is None:
            raise ValueError("--train_encoder needs an encoder: name one with --encoder.")
        if self.train_encoder != "none" and self.refine_steps == 0:
            raise ValueError("--train_encoder needs gradient steps: set --refine_steps, for example to 200.")
        if self.train_encoder == "lora" and importlib.util.find_spec("peft") is None:
            raise ValueError("--train_encoder lora needs the package peft: pip install peft.")
        if not 0 <= self.max_skipped <= 1:
            raise ValueError(f"--max_skipped must be a share from 0 to 1, not {self.max_skipped}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"--learning_rate must be positive, not {self.learning_rate}.")

    def _check_texts(self):
        """Refuse what cannot be written down, and find what lies on the disk under another spelling."""
        for name, value in vars(self).items():
            if isinstance(value, str):
                setattr(self, name, _spelled(name, value))
        if self.source is not None:
            self.source = [_spelled("source", address) for address in self.source]

    def _check_sources(self):
        places = [os.path.realpath(os.path.expanduser(address)) for address in self.source or []]
        for row, place in enumerate(places):
            if place in places[:row]:
                raise ValueError(f"--source names {self.source[row]} twice: name each corpus once.")

    def _check_start(self):
        if self.model is None:
            if self.model_revision is not None:
                raise ValueError("--model_revision is that of a --model: name one.")
            return
        if self.encoder != "none":
            raise ValueError("--model brings its own encoder: leave --encoder out.")
        if self.source is None and (self.source_split or self.source_config or self.source_revision):
            raise ValueError("--source_split, --source_config and --source_revision are those of a --source: name one.")
        if self.source is None and self.refine_steps > 0:
            raise ValueError("--refine_steps needs labelled audio, and a model carries none: name a --source.")

    def _check_hub(self):
        if self.push_to_hub:
            if re.fullmatch(r"\w[\w.-]*/[\w.-]*\w", self.hub_model_id or "") is None:
                raise ValueError(f"--push_to_hub needs a name: set --hub_model_id owner/name, not {self.hub_model_id}.")
        elif self.hub_model_id or self.hub_private or self.hub_revision_tag or self.push_predictions:
            raise ValueError(
                "--hub_model_id, --hub_private, --hub_revision_tag and --push_predictions need --push_to_hub: add it."
            )


def _sample(flag: str, language: str) -> str:
    """Find a sample corpus. Raises ValueError: the package was installed without the samples."""
    folder = SAMPLES / language
    if not folder.is_dir():
        raise ValueError(f"--{flag} is missing, and the samples come with a clone of the project only: name a corpus.")
    return str(folder)


class _Parser(HfArgumentParser):
    def error(self, message: str):  # argparse would print every flag's usage and leave
        raise RunError(f"{message} (--help lists all flags)")


def parse_arguments(flags: list[str]) -> SereArguments:
    """Parse a command line whose first word may be a JSON file or the name of a recipe; flags after it win.

    Raises:
        RunError: a flag or the file that cannot be understood.
    """
    if flags and flags[0].endswith(".json"):
        flags = _json_flags(Path(as_on_disk(flags[0]))) + flags[1:]
    elif flags and not flags[0].startswith("-"):
        flags = _json_flags(_recipe(flags[0])) + flags[1:]
    parser = _Parser(SereArguments, allow_abbrev=False)
    try:
        arguments, unknown = parser.parse_args_into_dataclasses(
            flags, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        raise RunError(str(error)) from error
    if unknown:
        parser.error(f"unknown flags: {' '.join(unknown)}")
    return arguments


def _recipe(name: str) -> Path:
    """The file of a recipe. Raises RunError: there is none of this name."""
    known = sorted(path.stem for path in RECIPES.glob("*.json"))
    if name not in known:
        found = f"there are {', '.join(known)}" if known else "they come with a clone"
        raise RunError(
            f"there is no recipe {name!r}: {found}; a file of flags ends with .json (--help lists all flags)"
        )
    return RECIPES / f"{name}.json"


def _json_flags(path: Path) -> list[str]:
    """Read the file as flags, so that types and choices are checked in one place; null is the default."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON in UTF-8: {error}.") from error
    several = values.pop("source") if isinstance(values, dict) and isinstance(values.get("source"), list) else None
    if not isinstance(values, dict) or any(isinstance(value, (dict, list)) for value in values.values()):
        raise RunError(f'{path} must be one JSON object of texts, numbers, true and false, like {{"shots": 5}}.')
    if several == [] or not all(isinstance(address, str) for address in several or []):
        raise RunError(f"{path}: source must be a text or a list of texts.")
    flags = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return flags + (["--source", *several] if several else [])

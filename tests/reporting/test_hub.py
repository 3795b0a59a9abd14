"""By name, from the Hub, both ways: the real clients, HTTP, and a fresh process for everybody who pushes or pulls."""

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from datasets import Audio, ClassLabel, Dataset, Features, Value
from huggingface_hub import HfApi, ModelCard, constants
from safetensors.torch import load_file, save, save_file
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from modeling_sere.training.errors import RunError
from modeling_sere.training.reporting import hub
from testing.corpora import SOUNDS, voice, wav
from testing.hub_server import HubServer
from testing.traps import CARD, SECRET, TRAPS, png

ROOT = Path(__file__).resolve().parents[2]
TOKEN, STRANGER, READER = "hf_anneliese_secret", "hf_bo", "hf_anneliese_reads"
USERS = {
    TOKEN: {"name": "anneliese", "orgs": ["org"]},
    READER: {"name": "anneliese", "orgs": ["org"], "role": "read"},
    STRANGER: {"name": "bo"},
}
CODE = {
    "configuration_sere.py", "modeling_sere.py", "embedding_sere.py", "encoder_sere.py", "dynamics_sere.py",
    "resonance_sere.py", "pipeline_sere.py", "timeline_sere.py", "audio_sere.py", "decoding_sere.py",
    "fetching_sere.py", "stream_sere.py", "card_sere.py", "published_sere.py", "weights_sere.py",
}  # fmt: skip
SAVED = CODE | {"config.json", "model.safetensors", "preprocessor_config.json"}
PUSHED = SAVED | {"README.md", "plots/confusion.png", "plots/highlights.png", ".gitattributes"}
DATA = "org/speech"
DATA_CARD = """---
license: cc-by-4.0
configs:
- config_name: de
  data_files:
  - {split: train, path: de/train.parquet}
  - {split: test, path: de/test.parquet}
- config_name: it
  data_files: [{split: train, path: it/train.parquet}]
---
# Speech
"""

# train_sere.py as it is, which also writes down what the trained model says of the clips in given.pt
TRAINER = """
import sys, torch
sys.path.insert(0, sys.argv.pop(1))
torch.set_num_threads(1)
import train_sere
example = train_sere.highlight_example
def noted(model, *rest):
    with torch.inference_mode():
        torch.save([model(clip[None]).logits for clip in torch.load("given.pt")], "trained.pt")
    return example(model, *rest)
train_sere.highlight_example = noted
train_sere.main()
"""

# somebody who has transformers and nothing of ours: loads by name, online or from the cache
PULLER = """
import json, os, sys
sys.modules["modeling_sere"] = sys.modules["model_card"] = None
import torch
torch.set_num_threads(1)
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline
offline = os.environ.get("HF_HUB_OFFLINE") == "1"
clips = torch.load("given.pt")
seen = {"logits": {}, "base": {}, "scores": {}, "errors": {}, "modules": {}}
for name, options in json.loads(sys.argv[1]):
    case = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    model = AutoModelForAudioClassification.from_pretrained(name, trust_remote_code=True, **options).eval()
    with torch.inference_mode():
        seen["logits"][case] = [model(clip[None]).logits for clip in clips]
    seen["modules"][case] = type(model).__module__
    if "code_revision" not in options:
        base = AutoModel.from_pretrained(name, trust_remote_code=True, **options).eval()
        with torch.inference_mode():
            seen["base"][case] = base(clips[0][None]).embeddings
        pipe = pipeline("audio-classification", model=name, trust_remote_code=True, device="cpu", **options)
        seen["scores"][case] = pipe({"array": clips[0].numpy(), "sampling_rate": 16000})
        seen["classes"] = [type(x).__name__ for x in (base, model, pipe)]
if not offline:
    for name, options in (("org/sere-de", {"token": False}), ("org/pickled", {})):
        for kind in (AutoModel, AutoModelForAudioClassification):
            try:
                kind.from_pretrained(name, trust_remote_code=True, **options)
            except OSError as error:
                seen["errors"][f"{kind.__name__} {name}"] = str(error)
torch.save(seen, f"seen-{'offline' if offline else 'online'}.pt")
"""

# the two lines of Python, where our package is not installed: from a run's folder, and from the Hub after a change
PUSHER = """
import sys
sys.modules["modeling_sere"] = sys.modules["model_card"] = None
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForAudioClassification
model = AutoModelForAudioClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
model.push_to_hub("org/from-folder", private=True)
model = AutoModelForAudioClassification.from_pretrained("org/sere-de", revision="v1", trust_remote_code=True)
torch.nn.init.zeros_(model.classifier.weight)
model.push_to_hub("org/changed")
for name in ("org/from-folder", "org/changed", "org/sere-de"):
    ModelCard.load(name).validate()
"""

# each case: what is refused before any work is done
REFUSALS = """
import json, os
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.reporting.hub import Destination
from modeling_sere.training.running.models import load_checkpoint
cases = json.load(open("cases.json"))
said = []
for token, repo_id, private, tag in cases:
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        Destination(repo_id, private, tag).prepare()
    except ValueError as error:
        said.append(f"{type(error).__name__}: {error}")
os.environ["HF_TOKEN"] = cases[-1][0]
for name in ("org/pickled", "org/tiny-encoder", "org/absent"):
    try:
        load_checkpoint(SereArguments(model=name))
    except ValueError as error:
        said.append(f"{type(error).__name__}: {error}")
for options in ({}, {"config": "de"}, {"config": "de", "split": "test"}):
    if "split" in options:
        del os.environ["HF_TOKEN"]
    try:
        load_corpus("org/speech", **options)
    except ValueError as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""


class World:
    """The Hub, a folder per person and what they left there."""

    def __init__(self, server: HubServer, root: Path):
        self.hub, self.root = server, root

    def run(self, person: str, *command: str, token: str | None = TOKEN, status: int = 0, **variables) -> str:
        """Output of a fresh process; its caches are those of the person."""
        folder = self.root / person
        folder.mkdir(exist_ok=True)
        names = {"HOME": str(folder), "USER": "anneliese", "LOGNAME": "anneliese", "OMP_NUM_THREADS": "1"}
        environment = self.hub.environment(folder / "hf", token, **names, PYTHONPATH=str(ROOT), **variables)
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr[-4000:]
        return done.stdout if status == 0 else done.stderr

    def train(self, person: str, *launcher: str, **options) -> Path:
        """The output folder of a run of train_sere.py."""
        out = self.root / person / options.pop("output_dir", "out")
        flags = {"shots": 2, "draws": 2, "report_to": "none", "cache_dir": self.root / "features", "output_dir": out}
        flags = [f"--{name}={value}" for name, value in (flags | options).items()]
        (self.root / person).mkdir(exist_ok=True)
        torch.save(clips(), self.root / person / "given.pt")
        self.run(person, *(launcher or ("-c", TRAINER, str(ROOT))), *flags)
        return out


def clips() -> list[torch.Tensor]:
    return [torch.from_numpy(voice(emotion, 1, 77 + k)) for k, emotion in enumerate(SOUNDS)]


def rows(language: str, seed: int, count: int = 3) -> Dataset:
    """Clips of three emotions and two speakers as most speech datasets on the Hub have them: bytes in parquet."""
    emotions, table = list(SOUNDS), {"audio": [], "emotion": [], "speaker": [], "language": []}
    for k, emotion in enumerate(emotions):
        for speaker in range(2):
            for number in range(count):
                samples = voice(emotion, speaker, 1000 * seed + number, 0.4 + 0.1 * (number % 2))
                table["audio"].append({"bytes": wav(samples), "path": f"aufnahme{k}{speaker}{number}.wav"})
                table["emotion"].append(k)
                table["speaker"].append(f"sprecherin{speaker}")
                table["language"].append(language)
    plain = Features({
        "audio": {"bytes": Value("binary"), "path": Value("string")}, "emotion": ClassLabel(names=emotions),
        "speaker": Value("string"), "language": Value("string"),
    })  # fmt: skip
    return Dataset.from_dict(table, features=plain).cast_column("audio", Audio(sampling_rate=16000, decode=False))


@pytest.fixture(scope="module")
def world(tmp_path_factory, encoder_config):
    """A private dataset with several configurations and splits, and a tiny encoder, are on the Hub already."""
    root = tmp_path_factory.mktemp("world")
    with HubServer(USERS) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        api = HfApi(endpoint=server.endpoint, token=TOKEN)
        for path, data in {
            "de/train": rows("de", 1), "de/test": rows("de", 2, 1), "it/train": rows("it", 3),
        }.items():  # fmt: skip
            (root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
            data.to_parquet(root / "data" / f"{path}.parquet")
        (root / "data" / "README.md").write_text(DATA_CARD)
        api.create_repo(DATA, repo_type="dataset", private=True)
        api.upload_folder(repo_id=DATA, repo_type="dataset", folder_path=root / "data")
        torch.manual_seed(0)
        AutoModel.from_config(encoder_config("wav2vec2")).save_pretrained(root / "encoder")
        Wav2Vec2FeatureExtractor().save_pretrained(root / "encoder")
        (root / "encoder" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny encoder\n")
        api.create_repo("org/tiny-encoder")
        api.upload_folder(repo_id="org/tiny-encoder", folder_path=root / "encoder")
        patch.undo()  # the tests themselves speak to the Hub from other processes
        yield World(server, root)


@pytest.fixture(scope="module")
def german(world) -> Path:
    """The run that pushed org/sere-de, tag v1: from the German configuration to the Italian one."""
    return world.train(
        "pusher", source=DATA, source_config="de", source_split="train", target=DATA, target_config="it",
        encoder="org/tiny-encoder", push_to_hub=True, hub_model_id="org/sere-de", hub_private=True,
        hub_revision_tag="v1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapted(world, german) -> Path:
    """The run that pushed org/sere-de-test: on another split, streamed, without source data, from the Hub's model."""
    launcher = "-m", "accelerate.commands.launch", "--num_processes=1", str(ROOT / "train_sere.py")
    return world.train(
        "adapter", *launcher, model="org/sere-de", target=DATA, target_config="de", target_split="test",
        streaming=True, push_to_hub=True, hub_model_id="org/sere-de-test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def second(world, german) -> dict:
    """A second push to org/sere-de, of changed code and weights: broken off once, then repeated as it was told."""
    folder = shutil.copytree(german, world.root / "changed")
    code = (folder / "modeling_sere.py").read_text()
    line = "logits = self.classify(base.embeddings)"
    assert code.count(line) == 1
    changed = code.replace(line, "logits = 7 + 0 * self.classify(base.embeddings)")
    (folder / "modeling_sere.py").write_text(changed)
    weights = load_file(folder / "model.safetensors")
    weights |= {name: tensor + 1 for name, tensor in weights.items() if name.startswith("classifier.")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    shutil.rmtree(folder / "plots")
    (folder / "plots").mkdir()
    before = world.hub.files("org/sere-de")
    world.hub.fail(HubServer.COMMIT)
    push = ["-m", "modeling_sere.training.reporting.hub", str(folder), "org/sere-de", "--private", "--tag", "v2"]
    error = world.run("pusher", *push, status=1)
    world.hub.heal()
    untouched = world.hub.files("org/sere-de") == before
    return {"error": error, "untouched": untouched, "output": world.run("pusher", *push), "folder": folder}


CASES = [
    ("org/sere-de", {"revision": "v1"}),
    ("org/sere-de", {"revision": "v1", "code_revision": "v1"}),
    ("org/sere-de", {"code_revision": "v1"}),
    ("org/sere-de", {}),
    ("org/sere-de-test", {}),
]


@pytest.fixture(scope="module")
def pickled(world, german) -> str:
    """The first push with its weights as pytorch_model.bin, which nobody should come to unpickle."""
    files = dict(world.hub.repository("org/sere-de").at("v1").files)
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    world.hub.create("org/pickled").commit("main", files, "a pickle", "", "org")
    return "org/pickled"


@pytest.fixture(scope="module")
def pulled(world, german, adapted, second, pickled) -> dict:
    """What somebody with a token saw of all of it, and saw again from the cache while the Hub was not asked."""
    (world.root / "puller").mkdir()
    torch.save(clips(), world.root / "puller" / "given.pt")
    world.run("puller", "-c", PULLER, json.dumps(CASES))
    count = len(world.hub.requests)
    world.run("puller", "-c", PULLER, json.dumps(CASES), token=None, HF_HUB_OFFLINE="1")
    seen = {name: torch.load(world.root / "puller" / f"seen-{name}.pt") for name in ("online", "offline")}
    return seen | {"asked": len(world.hub.requests) - count}


def card(world, repo_id: str, revision: str = "main") -> ModelCard:
    return ModelCard(world.hub.files(repo_id, revision)["README.md"].decode())


# Push


def test_one_commit_and_a_tag_with_exactly_the_documented_files(world, german):
    repository = world.hub.repository("org/sere-de")
    assert set(world.hub.files("org/sere-de", "v1")) == PUSHED
    titles = [commit.title for commit in repository.history("v1")]
    assert titles == ["SERE model, code and card", "initial commit"]
    assert repository.private
    documented = (ROOT / "docs" / "hub.md").read_text()
    assert not [name for name in PUSHED if name not in documented]


def test_no_path_user_name_token_or_training_state_in_any_file(world, german, adapted):
    places = [str(world.root), str(ROOT), str(Path.home())]
    secrets = [*places, "anneliese", TOKEN, "sprecherin", "aufnahme", "train[", "optimizer."]
    for repo_id, revision in (("org/sere-de", "v1"), ("org/sere-de-test", "main")):
        for name, content in world.hub.files(repo_id, revision).items():
            assert not [secret for secret in secrets if secret.encode() in content], (repo_id, name)


def test_no_path_user_name_or_token_in_anything_saved(world, german, adapted):
    """Here files and speakers may be named: results.json stays with its owner."""
    secrets = [str(world.root), str(ROOT), str(Path.home()), "anneliese", TOKEN]
    for folder in (german, adapted):
        saved = [path for path in folder.rglob("*") if path.is_file()]
        assert folder / "results.json" in saved and folder / "model.safetensors" in saved
        for path in saved:
            content = str(path.relative_to(folder)).encode() + path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


def test_card_is_complete_and_reads_back(world, german):
    found = card(world, "org/sere-de", "v1")
    assert ModelCard(str(found)).data.to_dict() == found.data.to_dict()
    data, results = found.data, json.loads((german / "results.json").read_text())
    assert (data.pipeline_tag, data.library_name) == ("audio-classification", "transformers")
    assert data.language == ["de", "it"]
    assert (data.datasets, data.base_model, data.license) == ([DATA], "org/tiny-encoder", "cc-by-4.0")
    over = next(result for result in data.eval_results if "mean over" in result.metric_name)
    assert over.metric_args["draws"] == 2 and over.metric_value == results["spread"]["uar_mean"]
    assert over.dataset_name == DATA
    assert 'model="org/sere-de"' in found.text and "path/to/this/folder" not in found.text


def test_python_way_gives_a_complete_repository(world, german):
    world.run("python", "-c", PUSHER, str(german))
    assert set(world.hub.files("org/from-folder")) == PUSHED
    assert set(world.hub.files("org/changed")) == SAVED | {"README.md", ".gitattributes"}
    assert world.hub.repository("org/from-folder").private
    # the same weights keep their card and its results; changed ones have none
    assert card(world, "org/from-folder").data.eval_results == card(world, "org/sere-de", "v1").data.eval_results
    changed = card(world, "org/changed")
    assert changed.data.base_model == "org/sere-de" and not changed.data.eval_results
    assert "not measured" in changed.text
    auto_map = json.loads(world.hub.files("org/changed")["config.json"])["auto_map"]
    assert auto_map["AutoModel"] == "modeling_sere.SereModel"


def test_what_would_stop_a_push_is_said_before_the_work(world, pickled):
    world.hub.create("org/public")
    world.hub.repository("org/public").tags["v1"] = world.hub.repository("org/public").branches["main"]
    cases = {
        "run `hf auth login` or set HF_TOKEN": (None, "org/x", False, None),
        "the Hub refuses the token": ("hf_wrong", "org/x", False, None),
        "the token of anneliese may only read": (READER, "org/x", False, None),
        "org/x belongs to org, where bo may not write: choose a name under bo": (STRANGER, "org/x", False, None),
        "org/public belongs to org, where bo may not write": (STRANGER, "org/public", False, None),
        "org/public exists and is public": (TOKEN, "org/public", True, None),
        "org/public already has the tag v1": (TOKEN, "org/public", False, "v1"),
        "the Hub forbids writing to org/x: give the token that right": (TOKEN, "org/x", False, None),
        "the Hub answers 500 (Injected failure)": (TOKEN, "org/x", False, None),
    }
    creation = r"POST /api/repos/create"  # the two before come to this point too
    world.hub.fail(creation, after=2, times=1, status=403)  # as to a token for other repositories
    world.hub.fail(creation, after=2, times=1, status=500)
    (world.root / "refused").mkdir()
    (world.root / "refused" / "cases.json").write_text(json.dumps(list(cases.values())))
    repositories = set(world.hub.repositories)
    said = json.loads(world.run("refused", "-c", REFUSALS))
    world.hub.heal()
    expected = [*cases, "pickle", "org/tiny-encoder is of type wav2vec2, not a SERE model", "--model org/absent cannot"]
    expected += ["there is no folder org/speech here", "org/speech has the splits train, test: choose one"]
    expected += ["it does not exist, or is private: check the name, or run `hf auth login`"]
    assert len(said) == len(expected)
    assert "Config name is missing" in said[-3] and "'de'" in said[-3] and "--source_config" in said[-3]
    for sentence, part in zip(said, expected, strict=True):
        assert sentence.startswith("RunError: ") and part in sentence and "\n" not in sentence
    assert set(world.hub.repositories) == repositories


def test_no_network_is_one_sentence_and_nothing_is_written(world, tmp_path):
    flags = ["--push_to_hub", "--hub_model_id=org/x", f"--output_dir={tmp_path / 'out'}"]
    error = world.run("offline", str(ROOT / "train_sere.py"), *flags, status=1, HF_ENDPOINT="http://127.0.0.1:9")
    last = error.strip().splitlines()[-1]
    assert last.startswith("train_sere.py: the Hub at http://127.0.0.1:9 cannot be used: ") and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_broken_push_leaves_both_sides_whole_and_says_how_to_go_on(world, second):
    sentence = second["error"].strip().splitlines()[-1]
    assert f"; the result is whole in {second['folder']}, push it later with: python -m modeling_sere" in sentence
    assert sentence.endswith("org/sere-de --private --tag v2") and "Traceback" not in second["error"]
    assert second["untouched"]
    assert second["output"] == f"Pushed to {world.hub.endpoint}/org/sere-de\n"
    pushed = world.hub.files("org/sere-de", "v2")
    assert set(pushed) == PUSHED - {"plots/confusion.png", "plots/highlights.png"}  # what is no longer true is gone
    assert b"7 + 0 *" in pushed["modeling_sere.py"]


@pytest.mark.parametrize("trap", ["link", "link to the environment", "pipe"])
@pytest.mark.parametrize("name", ["README.md", "plots", "config.json", "extra_sere.py", "model.safetensors"])
def test_no_link_and_no_pipe_of_a_run_s_folder_is_pushed(make_model, tmp_path, name, trap):
    folder = tmp_path / "run"
    make_model().save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    (tmp_path / "secret.txt").write_text(SECRET)
    (folder / name).unlink(missing_ok=True)
    TRAPS[trap](folder / name, tmp_path / "secret.txt")
    with pytest.raises(RunError, match=f"{name} is (a link|not a f)") as caught:
        hub.Destination("org/x").content(folder)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("lacking", ["README.md", "config.json", "model.safetensors"])
def test_a_folder_without_its_card_or_its_weights_is_not_pushed(make_model, tmp_path, lacking):
    make_model().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(CARD)
    assert b"org/x" in hub.Destination("org/x").content(tmp_path)["README.md"]
    (tmp_path / lacking).unlink()
    with pytest.raises(RunError, match=f"has no {lacking}: give the output folder of a finished run"):
        hub.Destination("org/x").content(tmp_path)


def test_only_a_finished_run_can_be_pushed_later(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["hub", str(tmp_path), "org/x"])
    with pytest.raises(SystemExit, match="holds no finished run: give the --output_dir of one"):
        hub.main()


# Pushed to by several, or again


@pytest.fixture
def here(monkeypatch):
    """A Hub for this process, with the repository org/x."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer(USERS) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        server.create("org/x")
        yield server


@pytest.fixture
def folder(tmp_path):
    """(name, *more) -> something like the output folder of a run: its files, and `more`, hold its name."""

    def folder(name: str, *more: str) -> Path:
        for file in ("README.md", "config.json", "model.safetensors", "results.json", *more):
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(_of_its_form(file, name))
        return tmp_path / name

    return folder


def _of_its_form(file: str, text: str) -> bytes:
    """The smallest file of a run under this name that holds a text."""
    forms = {
        ".md": CARD.encode() + text.encode(),
        ".json": json.dumps({"name": text}).encode(),
        ".safetensors": save({text: torch.zeros(1)}, {"format": "pt"}),
        ".py": f"# {text}\n".encode(),
        ".png": png((b"tEXt", text.encode())),
    }
    return forms[Path(file).suffix]


def test_two_push_to_one_repository_at_once(here, folder, monkeypatch):
    """Both have looked at the repository before one of them commits; the later commit is whole, no mixture."""
    folders = [folder("one", "plots/confusion.png", "old_sere.py"), folder("two", "new_sere.py")]
    both, operations = threading.Barrier(2), hub.Destination._operations
    seen = set()

    def together(*arguments):
        found = operations(*arguments)
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait(30)
        return found

    monkeypatch.setattr(hub.Destination, "_operations", together)
    with ThreadPoolExecutor(2) as threads:
        tags = ("v1", "v2")
        pushes = [
            threads.submit(hub.Destination("org/x", tag=tag).push, place)
            for tag, place in zip(tags, folders, strict=True)
        ]
        assert [push.result(60) for push in pushes] == [f"{here.endpoint}/org/x"] * 2
    assert len(here.repository("org/x").history("main")) == 3  # the first commit is the Hub's
    for tag, place in zip(tags, folders, strict=True):
        pushed = here.files("org/x", tag)
        assert set(pushed) == {".gitattributes", *(file for file in files(place) if file != "results.json")}
        assert all(place.name.encode() in pushed[file] for file in pushed if file != ".gitattributes")
    assert here.files("org/x") in [here.files("org/x", tag) for tag in tags]


def files(place: Path) -> list[str]:
    return [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]


def test_push_that_others_keep_overtaking_is_one_sentence(here, folder, monkeypatch):
    monkeypatch.setattr(hub.time, "sleep", lambda _: None)
    operations = hub.Destination._operations

    def overtaken(*arguments):
        repository = here.repository("org/x")
        repository.commit("main", dict(repository.at("main").files), "another", "", "somebody")
        return operations(*arguments)

    monkeypatch.setattr(hub.Destination, "_operations", overtaken)
    with pytest.raises(RunError, match=r"the Hub answers 412 \(A commit has happened since.*push it later with: "):
        hub.Destination("org/x").push(folder("one"))
    assert [commit.title for commit in here.repository("org/x").history("main")].count(hub.MESSAGE) == 0


def test_push_killed_at_any_request_is_repeated(here, folder, monkeypatch):
    """The same files and the same tag once more, after the commit or the tag had come through or not."""
    place = folder("one")
    for number, kind in enumerate((HubServer.COMMIT, r"POST \S+/tag/", None)):
        repo_id = f"org/again{number}"
        here.create(repo_id)
        destination = hub.Destination(repo_id, tag="v1")
        if kind:
            here.fail(kind, status=400)
        with pytest.raises(RunError, match="Injected failure") if kind else nullcontext():
            destination.push(place)
        here.heal()
        destination.prepare(again=True)
        destination.push(place)
        titles = [commit.title for commit in here.repository(repo_id).history("v1")]
        assert titles == [hub.MESSAGE, "initial commit"]
    with pytest.raises(RunError, match="already has the tag v1: choose another --hub_revision_tag"):
        destination.prepare()
    with pytest.raises(RunError, match="already has the tag v1: choose another.* is pushed and has no tag"):
        destination.push(folder("two"))
    assert b"one" in here.files(repo_id, "v1")["config.json"]


def test_predictions_are_pushed_only_if_asked_for_and_go_again(here, folder):
    place = folder("one")
    with pytest.raises(RunError, match="has no predictions.csv: leave --push_predictions out"):
        hub.Destination("org/x", predictions=True).push(place)
    (place / "secret.txt").write_text("secret")
    for secret in ("copied", "linked"):
        (place / "predictions.csv").unlink(missing_ok=True)
        if secret == "linked":
            (place / "predictions.csv").symlink_to(place / "secret.txt")
        else:
            (place / "predictions.csv").write_text("secret")
        with pytest.raises(RunError, match="predictions.csv is"):
            hub.Destination("org/x", predictions=True).push(place)
    (place / "predictions.csv").unlink()
    (place / "predictions.csv").write_text("file,emotion,score,score_anger\n")
    for asked in (True, False):
        hub.Destination("org/x", predictions=asked).push(place)
        pushed = set(here.files("org/x"))
        assert ("predictions.csv" in pushed) == asked and "results.json" not in pushed


# Pull


def test_loads_by_name_with_the_logits_of_the_trainer(world, pulled):
    trained = torch.load(world.root / "pusher" / "trained.pt")
    seen = pulled["online"]
    for case in ("org/sere-de revision=v1", "org/sere-de revision=v1 code_revision=v1"):
        torch.testing.assert_close(seen["logits"][case], trained, atol=1e-5, rtol=0)
    assert seen["classes"] == ["SereModel", "SereForAudioClassification", "SerePipeline"]
    scores = {entry["label"]: entry["score"] for entry in seen["scores"]["org/sere-de revision=v1"]}
    expected = dict(zip(sorted(SOUNDS), trained[0].softmax(1)[0].tolist(), strict=True))
    assert scores == pytest.approx(expected, abs=1e-5)
    assert seen["base"]["org/sere-de revision=v1"].shape[0] == 1


def test_pinned_revision_runs_the_first_code_after_a_second_push(pulled):
    seen = pulled["online"]
    newest, first, mixed = (
        seen["logits"][f"org/sere-de{pin}"] for pin in ("", " revision=v1", " code_revision=v1")
    )  # fmt: skip
    assert all(bool((logits == 7).all()) for logits in newest)
    for kept in (first, mixed):
        assert not any(bool((logits == 7).any()) for logits in kept)
    assert not torch.allclose(torch.cat(first), torch.cat(mixed))  # the first code on the second weights
    assert seen["modules"]["org/sere-de"] != seen["modules"]["org/sere-de revision=v1"]


def test_fine_tune_carries_its_own_code(world, pulled, adapted):
    config = json.loads(world.hub.files("org/sere-de-test")["config.json"])
    assert "--" not in json.dumps(config["auto_map"]) + config["custom_pipelines"]["audio-classification"]["impl"]
    assert set(world.hub.files("org/sere-de-test")) == PUSHED
    module = pulled["online"]["modules"]["org/sere-de-test"]
    assert "sere_hyphen_de_hyphen_test" in module


def test_offline_from_the_cache(pulled):
    assert pulled["asked"] == 0
    for part in ("logits", "base"):
        torch.testing.assert_close(pulled["offline"][part], pulled["online"][part], atol=0, rtol=0)
    assert pulled["offline"]["scores"] == pulled["online"]["scores"]


def test_private_without_a_token_and_a_pickle_are_refused(pulled):
    errors = pulled["online"]["errors"]
    assert len(errors) == 4
    for kind in ("AutoModel", "AutoModelForAudioClassification"):
        assert "org/sere-de is not a local folder" in errors[f"{kind} org/sere-de"]
        assert errors[f"{kind} org/pickled"].startswith("org/pickled has no model.safetensors: SERE reads no other")


# Hub datasets, and adaptation without source data


def test_dataset_of_the_hub_is_read_by_configuration_and_split(german):
    results = json.loads((german / "results.json").read_text())
    assert (results["num_source_clips"], results["num_target_clips"]) == (18, 18)
    assert (results["source"], results["target"]) == (DATA, DATA)
    assert results["labels"] == sorted(SOUNDS) and results["speaker_ids"]
    assert len(results["shot_files"]) == 6 and all(name.startswith("train[") for name in results["shot_files"])


def test_source_free_adaptation_by_name(world, german, adapted):
    results = json.loads((adapted / "results.json").read_text())
    assert results["source_free"] and results["num_source_clips"] == 6 and results["num_target_clips"] == 6
    assert results["spread"] is None and results["base_model"] == "org/sere-de"
    found = card(world, "org/sere-de-test")
    assert (found.data.base_model, found.data.datasets, found.data.license) == ("org/sere-de", [DATA], "cc-by-4.0")
    assert "without source data" in found.text and "holds no audio" in found.text
    assert "draws of the shots" not in found.text
    first, second = (load_file(folder / "model.safetensors") for folder in (german, adapted))
    for name in ("source_embeddings", "source_cues", "source_labels"):
        assert torch.equal(first[name], second[name])
    assert not torch.equal(first["sere.embedding.statistics"], second["sere.embedding.statistics"])
    encoder = [name for name in first if name.startswith("sere.encoder.")]
    assert encoder and all(torch.equal(first[name], second[name]) for name in encoder)

"""Recipes by name, on a dataset of the schema of CAMEO on a Hub on loopback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Audio, Dataset, Features, Value
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModel, Wav2Vec2FeatureExtractor

from modeling_sere.training.arguments import RECIPES, parse_arguments
from modeling_sere.training.errors import RunError
from modeling_sere.training.reporting.results import Results, load_results
from testing.corpora import SOUNDS, voice, wav
from testing.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]
TOKEN, CAMEO = "hf_recipes", "amu-cai/CAMEO"
NAMES = sorted(path.stem for path in RECIPES.glob("*.json"))
LANGUAGES = {
    "cafe": "French", "crema_d": "English", "emozionalmente": "Italian", "enterface": "English", "mesd": "Spanish",
    "nemo": "Polish", "oreau": "French", "pavoque": "German", "ravdess": "English", "resd": "Russian",
    "subesco": "Bengali",
}  # fmt: skip
TEXTS = ("file_id", "emotion", "transcription", "speaker_id", "gender", "age", "dataset", "language", "license")

# train_sere.py for one recipe after the other, as its flags say but for what makes it quick
RUNNER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import train_sere
runs, table = map(json.loads, sys.argv[2:])
for name, *flags in runs:
    sys.argv = ["train_sere.py", name, *flags]
    train_sere.main()
from benchmarks import crosslingual
crosslingual.run_in_processes = lambda function, tasks: [row for task in tasks for row in function(task)]
sys.argv = ["crosslingual", *table]
crosslingual.main()
"""


def rows(split: str, seed: int) -> Dataset:
    """Clips of three emotions and two speakers with the columns of CAMEO."""
    table = {column: [] for column in ("audio", *TEXTS)}
    for emotion in SOUNDS:
        for speaker in range(2):
            for number in range(3):
                name = f"{split}_{emotion}_{speaker}_{number}.wav"
                audio = wav(voice(emotion, speaker, 1000 * seed + number, 0.4), "PCM_16")
                values = {
                    "audio": {"bytes": audio, "path": name}, "file_id": name, "emotion": emotion, "transcription": "a",
                    "speaker_id": str(speaker), "gender": "female", "age": "30", "dataset": split,
                    "language": LANGUAGES[split], "license": "CC BY-NC-SA 4.0" if split == "nemo" else "CC BY 4.0",
                }  # fmt: skip
                for column, value in values.items():
                    table[column].append(value)
    plain = Features(
        {"audio": {"bytes": Value("binary"), "path": Value("string")}} | {text: Value("string") for text in TEXTS}
    )
    return Dataset.from_dict(table, features=plain).cast_column("audio", Audio(sampling_rate=16000, decode=False))


@pytest.fixture(scope="module")
def results(tmp_path_factory, encoder_config) -> dict[str, Results]:
    """results.json of each recipe, and of one that does not stream."""
    root = tmp_path_factory.mktemp("recipes")
    card = ["---", "configs:", "- config_name: default", "  data_files:"]
    with HubServer({TOKEN: {"name": "amu-cai", "orgs": ["microsoft"]}}) as server:
        api = HfApi(endpoint=server.endpoint, token=TOKEN)
        for seed, split in enumerate(LANGUAGES):
            (root / "data").mkdir(exist_ok=True)
            rows(split, seed).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {split}-*"]
        (root / "data" / "README.md").write_text("\n".join([*card, "---", ""]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            api.create_repo(CAMEO, repo_type="dataset")
            api.upload_folder(repo_id=CAMEO, repo_type="dataset", folder_path=root / "data")
            torch.manual_seed(0)
            AutoModel.from_config(encoder_config("wavlm")).save_pretrained(root / "encoder")
            Wav2Vec2FeatureExtractor().save_pretrained(root / "encoder")
            (root / "encoder" / "README.md").write_text("---\nlicense: mit\n---\n")
            api.create_repo("microsoft/wavlm-base-plus")
            api.upload_folder(repo_id="microsoft/wavlm-base-plus", folder_path=root / "encoder")
        quick = ["--draws=1", "--report_to=none", f"--cache_dir={root / 'cache'}"]
        runs = [[name, *quick, f"--output_dir={root / name}"] for name in NAMES]
        runs.append(["cameo-polish", *quick, "--streaming=false", f"--output_dir={root / 'whole'}"])
        table = ["--corpora", f"{CAMEO}:nemo", f"{CAMEO}:enterface", "--streaming", "--methods=sere,ridge"]
        table += ["--draws=0-0", f"--cache_dir={root / 'cache'}", f"--json={root / 'table.json'}"]
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, str(ROOT), json.dumps(runs), json.dumps(table)],
            capture_output=True, text=True, cwd=root,
            env=server.environment(root / "hf", TOKEN, OMP_NUM_THREADS="1"), timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    found = {name: load_results(root / name) for name in [*NAMES, "whole"]}
    found["table"] = json.loads((root / "table.json").read_text())
    return found | {"card": ModelCard.load(root / "sere-wavlm" / "README.md")}


def test_every_recipe_runs(results):
    assert len(NAMES) == 9
    for name in NAMES:
        found = results[name]
        assert (found["source"], found["target"], found["base_model"]) == (CAMEO, CAMEO, "microsoft/wavlm-base-plus")
        assert found["labels"] == sorted(SOUNDS) and found["speaker_ids"] and found["uar"] is not None
        assert found["same_audio_in_both"] == [], "source and target share a split"


def test_streaming_gives_what_a_download_gives(results):
    streamed, whole = results["cameo-polish"], results["whole"]
    for key in ("shot_files", "confusion", "uar", "target_language", "licenses_of_clips"):
        assert streamed[key] == whole[key]
    assert (streamed["source_language"], streamed["target_language"]) == ("English", "Polish")
    assert streamed["target_license"] == "cc-by-nc-sa-4.0"


def test_the_model_of_several_languages(results):
    found, card = results["sere-wavlm"], results["card"]
    assert found["shots"] == 20 and found["num_source_clips"] == 6 * 18 and found["num_target_clips"] == 4 * 18
    languages = {"English", "Italian", "Polish", "French", "Spanish", "Bengali"}
    assert set(found["source_language"].split(", ")) == languages
    assert found["licenses_of_clips"]["source"] == {"cc-by-4.0": 90, "cc-by-nc-sa-4.0": 18}
    assert card.data.license == "cc-by-nc-sa-4.0" and {"en", "it", "pl", "fr", "es", "bn", "ru"} <= {
        *card.data.language
    }
    assert "| source | cc-by-nc-sa-4.0 | 18 |" in card.text and card.data.datasets == [CAMEO]


def test_the_table_of_the_benchmark_takes_splits(results):
    assert results["table"]["meta"]["corpora"] == ["nemo", "enterface"]
    tasks = {(row["source"], row["target"]) for row in results["table"]["rows"]}
    assert tasks == {("nemo", "enterface"), ("enterface", "nemo")}


def test_flags_win_over_a_recipe_and_unknown_names_are_told():
    assert parse_arguments(["cameo-polish", "--shots", "3", "--encoder", "none"]).shots == 3
    assert parse_arguments(["cameo-polish"]).target_split == "nemo"
    with pytest.raises(RunError, match="there is no recipe 'cameo': there are cameo-bengali, .*, sere-wavlm; a file"):
        parse_arguments(["cameo", "--shots", "3"])

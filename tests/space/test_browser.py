"""The page in a real Chromium: what visitors see, what leaves their machine (nothing), and how long it takes.

Needs node, the packages of space/package.json (`npm ci --prefix space`) and Chromium; skips without them.
"""

import json
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from modeling_sere import SereConfig, SereForAudioClassification, space
from modeling_sere.embedding_sere import moments
from modeling_sere.modeling_sere import feature_extractor
from modeling_sere.pipeline_sere import SerePipeline
from modeling_sere.training.errors import RunError

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
EMOTIONS = ["anger", "fear", "happiness", "neutral", "sadness", "surprise"]
RATE = 16_000
CLIPS = sorted((ROOT / "samples/polish").glob("*.flac"))
OFFERED = CLIPS[::6]


def reason_to_skip() -> str | None:
    if find_spec("onnxscript") is None:
        return 'needs onnxscript (pip install -e ".[export]")'
    if shutil.which("node") is None:
        return "needs node"
    if CHROMIUM is None:
        return "needs Chromium (apt-get install chromium, or its path as CHROMIUM)"
    if not (ROOT / "space/node_modules/playwright-core").is_dir():
        return "needs the packages of space/package.json (npm ci --prefix space)"
    try:
        space.runtime_package()
    except RunError as error:
        return str(error)
    return None


SKIP = reason_to_skip()
pytestmark = pytest.mark.skipif(SKIP is not None, reason=str(SKIP))


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


@pytest.fixture(scope="module")
def model():
    """A model that tells clips apart, with the statistics of the Polish clips in two voice groups."""
    torch.manual_seed(0)
    model = SereForAudioClassification(SereConfig(id2label=dict(enumerate(EMOTIONS)))).eval()
    torch.nn.init.normal_(model.classifier.weight)
    embedding = model.sere.embedding
    with torch.inference_mode():
        features = torch.cat([model(torch.from_numpy(read(clip))[None]).features for clip in CLIPS[::4]])
        embedding.statistics.copy_(torch.stack([moments(features), moments(features * 1.02)]))
        embedding.voice_weight[0] = torch.tensor([1.0, -1.0])
        embedding.voice_bias.copy_(torch.tensor([-1.0, 1.0]) * features[:, 0].mean())
        embedding.cue_std.copy_(embedding.raw_cues(embedding.standardised(features)).std(0))
    return model


@pytest.fixture(scope="module")
def page(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    model.save_pretrained(folder / "model")
    space.build(str(folder / "model"), folder / "page", "org/sere-polish", OFFERED, "cc-by-nc-sa-4.0")
    return folder / "page"


@pytest.fixture(scope="module")
def sounds() -> dict[str, np.ndarray]:
    noise = 0.05 * np.random.default_rng(0).standard_normal(2 * RATE)
    return {
        "microphone": np.concatenate([read(clip) for clip in CLIPS[:3]]),
        "silence": np.zeros(RATE, np.float32),
        "noise": noise.astype(np.float32),
        "long": np.resize(np.concatenate([read(clip) for clip in CLIPS[::3]]), 33 * RATE),
        **{f"clip{k}": read(clip) for k, clip in enumerate(CLIPS[:3])},
    }


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing on stderr."""


@pytest.fixture(scope="module")
def visit(page, sounds, tmp_path_factory) -> tuple[dict, Path]:
    """What one visit brought: outcome.json, and the folder of all that it left."""
    folder = tmp_path_factory.mktemp("visit")
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(folder / "microphone.wav", sounds["microphone"], RATE, subtype="PCM_16")
    (folder / "broken.wav").write_bytes(b"RIFF: no sound at all")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(page)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = ["node", "tests/browser.js", f"http://127.0.0.1:{server.server_port}/", str(folder)]
    environment = os.environ | {"CHROMIUM": CHROMIUM}
    try:
        done = subprocess.run(
            command, cwd=ROOT / "space", env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr[-3000:]
    if kept := os.environ.get("SPACE_PICTURES"):
        for picture in folder.glob("*.png"):
            shutil.copy(picture, kept)
    return json.loads((folder / "outcome.json").read_text(encoding="utf-8")), folder


@pytest.fixture(scope="module")
def classifier(model) -> SerePipeline:
    return SerePipeline(model=model, feature_extractor=feature_extractor(), device="cpu")


def scores(answer: list[dict]) -> dict[str, float]:
    return {item["label"]: pytest.approx(item["score"], abs=1e-3) for item in answer}


def test_scores_are_those_of_python(visit, classifier):
    seen = visit[0]["scores"]
    for clip in OFFERED:
        assert seen[clip.stem] == scores(classifier(str(clip))), clip.stem
    assert len({max(seen[clip.stem], key=seen[clip.stem].get) for clip in OFFERED}) > 1


def test_a_long_recording_is_heard_in_windows(visit, classifier, sounds):
    timeline = classifier(sounds["long"], return_timestamps=True)
    assert visit[0]["scores"]["long"] == scores(timeline["scores"])
    assert visit[0]["windows"] == len(timeline["chunks"])


def test_an_enrolled_voice_is_that_of_python_and_can_be_forgotten(visit, classifier, sounds):
    seen, texts = visit[0]["scores"], visit[0]["texts"]
    earlier = [sounds["clip1"], sounds["clip2"]]
    assert seen["enrolled"] == scores(classifier(sounds["clip0"], speaker_clips=earlier))
    assert seen["forgotten"] == scores(classifier(sounds["clip0"]))
    assert seen["enrolled"] != {key: pytest.approx(value, abs=1e-2) for key, value in seen["forgotten"].items()}
    assert texts["noVoice"] == texts["forgotten"] == "No voice is enrolled."
    assert texts["enrolled"] == "Enrolled: 2 clips." and texts["enrolledWords"].endswith("usual for this voice")


def test_nothing_leaves_the_machine(visit):
    outcome, _ = visit
    origins = {url.partition("127.0.0.1")[0] for url in outcome["requests"]}
    assert origins <= {"http://", "blob:http://"} and len(outcome["requests"]) > 20
    assert outcome["escape"] == "refused" and outcome["blocked"] == []
    assert outcome["console"] == [] and outcome["errors"] == []


def test_the_microphone_is_opened_by_a_click_only(visit):
    outcome, _ = visit
    assert outcome["openedBefore"] == 0 and outcome["opened"] == 1
    assert outcome["texts"]["recording"].startswith("Recording …")
    assert outcome["texts"]["live"].removeprefix("Recording … ") in EMOTIONS
    assert sum(outcome["scores"]["microphone"].values()) == pytest.approx(1)


def test_silence_noise_and_what_is_no_sound_are_called_so(visit):
    texts = visit[0]["texts"]
    assert texts["silence"] == "Silence: nothing is to be heard."
    assert texts["noise"] == "Noise: no voice is to be heard, so the scores say nothing."
    assert texts["broken"].strip() == "broken.wav cannot be read: this browser does not decode it."


def test_axe_finds_nothing(visit):
    found = visit[0]["axe"]
    assert {"empty", "en", "de", "pl", "it", "zh", "light", "dark", "phone"} == set(found)
    assert {state: list_ for state, list_ in found.items() if list_} == {}


def test_five_languages_and_a_phone(visit):
    outcome, _ = visit
    assert [told[1] for told in outcome["languages"].values()] == list(outcome["languages"])
    assert len({told[0] for told in outcome["languages"].values()}) == 5
    assert set(outcome["width"].values()) == {0}  # nothing to scroll sideways


def test_clips_are_a_table_that_sorts_and_can_be_kept(visit, page):
    outcome, folder = visit
    assert outcome["texts"]["highest"] == "silence.wav" and outcome["texts"]["sorting"] == "descending"
    header, *lines = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert header == ",".join(["file,emotion,score", *(f"score_{name}" for name in EMOTIONS), "strongest,error"])
    assert len(lines) == len(OFFERED) + 8
    assert [line.split(",")[1] for line in lines if line.startswith(("silence", "noise"))] == ["silence", "noise"]


def test_sizes_and_speed(visit, page):
    outcome, _ = visit
    own = [path for path in page.rglob("*") if path.is_file() and path.parent.name != "samples"]
    assert sum(path.stat().st_size for path in own) < 6e6
    assert outcome["seconds"]["first"] < 3
    assert 33 / min(outcome["seconds"]["long"]) > 5  # on a machine that does other things too

"""What makes a run this one: every argument that decides the result, every clip, every weight."""

from dataclasses import asdict, replace

import pytest
import torch

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.corpus import Clip
from modeling_sere.training.running import identity

CLIPS = [Clip(0, "a.wav", "anger", "x"), Clip(1, "b.wav", None, None), Clip(2, "c.wav", "fear", "\ud800")]
KEYS = ["1", "2", "3"]


def of(clips=CLIPS, keys=KEYS) -> dict:
    return {"target": identity.of_clips(clips, keys)}


def test_arguments_by_name():
    one = {"arguments": identity.of_arguments(SereArguments())}
    assert set(one["arguments"]) == {*asdict(SereArguments())} - {*identity.FREE}
    other = SereArguments(seed=3, target="elsewhere", output_dir="x", resume=True, report_to="none")
    found = identity.differences(one, {"arguments": identity.of_arguments(other)})
    assert found == ["arguments (--seed, --target)"]
    assert identity.differences(one, one) == []


@pytest.mark.parametrize(
    ("clips", "keys"),
    [
        (CLIPS[::-1], KEYS[::-1]),
        (CLIPS, ["1", "2", "4"]),
        ([replace(CLIPS[0], label="fear"), *CLIPS[1:]], KEYS),
        ([replace(CLIPS[0], label=None), *CLIPS[1:]], KEYS),
        ([replace(CLIPS[0], speaker="y"), *CLIPS[1:]], KEYS),
        (CLIPS[:2], KEYS[:2]),
    ],
)
def test_clips_by_content_label_speaker_and_order(clips, keys):
    assert identity.differences(of(), of()) == []
    (found,) = identity.differences(of(), of(clips, keys))
    told = f"{len(CLIPS)} then, 2 now" if len(clips) == 2 else "content, labels, people or order"
    assert found == f"clips of the target ({told})"


def test_what_is_not_known_yet_is_no_difference():
    assert identity.differences(of(), {}) == identity.differences({}, of() | {"model": "x"}) == []


def test_model_by_every_weight_and_its_configuration(make_model):
    model = make_model("wav2vec2")
    one = identity.of_model(model)
    assert identity.of_model(make_model("wav2vec2")) == one
    with torch.no_grad():
        next(model.sere.encoder.parameters()).view(-1)[0] += 1e-6
    assert identity.differences({"model": one}, {"model": identity.of_model(model)})
    other = make_model("wav2vec2")
    other.config.prior_weight += 1
    assert identity.of_model(other) != one

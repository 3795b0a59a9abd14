"""Refining: what is trained changes, nothing else does, and an interrupted run ends where the others do."""

import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, DistributedType

from modeling_sere import SereForAudioClassification
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.loading import load_corpus
from modeling_sere.training.encoding.features import FeatureExtraction, collate
from modeling_sere.training.encoding.pool import Pool
from modeling_sere.training.errors import RunError
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.refining import checkpoint, refinement
from modeling_sere.training.refining.frame_store import FrameStore
from modeling_sere.training.refining.refinement import Refinement, refine, trainable
from testing.corpora import write_corpus

LABELS = ["anger", "neutral", "sadness"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    return [
        load_corpus(write_corpus(folder / name, clips=2, seed=seed)) for seed, name in enumerate(("ours", "theirs"))
    ]


@pytest.fixture
def run(make_model, corpora, tmp_path):
    """(encoder, steps, ...) -> a refined model; with `stop`, the run dies after that step."""

    def run(encoder="none", steps=4, train_encoder="none", resume=False, stop=None, seen=None, learning_rate=1e-3):
        arguments = SereArguments(
            encoder=encoder, train_encoder=train_encoder, refine_steps=steps, resume=resume, batch_size=6,
            learning_rate=learning_rate,
        )  # fmt: skip
        accelerator = Accelerator(cpu=True)
        model = make_model(encoder, labels=LABELS, num_sources=6, tric_weight=1.0, consistency_weight=0.5)
        pools = []
        for corpus in corpora:
            features = FeatureExtraction(model.sere, accelerator, None)(corpus)
            pools.append(Pool(corpus, features, LABELS, speaker_ids=True))
        shots = pools[0].shots(2, seed=0)
        adaptation = Adaptation(model, pools[0].domain, pools[1].domain)
        adaptation.install(adaptation.organise(shots))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        def log(losses, step):
            if seen is not None:
                seen.append((step, losses))
            if step == stop:
                raise KeyboardInterrupt

        clips = [(pool_corpus, pool.features.indices) for pool_corpus, pool in zip(corpora, pools, strict=True)]
        refine(arguments, accelerator, adaptation, shots, tmp_path / "checkpoint", clips, log)
        return model, before

    return run


def changed(model, before) -> set[str]:
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(tensor.isfinite().all() for tensor in after.values())
    return {name for name in after if not torch.equal(after[name], before[name])}


def in_encoder(names) -> set[str]:
    return {name for name in names if name.startswith("sere.encoder.")}


def test_without_encoder_weights_and_gains_change_and_losses_are_finite(run):
    seen = []
    model, before = run(steps=3, seen=seen)
    assert changed(model, before) == {
        "sere.highlight_weight", "sere.embedding.log_gain",
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    assert [step for step, _ in seen] == [0, 1, 2]
    for _, losses in seen:
        assert set(losses) == {"loss", "loss_classification", "loss_tric", "loss_consistency"}
        assert all(math.isfinite(value) for value in losses.values())
        assert losses["loss_tric"] > 0
        assert losses["loss_consistency"] > 0
    assert not model.training


def test_steps_reduce_the_loss(run):
    seen = []
    run(steps=30, seen=seen, learning_rate=1e-2)
    losses = [values["loss"] for _, values in seen]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_encoder_is_left_alone_unless_it_is_trained(run):
    model, before = run("wav2vec2")
    assert not in_encoder(changed(model, before))
    assert "sere.highlight_weight" in changed(model, before)


def test_full_training_changes_the_encoder(run):
    model, before = run("wav2vec2", steps=2, train_encoder="full")
    names = in_encoder(changed(model, before))
    assert any("feature_extractor" in name for name in names)
    assert any("attention" in name for name in names)


@pytest.fixture
def batch(corpora, make_model):
    clips = list(corpora[0].iter_audio([0, 4, 8, 1, 5, 9]))
    values, mask = collate([clip.waveform for clip in clips], "cpu")
    return {"input_values": values, "attention_mask": mask, "labels": torch.tensor([0, 1, 2, -100, -100, -100])}


def test_adapters_learn_and_are_merged(make_model, batch, encoder_name, tmp_path):
    pytest.importorskip("peft")
    model = make_model(encoder_name, labels=LABELS, tric_weight=1.0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with trainable(model, "lora"):
        learning = {name: p for name, p in model.sere.encoder.named_parameters() if p.requires_grad}
        assert learning
        assert all("lora_" in name for name in learning)
        optimizer = torch.optim.SGD(learning.values(), lr=1.0)
        for _ in range(2):  # the first step moves B only, as B starts at zero
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in learning.values())
        model.eval()
        with torch.no_grad():
            adapted = model(batch["input_values"], batch["attention_mask"]).logits
    names = changed(model, before)
    assert names
    assert names == in_encoder(names)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == gradients
    with torch.no_grad():
        merged = model(batch["input_values"], batch["attention_mask"]).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-3, atol=1e-3)
    model.save_pretrained(tmp_path)
    loaded = SereForAudioClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch["input_values"], batch["attention_mask"]).logits, merged)


def test_adapters_are_removed_after_an_error(make_model):
    pytest.importorskip("peft")
    model = make_model("hubert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), trainable(model, "lora"):
        raise RuntimeError("stop")
    assert not changed(model, before)


@pytest.mark.parametrize(("encoder", "train_encoder"), [("none", "none"), ("wavlm", "lora"), ("wav2vec2", "full")])
def test_resumed_run_ends_where_an_uninterrupted_one_does(run, monkeypatch, encoder, train_encoder):
    if train_encoder == "lora":
        pytest.importorskip("peft")
    monkeypatch.setattr(refinement, "CHECKPOINT_EVERY", 2)
    whole, _ = run(encoder, 5, train_encoder)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, 5, train_encoder, stop=2)
    seen = []
    torch.manual_seed(123)  # another process has another random state
    resumed, _ = run(encoder, 5, train_encoder, resume=True, seen=seen)
    assert [step for step, _ in seen] == [2, 3, 4]
    for name, tensor in resumed.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], rtol=1e-6, atol=1e-6)


def damaged(how: str, checkpoint):
    """Damage a checkpoint as a kill or a bad disk does."""
    weights = checkpoint / "model.safetensors"
    content = weights.read_bytes()
    if how == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        weights.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif how == "half deleted":
        (checkpoint / "optimizer.bin").unlink()
    elif how == "half written":
        checkpoint.rename(checkpoint.with_name("partial"))
    else:
        (checkpoint / "digests.json").write_text("{")


@pytest.mark.parametrize("how", ["truncated", "flipped", "half deleted", "half written", "without digests"])
def test_checkpoint_that_is_not_whole_is_not_resumed_from(run, monkeypatch, tmp_path, how):
    monkeypatch.setattr(refinement, "CHECKPOINT_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        run(steps=5, stop=2)
    damaged(how, tmp_path / "checkpoint" / "2")
    seen = []
    run(steps=3, resume=True, seen=seen)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["2"]  # taken again, in place of the damaged


def test_checkpoint_before_a_damaged_one_is_resumed_from(run, monkeypatch, tmp_path):
    """As when the run was killed before it could delete the one before."""
    monkeypatch.setattr(refinement, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(checkpoint, "_remove", lambda folder: None)
    with pytest.raises(KeyboardInterrupt):
        run(steps=5, stop=2)
    monkeypatch.undo()
    damaged("flipped", tmp_path / "checkpoint" / "2")
    seen = []
    run(steps=3, resume=True, seen=seen)
    assert [step for step, _ in seen] == [1, 2]


def test_adapters_are_not_spread_by_fsdp():
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP)
    arguments = SereArguments(encoder="x", train_encoder="lora", refine_steps=1)
    with pytest.raises(RunError, match="--train_encoder lora cannot be spread by FSDP"):
        refine(arguments, accelerator, None, None, None, [], None)


def test_clip_that_has_become_unusable_is_named(tmp_path, make_model):
    folder = write_corpus(tmp_path / "one", clips=1, speakers=1)
    corpus = load_corpus(folder)
    (folder / corpus.clips[1].name).write_bytes(b"gone")
    with FrameStore(make_model().sere, "cpu") as store, pytest.raises(RunError) as caught:
        store.fill([corpus] * 3, [0, 1, 2], progress=False)
    assert corpus.clips[1].name in str(caught.value) and "add --resume" in str(caught.value)


def test_loss_that_is_not_finite_stops_the_run(run):
    with pytest.raises(RunError, match="--learning_rate"):
        run(steps=5, learning_rate=1e30)


def test_draws_repeat_and_differ_between_processes(make_model):
    model = make_model(labels=LABELS)
    adaptation = SimpleNamespace(
        model=model, target=SimpleNamespace(embeddings=torch.zeros(40, 2)), clip_statistics=lambda: (None, None)
    )
    shots = torch.full((20,), -100)
    shots[:9] = torch.arange(9) % 3

    def drawer(process):
        accelerator = SimpleNamespace(process_index=process, prepare=lambda *things: things)
        arguments = SereArguments(batch_size=8, seed=4)
        return Refinement(adaptation, accelerator, shots, None, arguments)

    first, again, other = drawer(0).draw(7), drawer(0).draw(7), drawer(1).draw(7)
    assert torch.equal(first, again)
    assert torch.equal(first[:8], other[:8])
    assert not torch.equal(first[8:], other[8:])
    assert not torch.equal(first, drawer(0).draw(8))
    assert set(first[:8].tolist()) <= set(range(9))
    assert set(first[8:].tolist()) <= set(range(9, 60))
    assert len(set(first.tolist())) == 16

"""What transformers expects of every model, for what `python -m benchmarks.common_tests` finds out at length."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import common_tests
from modeling_sere import SereForAudioClassification
from modeling_sere.encoder_sere import WINDOW_FRAMES

# ------------------------------------------------------------------------------------------------ outputs


def test_hidden_states_of_every_layer(stream, make_model, clips, pad):
    model = make_model(stream)
    batch = pad(clips)
    with torch.no_grad():
        output = model(*batch, output_hidden_states=True)
        base = model.sere(*batch, output_hidden_states=True)
        plain = model(*batch)
    depth = 0 if stream == "none" else max(model.config.encoder_layers)
    assert plain.hidden_states is None and len(output.hidden_states) == len(base.hidden_states) == depth + 1
    assert all(states.shape[:2] == (5, 65) for states in output.hidden_states)
    assert torch.equal(output.hidden_states[-1][3], base.last_hidden_state[3])  # of the longest clip
    torch.testing.assert_close(output.logits, plain.logits)


@pytest.mark.parametrize(("wanted", "kept"), [([0, -1], {0, 3}), (1, {1}), (0, {0}), ([], set()), ([2, 9], {2})])
def test_some_hidden_states(wanted, kept, make_model, clips, pad):
    with torch.no_grad():
        found = make_model("hubert")(*pad(clips), output_hidden_states=wanted).hidden_states
    assert {index for index, states in enumerate(found) if states is not None} == kept and len(found) == 4


def test_attention_weights(encoder_name, make_model, clips, pad, tmp_path):
    """Of each head, of rows that sum to 1, and none on padding."""
    make_model(encoder_name).save_pretrained(tmp_path)
    model = SereForAudioClassification.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(*pad(clips), output_attentions=True)
    assert len(output.attentions) == max(model.config.encoder_layers)
    for weights in output.attentions:
        assert weights.shape == (5, 4, 65, 65)
        torch.testing.assert_close(weights[0, :, :30].sum(-1), torch.ones(4, 30), atol=1e-4, rtol=0)
        assert weights[0, :, :30, 30:].abs().max() < 1e-6


def test_attention_weights_of_long_clips_are_refused(make_model):
    with pytest.raises(ValueError, match="clips of up to 30 s"):
        make_model("wavlm")(torch.zeros(1, (WINDOW_FRAMES + 1) * 320), output_attentions=True)


def test_hidden_states_of_long_clips(make_model, clips, monkeypatch):
    model = make_model("whisper")
    monkeypatch.setattr("modeling_sere.encoder_sere.WINDOW_FRAMES", 20)
    with torch.no_grad():
        output = model.sere(clips[3][None], output_hidden_states=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(1, 65, 32)] * 4
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


def test_the_configuration_can_ask_for_outputs(make_model, clips, pad):
    model = make_model("wavlm", output_hidden_states=True, return_dict=False)
    output = model(*pad(clips))
    assert isinstance(output, tuple) and torch.is_tensor(output[0]) and any(isinstance(part, tuple) for part in output)


# ------------------------------------------------------------------------------------------------ loading, precision


@pytest.mark.parametrize("wanted", ["eager", "sdpa"])
def test_attn_implementation_reaches_the_encoder(wanted, make_model, clips, pad, tmp_path):
    model = make_model("wav2vec2")
    model.save_pretrained(tmp_path)
    loaded = SereForAudioClassification.from_pretrained(tmp_path, attn_implementation=wanted).eval()
    assert loaded.sere.encoder.model.config._attn_implementation == wanted
    with torch.no_grad():
        torch.testing.assert_close(loaded(*pad(clips)).logits, model(*pad(clips)).logits, atol=1e-4, rtol=0)


def test_what_must_be_precise_is_built_so(stream, make_config, clips, pad):
    config = make_config(stream, num_sources=3)
    model = SereForAudioClassification._from_config(config, dtype=torch.bfloat16).eval()
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for name, kind in kinds.items():
        assert kind == (torch.bfloat16 if ".encoder." in name else torch.float32), name
    assert torch.isfinite(model(*pad(clips)).logits).all()


@pytest.mark.parametrize("encoder", ["none", "wavlm"])
def test_torch_save_without_sources(encoder, make_model, clips, pad, tmp_path):
    """No tensor is empty: tools that reduce over each, as transformers' own tests do, would fail on one."""
    model = make_model(encoder)
    assert model.source_embeddings is None and all(tensor.numel() for tensor in model.state_dict().values())
    torch.save(model.state_dict(), tmp_path / "state.pt")
    model.load_state_dict(torch.load(tmp_path / "state.pt"))
    if encoder == "none":  # weight norms and the hooks by which transformers records outputs are no objects to pickle
        torch.save(model, tmp_path / "whole.pt")
        again = torch.load(tmp_path / "whole.pt", weights_only=False)
        assert torch.equal(again(*pad(clips)).logits, model(*pad(clips)).logits)


def test_checkpoints_with_empty_sources_load(make_model, tmp_path):
    """As models without sources were once written."""
    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {"source_embeddings": torch.zeros(0, 171), "source_labels": torch.zeros(0).long()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = SereForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]


# ------------------------------------------------------------------------------------------------ checkpointing


def test_gradient_checkpointing_without_layers(make_model, clips, pad):
    model = make_model().train()
    model.gradient_checkpointing_enable()
    model(*pad(clips), labels=torch.tensor([0, 1, 2, 0, 1])).loss.backward()
    assert model.classifier.weight.grad.any()


def test_reentrant_checkpoints(encoder_name, make_model, clips, pad):
    """WavLM's layers hand a tensor on beside their input, with which re-entrant checkpoints recurse for ever."""
    model = make_model(encoder_name).train()
    options = {"gradient_checkpointing_kwargs": {"use_reentrant": True}}
    if encoder_name.startswith("wavlm"):
        with pytest.raises(ValueError, match="use_reentrant"):
            model.gradient_checkpointing_enable(**options)
        return
    model.gradient_checkpointing_enable(**options)
    model(*pad(clips), labels=torch.tensor([0, 1, 2, 0, 1])).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# ------------------------------------------------------------------------------------------------ the command

REPORT = """<testsuites><testsuite>
<testcase classname="Test_none" name="test_a"/>
<testcase classname="Test_none" name="test_b"><failure message="no"/></testcase>
<testcase classname="Test_none" name="test_b [SereModel]"/>
<testcase classname="Test_whisper" name="test_a_0"><skipped/></testcase>
<testcase classname="Test_whisper" name="test_model_get_set_embeddings"><failure message="no"/></testcase>
<testcase classname="Test_none" name="test_model_get_set_embeddings"/>
</testsuite></testsuites>"""


def test_outcomes_of_the_common_tests(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert common_tests.judged(common_tests.outcomes(tmp_path / "report.xml")) == {
        ("none", "test_a"): "passed",
        ("none", "test_b"): "failed",
        ("whisper", "test_a_0"): "skipped",
        ("whisper", "test_model_get_set_embeddings"): "exempt",
        ("none", "test_model_get_set_embeddings"): "stale",
    }

"""What others put around modules or in their place takes part: adapters, offloading, device maps, int8 weights."""

import warnings

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.utils import compute_module_sizes
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from modeling_sere import SereForAudioClassification, SereModel

LABELS = torch.tensor([0, 1, -100, -100, 2])


@pytest.fixture
def batch(clips, pad):
    return pad(clips, extra=1000)


@pytest.fixture
def model(stream, make_model):
    return make_model(stream, tric_weight=0.3, consistency_weight=0.3)


def answers(model, batch) -> list[torch.Tensor]:
    """What is asked of a model: logits, a loss, the statistics of a speaker, and logits by these."""
    with torch.no_grad():
        output = model(*batch, labels=LABELS)
        statistics = model.speaker_statistics(*batch)
        return [output.logits, output.loss, statistics, model(*batch, statistics=statistics).logits]


def assert_same(answers, expected, atol=1e-5):
    for one, other in zip(answers, expected, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ adapters


def test_adapters_of_every_linear_layer_take_part(model, batch):
    """Each learns: that of the classifier, and those where WavLM's own attention would read weights past them."""
    layers = [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer.weight.requires_grad
    ]
    assert "classifier" in layers
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=layers, init_lora_weights="gaussian"))
    adapted(*batch, labels=LABELS).loss.backward()
    of_the_keys = ("k_proj", "linear_k")  # the gradient of B alone would be tiny, not zero
    second = {name: p.grad for name, p in adapted.named_parameters() if "lora_B" in name}
    assert len(second) == len(layers)
    assert [
        name for name, gradient in second.items() if not gradient.any() and not any(k in name for k in of_the_keys)
    ] == []


def test_an_adapter_on_the_classifier_changes_the_logits(model, batch):
    plain = answers(model, batch)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["classifier"]))
    assert_same(answers(adapted, batch), plain)
    nn.init.ones_(adapted.base_model.model.classifier.lora_B["default"].weight)
    changed = answers(adapted, batch)
    assert (changed[0] - plain[0]).abs().max() > 0.01
    assert_same(answers(adapted.merge_and_unload(), batch), changed, atol=1e-4)


def test_a_classifier_that_is_saved_with_its_adapters(make_model, batch, tmp_path):
    """`modules_to_save` trains a copy of the head, saved beside the adapters and put on a fresh model again."""
    model = make_model("wavlm")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"]))
    for parameter in filter(lambda p: p.requires_grad, adapted.parameters()):
        nn.init.normal_(parameter, std=0.3)
    expected = answers(adapted, batch)
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model("wavlm"), tmp_path).eval()
    assert_same(answers(again, batch), expected)


# ------------------------------------------------------------------------------------------------ where weights are


@pytest.mark.parametrize("offload", ["cpu", "cpu with buffers", "disk"])
def test_offloaded_weights(offload, model, batch, tmp_path):
    expected = answers(model, batch)
    if offload == "disk":
        disk_offload(model, tmp_path, execution_device="cpu")
    else:
        cpu_offload(model, execution_device="cpu", offload_buffers=offload == "cpu with buffers")
    assert all(p.is_meta for p in model.parameters())
    assert_same(answers(model, batch), expected)


@pytest.mark.parametrize("place", ["classifier", "sere"])
def test_device_maps(place, make_model, batch, tmp_path):
    """Either part on disk, the other on the CPU."""
    model = make_model("whisper", tric_weight=0.3)
    model.save_pretrained(tmp_path / "model")
    places = {"sere": "cpu", "classifier": "cpu", "tric": "cpu", place: "disk"}
    places |= dict.fromkeys(("source_embeddings", "source_cues", "source_labels"), "cpu")
    loaded = SereForAudioClassification.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    ).eval()
    assert all(p.is_meta == name.startswith(f"{place}.") for name, p in loaded.named_parameters())
    assert_same(answers(loaded, batch), answers(model, batch))


@pytest.mark.parametrize("share", [0.0, 0.6])
@pytest.mark.parametrize("model_class", [SereForAudioClassification, SereModel])
def test_a_share_of_the_model_in_memory(share, model_class, model, batch, tmp_path):
    model.save_pretrained(tmp_path / "model")
    memory = {"cpu": int(share * compute_module_sizes(model)[""]) + 1}
    loaded = model_class.from_pretrained(
        tmp_path / "model", device_map="auto", max_memory=memory, offload_folder=tmp_path / "offload"
    ).eval()
    assert any(p.is_meta for p in loaded.parameters())
    with torch.no_grad():
        torch.testing.assert_close(loaded(*batch).embeddings, model(*batch).embeddings, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ int8


def test_dynamic_int8(model, batch):
    expected = answers(model, batch)[0].softmax(1)
    linear = sum(isinstance(module, nn.Linear) for module in model.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        small = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert linear and not any(type(module) is nn.Linear for module in small.modules())
    with torch.no_grad():
        assert (small(*batch).logits.softmax(1) - expected).abs().max() < 0.1


def test_weights_that_are_no_plain_tensors(model, batch):
    """torchao puts tensor subclasses in place of weights that only a call of their layer knows how to use."""
    torchao = pytest.importorskip("torchao.quantization")
    expected = answers(model, batch)[0].softmax(1)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    with torch.no_grad():
        assert (model(*batch).logits.softmax(1) - expected).abs().max() < 0.1

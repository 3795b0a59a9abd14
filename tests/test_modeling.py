"""The models: outputs, losses, errors, invariance to padding, training with transformers' own tools, precision."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from modeling_sere import SereConfig, SereForAudioClassification, SereModel
from modeling_sere.dynamics_sere import CUES, FRAME_NAMES, FUNCTIONAL_NAMES
from modeling_sere.embedding_sere import shrunk_moments
from modeling_sere.encoder_sere import frame_lengths
from modeling_sere.modeling_sere import cue_map, feature_extractor
from modeling_sere.resonance_sere import InstantaneousResonanceField, LinearMap

LABELS = torch.tensor([0, 1, -100, -100, 2])
LOSSES = ("loss", "loss_classification", "loss_tric", "loss_consistency")
SIZE = len(FUNCTIONAL_NAMES) + len(FRAME_NAMES)


@pytest.fixture
def batch(clips, pad):
    return pad(clips, extra=1000)


# ------------------------------------------------------------------------------------------------ outputs


def test_outputs_of_the_classifier(stream, make_model, batch):
    model = make_model(stream)
    width = SIZE + (0 if stream == "none" else 3 * 32)
    with torch.no_grad():
        output = model(*batch)
    assert isinstance(output, SequenceClassifierOutput)
    assert output.loss is None and output.logits.shape == (5, 3) and output.logits.dtype == torch.float32
    assert output.embeddings.shape == output.features.shape == (5, width)
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(5))
    lengths = frame_lengths(batch[1])
    assert lengths.tolist() == [30, 50, 21, 65, 40] and output.highlights.shape == (5, 65)
    assert (output.highlights >= 0).all()
    torch.testing.assert_close(output.highlights.sum(1), torch.ones(5))
    for row, length in enumerate(lengths):
        assert (output.highlights[row, :length] > 0).all() and torch.all(output.highlights[row, length:] == 0)
    assert torch.equal(output[0], output.logits)


def test_outputs_of_the_base_model(stream, make_model, batch):
    model = make_model(stream).sere
    with torch.no_grad():
        output = model(*batch)
        as_tuple = model(*batch, return_dict=False)
    width = len(FRAME_NAMES) if stream == "none" else 32
    assert output.last_hidden_state.shape == (5, 65, width)
    assert output.cues.shape == (5, 5) and output.cues.abs().max() <= 2.5
    assert torch.equal(output.frame_mask.sum(1), frame_lengths(batch[1]))
    for one, other in zip(output.to_tuple(), as_tuple, strict=True):
        assert torch.equal(one, other)


def test_tuples_and_the_first_item(make_model, batch):
    model = make_model()
    with torch.no_grad():
        with_labels, without = model(*batch, labels=LABELS, return_dict=False), model(*batch, return_dict=False)
        output = model(*batch, labels=LABELS)
    assert isinstance(with_labels, tuple) and isinstance(without, tuple)
    assert with_labels[0] == output[0] == output.loss and torch.equal(with_labels[1], output.logits)
    assert torch.equal(without[0], output.logits)


def test_base_model_of_a_classifier_gives_the_same(make_model, batch, tmp_path):
    model = make_model("wav2vec2")
    model.save_pretrained(tmp_path)
    base = SereModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(base(*batch).embeddings, model(*batch).embeddings)


def test_frames_stand_in_for_the_waveform(stream, make_model, batch):
    model = make_model(stream)
    with torch.no_grad():
        frames = model.sere.frames(*batch)
        torch.testing.assert_close(model(frames=frames).logits, model(*batch).logits)


def test_no_mask_means_all_real(make_model, clips):
    model = make_model("wavlm")
    values = clips[1][None]
    with torch.no_grad():
        logits = model(values).logits
        for mask in (torch.ones_like(values), torch.ones_like(values).bool(), torch.ones_like(values).long()):
            assert torch.equal(model(values, mask).logits, logits)


def test_padding_and_batch_change_no_logit(stream, make_model, clips, batch):
    """Statistics are those of these clips, so that logits have a spread of several units."""
    model = make_model(stream)
    with torch.no_grad():
        together = model(*batch)
        for row, clip in enumerate(clips):
            alone = model(clip[None])
            torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-4, rtol=0)
            length = alone.highlights.shape[1]
            torch.testing.assert_close(together.highlights[row, :length], alone.highlights[0], atol=1e-5, rtol=0)
    assert together.logits.std() > 0.3


def test_silence_and_very_short_clips_are_finite(stream, make_model):
    model = make_model(stream)
    for values in (torch.zeros(1, 16000), torch.full((1, 8000), 0.5), 0.1 * torch.randn(1, 100)):
        with torch.no_grad():
            output = model(values)
        assert torch.isfinite(output.logits).all() and output.highlights.sum().isclose(torch.tensor(1.0))


def test_highlights_follow_loudness(make_model, voice):
    values = 0.02 * voice(1.0)
    values[8000:] *= 20
    with torch.no_grad():
        highlights = make_model()(values[None]).highlights[0]
    assert highlights[26:].sum() > 0.7  # 0.48 if they were uniform


def test_cue_map_holds_signed_means():
    table = cue_map()
    assert table.shape == (len(FUNCTIONAL_NAMES), 5)
    torch.testing.assert_close(table.abs().sum(0), torch.ones(5))
    for column, signs in enumerate(CUES.values()):
        assert {FUNCTIONAL_NAMES[i]: table[i, column].sign().item() for i in table[:, column].nonzero()[:, 0]} == signs


def test_feature_extractor_only_pads():
    made = feature_extractor()
    assert (made.feature_size, made.sampling_rate, made.padding_value) == (1, 16000, 0.0)
    assert not made.do_normalize and made.return_attention_mask
    output = made([[0.5] * 4, [1.0] * 2], sampling_rate=16000, padding=True, return_tensors="pt")
    assert output.input_values.tolist() == [[0.5] * 4, [1.0, 1.0, 0.0, 0.0]]
    assert output.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


# ------------------------------------------------------------------------------------------------ statistics


def test_speaker_statistics(make_model, batch):
    """Enrolled from a batch as from its raw features, and of use as `statistics`."""
    model = make_model("whisper")
    with torch.no_grad():
        statistics = model.speaker_statistics(*batch)
        output = model(*batch)
        group = model.sere.embedding.voice_groups(output.features).mode().values
        expected = shrunk_moments(output.features, model.sere.embedding.statistics[group])
        assert statistics.shape == (2, output.features.shape[1])
        torch.testing.assert_close(statistics, expected)
        with_them = model(*batch, statistics=statistics)
        each = model(*batch, statistics=statistics.expand(5, -1, -1))
        domain = model(*batch, statistics=model.sere.embedding.statistics[group])
    torch.testing.assert_close(with_them.logits, each.logits)
    torch.testing.assert_close(domain.logits, output.logits)


def test_statistics_change_the_outcome(make_model, batch, voice, pad):
    model = make_model()
    with torch.no_grad():
        other = model.speaker_statistics(*pad([voice(0.8, seed, pitch=300) for seed in range(20, 24)]))
        assert not torch.allclose(model(*batch, statistics=other).logits, model(*batch).logits, atol=1e-2)


# ------------------------------------------------------------------------------------------------ losses


def test_parts_of_the_loss(make_model, batch):
    model = make_model(tric_weight=0.3, consistency_weight=0.7, visit_weight=0.4)
    model.train()
    output = model(*batch, labels=LABELS)
    assert all(output[name].ndim == 0 and torch.isfinite(output[name]) for name in LOSSES)
    labelled = LABELS >= 0
    expected = F.cross_entropy(output.logits[labelled], LABELS[labelled])
    torch.testing.assert_close(output.loss_classification, expected)
    terms = model.tric(output.embeddings, LABELS)
    torch.testing.assert_close(output.loss_tric, terms["tric"] + 0.4 * terms["visit"])
    assert output.loss_consistency > 0
    total = output.loss_classification + 0.3 * output.loss_tric + 0.7 * output.loss_consistency
    torch.testing.assert_close(output.loss, total)


def test_consistency_is_of_training_and_of_unlabelled_clips(make_model, batch):
    model = make_model(consistency_weight=1.0)
    assert model(*batch, labels=LABELS).loss_consistency == 0
    model.train()
    assert model(*batch, labels=LABELS).loss_consistency > 0
    assert model(*batch, labels=torch.tensor([0, 1, 2, 0, 1])).loss_consistency == 0
    model.config.view_dropout = 0.0
    assert model(*batch, labels=LABELS).loss_consistency.abs() < 1e-6


@pytest.mark.parametrize("labels", [[-100] * 5, [0, 1, 2, 0, 1]], ids=["none labelled", "all labelled"])
def test_one_kind_of_clip_alone(labels, make_model, batch):
    """Finite, with a gradient for every parameter, as distributed training needs it."""
    model = make_model(tric_weight=1.0, consistency_weight=1.0).train()
    output = model(*batch, labels=torch.tensor(labels))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0], [0, 1, -1, 0, 0], [0, 1, -99, 0, 0]])
def test_labels_out_of_range(labels, make_model, batch):
    with pytest.raises(ValueError, match="labels must be from 0 to 2, or -100"):
        make_model()(*batch, labels=torch.tensor(labels))


def test_neither_or_both_inputs(make_model, batch):
    model = make_model()
    with pytest.raises(ValueError, match="either input_values or frames"):
        model()
    with pytest.raises(ValueError, match="either input_values or frames"):
        model(batch[0], frames=model.sere.frames(*batch))


@pytest.mark.parametrize("shape", [(16000,), (1, 1, 16000)])
def test_input_of_another_shape(shape, make_model):
    with pytest.raises(ValueError, match=r"input_values must be \(batch, samples\)"):
        make_model()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 15999), (1, 16000), (16000,)])
def test_mask_of_another_shape(shape, make_model):
    with pytest.raises(ValueError, match="attention_mask must have the shape of input_values"):
        make_model()(torch.zeros(2, 16000), torch.ones(shape))


def test_statistics_of_another_size(make_model, batch):
    with pytest.raises(ValueError, match="statistics must have shape"):
        make_model()(*batch, statistics=torch.ones(2, 3))


# ------------------------------------------------------------------------------------------------ training


def test_gradients_reach_every_trainable_parameter(stream, make_model, batch):
    model = make_model(stream, tric_weight=1.0, consistency_weight=1.0).train()
    model(*batch, labels=LABELS).loss.backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    # a bias of the keys moves all of a query's scores alike, so that its true gradient is zero
    assert [
        n for n, p in trainable.items() if not p.grad.any() and not n.endswith(("k_proj.bias", "linear_k.bias"))
    ] == []


def test_frozen_base_model(make_model, batch):
    model = make_model("wavlm")
    model.freeze_base_model()
    model(*batch, labels=LABELS).loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {
        "sere.highlight_weight", "sere.embedding.log_gain",
        "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_gradient_checkpointing(encoder_name, make_model, batch):
    """The same gradients, computed layer by layer again. Dropout is off: the two would draw it differently."""
    model = make_model(encoder_name)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.train()

    def gradients():
        model.zero_grad()
        model(*batch, labels=LABELS).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    model.activation_checkpointing_enable()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.sere.encoder.modules())
    saved = gradients()
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, atol=1e-5, rtol=1e-3)


class Pitches(Dataset):
    """Low voices are class 0, high ones class 1; every third clip is unlabelled."""

    def __init__(self, voice):
        self.clips = [voice(0.4 + 0.02 * (i % 5), i, pitch=(110, 240)[i % 2]) for i in range(24)]
        self.labels = [-100 if i % 3 == 2 else i % 2 for i in range(24)]

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return {"input_values": self.clips[index], "labels": self.labels[index]}


def collate(items):
    values = torch.nn.utils.rnn.pad_sequence([item["input_values"] for item in items], batch_first=True)
    mask = torch.stack([(torch.arange(values.shape[1]) < len(item["input_values"])).long() for item in items])
    return {"input_values": values, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in items])}


def train(model, data, folder, **options):
    options = {"max_steps": 12, "per_device_train_batch_size": 12, "learning_rate": 0.1, "logging_steps": 1} | options
    arguments = TrainingArguments(
        output_dir=folder, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, seed=1,
        lr_scheduler_type="constant", **options,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data, data_collator=collate)
    trainer.train()
    return trainer


def test_transformers_trainer(make_model, voice, tmp_path):
    data = Pitches(voice)
    model = make_model(labels=("low", "high"), tric_weight=0.1, consistency_weight=0.1)
    with torch.no_grad():
        batch = collate(list(data))
        features = model.sere.pool(model.sere.frames(batch["input_values"], batch["attention_mask"]))[1]
        model.sere.embedding.statistics.copy_(torch.stack([features.mean(0), features.std(0)]).expand(2, -1, -1))
        torch.nn.init.zeros_(model.classifier.weight)
    trainer = train(model, data, tmp_path)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12 and torch.isfinite(torch.tensor(losses)).all()
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.evaluate()["eval_loss"] < 0.5 * losses[0]
    predictions = torch.from_numpy(trainer.predict(data).predictions).argmax(1)
    assert (predictions == torch.arange(24) % 2).float().mean() > 0.9


def test_trainer_divides_the_loss_by_the_accumulation_steps(make_model, voice, tmp_path):
    """One step over two equal halves moves a weight as one step over the whole batch of means."""
    data = Pitches(voice)
    moved = []
    for size, steps in ((6, 4), (24, 1)):
        model = make_model(labels=("low", "high"))
        model.sere.requires_grad_(False)
        before = model.classifier.bias.detach().clone()
        train(
            model, data, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=1,
            optim="sgd", learning_rate=1.0, max_grad_norm=0.0,
        )  # fmt: skip
        moved.append((model.classifier.bias - before).abs().max().item())
    assert 0.5 < moved[0] / moved[1] < 2


# ------------------------------------------------------------------------------------------------ field and precision


def test_adopt_reproduces_a_linear_map(make_model, batch):
    model = make_model("whisper")
    size = model.classifier.in_features
    linear = LinearMap(torch.randn(size, 3), torch.zeros(5, 3), torch.randn(3))
    model.adopt(linear)
    with torch.no_grad():
        base, logits = model.sere(*batch), model(*batch).logits
    torch.testing.assert_close(logits, linear(base.embeddings, base.cues))
    assert all(p.requires_grad for p in (model.classifier.weight, model.classifier.bias))
    linear.cue_weight[0, 0] = 1
    with pytest.raises(ValueError, match="needs the cues"):
        model.adopt(linear)


def test_adopted_field_scores_clips_as_it_organised_them(make_model, batch):
    model = make_model()
    with torch.no_grad():
        base = model.sere(*batch)
    field = InstantaneousResonanceField(model.config)(
        base.embeddings, base.cues, LABELS, torch.zeros(5, dtype=torch.long)
    )
    model.adopt(field.maps[0])
    with torch.no_grad():
        torch.testing.assert_close(model(*batch).logits.softmax(1), field.posteriors, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, stream, make_model, batch, tmp_path):
    model = make_model(stream)
    model.save_pretrained(tmp_path)
    loaded = SereForAudioClassification.from_pretrained(tmp_path, dtype=dtype).eval()
    small = {name for name, p in loaded.named_parameters() if p.dtype == torch.float32}
    assert small == {name for name, _ in model.named_parameters() if ".encoder." not in name}
    assert {p.dtype for p in loaded.sere.encoder.parameters()} == {dtype} if stream != "none" else True
    for name, buffer in model.named_buffers():
        if ".encoder." not in name:
            assert torch.equal(loaded.get_buffer(name), buffer) and loaded.get_buffer(name).dtype == buffer.dtype
    with torch.no_grad():
        expected = model(*batch).logits
        logits = loaded(*batch).logits
        cast = model.to(dtype)(*batch).logits
    assert logits.dtype == cast.dtype == torch.float32
    assert torch.isfinite(cast).all() and (logits - expected).abs().max() < 0.5


def test_autocast(stream, make_model, batch):
    model = make_model(stream, tric_weight=1.0, consistency_weight=1.0).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*batch, labels=LABELS)
    output.loss.backward()
    assert output.loss.dtype == output.logits.dtype == torch.float32 and torch.isfinite(output.loss)


def test_sources_travel_in_buffers(tmp_path):
    config = SereConfig(num_sources=4)
    model = SereForAudioClassification(config)
    assert model.source_labels.tolist() == [-100] * 4 and model.source_cues.shape == (4, 5)
    model.source_embeddings.uniform_(-0.1, 0.1)
    model.source_labels.copy_(torch.tensor([0, 1, 0, 1]))
    model.save_pretrained(tmp_path)
    again = SereForAudioClassification.from_pretrained(tmp_path)
    for name in ("source_embeddings", "source_cues", "source_labels"):
        assert torch.equal(getattr(again, name), getattr(model, name))
        assert getattr(again, name).dtype == getattr(model, name).dtype

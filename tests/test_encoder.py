"""Encoders: what padding, other clips, depth and precision may not change, and agreement with transformers."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, SeamlessM4TFeatureExtractor, WhisperFeatureExtractor

from modeling_sere import SereConfig, encoder_sere
from modeling_sere.encoder_sere import (
    FRAME_SAMPLES,
    MaskedGroupNorm,
    SereEncoder,
    frame_lengths,
    kaldi_features,
    whisper_features,
)


def build(encoder_config, name: str, layers=(1, 3), **options) -> SereEncoder:
    changes = options.pop("changes", {})
    config = SereConfig(encoder_config=encoder_config(name, **changes), encoder_layers=list(layers), **options)
    return SereEncoder(config).eval()


def assert_same_alone(encoder, clips, pad, extra=0, atol=1e-4):
    values, mask = pad(clips, extra)
    lengths = frame_lengths(mask)
    with torch.no_grad():
        together = encoder(values, lengths).states
        for row, clip in enumerate(clips):
            alone = encoder(clip[None], lengths[row : row + 1]).states
            for one, many in zip(alone, together, strict=True):
                torch.testing.assert_close(many[row, : lengths[row]], one[0], atol=atol, rtol=0)
                assert torch.all(many[row, lengths[row] :] == 0)


# ------------------------------------------------------------------------------------------------ invariance


def test_shapes(encoder_name, encoder_config, clips, pad):
    values, mask = pad(clips)
    states = build(encoder_config, encoder_name)(values, frame_lengths(mask)).states
    assert [tuple(state.shape) for state in states] == [(5, 65, 32)] * 2


def test_padding_and_batch_change_nothing(encoder_name, encoder_config, clips, pad):
    assert_same_alone(build(encoder_config, encoder_name), clips, pad, extra=4321)


def test_what_lies_in_the_padding_changes_nothing(encoder_name, encoder_config, clips, pad):
    values, mask = pad(clips[:2])
    encoder = build(encoder_config, encoder_name)
    noisy = torch.where(mask.bool(), values, torch.randn_like(values))
    with torch.no_grad():
        for a, b in zip(
            encoder(values, frame_lengths(mask)).states, encoder(noisy, frame_lengths(mask)).states, strict=True
        ):
            torch.testing.assert_close(a[0, :30], b[0, :30])


def test_clips_beyond_the_window(encoder_name, encoder_config, clips, pad, monkeypatch):
    """Windows are counted from each clip's own start; 60 = 3 windows of 20, 65 leaves 5 frames, 21 leaves one."""
    monkeypatch.setattr(encoder_sere, "WINDOW_FRAMES", 20)
    lengths = (65, 60, 21, 20, 7)
    voices = [clips[3][: n * FRAME_SAMPLES] for n in lengths]
    assert_same_alone(build(encoder_config, encoder_name), voices, pad, extra=999)


def test_windows_are_encoded_on_their_own(encoder_name, encoder_config, clips, monkeypatch):
    encoder = build(encoder_config, encoder_name, encoder_normalize=False)
    clip = clips[3][None, : 50 * FRAME_SAMPLES]
    with torch.no_grad():
        parts = [
            encoder(clip[:, a * FRAME_SAMPLES : b * FRAME_SAMPLES], torch.tensor([b - a]))[0]
            for a, b in ((0, 20), (20, 40), (40, 50))
        ]
        monkeypatch.setattr(encoder_sere, "WINDOW_FRAMES", 20)
        whole = encoder(clip, torch.tensor([50])).states
    for layer, state in enumerate(whole):
        torch.testing.assert_close(state, torch.cat([part[layer] for part in parts], 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 100, 319, 320, 639])
def test_very_short_clips(samples, encoder_name, encoder_config, voice):
    lengths = torch.tensor([max(1, samples // FRAME_SAMPLES)])
    states = build(encoder_config, encoder_name)(voice(0.1)[None, :samples], lengths).states
    assert all(state.shape == (1, 1, 32) and torch.isfinite(state).all() for state in states)


def test_silence_is_finite(encoder_name, encoder_config):
    states = build(encoder_config, encoder_name)(torch.zeros(1, 8000), torch.tensor([25])).states
    assert all(torch.isfinite(state).all() for state in states)


def test_normalisation_of_the_waveform(encoder_config, clips):
    """Level and offset vanish with it and matter without it."""
    clip, lengths = clips[1][None], torch.tensor([50])
    with torch.no_grad():
        for normalize in (True, False):
            encoder = build(encoder_config, "wav2vec2-large", encoder_normalize=normalize, layers=[2])
            (one,), (other,) = encoder(clip, lengths).states, encoder(0.3 * clip + 0.1, lengths).states
            same = torch.allclose(one, other, atol=1e-3)
            assert same == normalize


# ------------------------------------------------------------------------------------------------ agreement


def hidden_states(name, full, values) -> tuple[torch.Tensor, ...]:
    """A stock encoder's hidden states of one normalised clip of whole frames."""
    with torch.no_grad():
        if name == "wav2vec2-bert":
            extractor = SeamlessM4TFeatureExtractor()
            features = extractor(np.pad(values.numpy(), (0, 240)), sampling_rate=16000, return_tensors="pt")
            return full(**features, output_hidden_states=True).hidden_states
        values = (values - values.mean()) / (values.var(correction=0) + 1e-7).sqrt()
        return full(nn.functional.pad(values[None], (0, 80)), output_hidden_states=True).hidden_states


@pytest.mark.parametrize("layers", [(1, 3), (3, 1), (2, 4)])
def test_truncated_encoder_equals_the_full_one(layers, encoder_name, encoder_config, clips, tmp_path):
    """Through a saved plain repository, as `load_encoder` gets it."""
    if encoder_name == "whisper":
        pytest.skip("Whisper's stock encoder takes its full window only: next test")
    full = AutoModel.from_config(encoder_config(encoder_name)).eval()
    full.save_pretrained(tmp_path)
    encoder = build(encoder_config, encoder_name, layers)
    encoder.load_encoder(tmp_path)
    assert encoder.model.config.num_hidden_layers == max(layers)
    clip = clips[1]
    expected = hidden_states(encoder_name, full, clip)
    with torch.no_grad():
        for layer, state in zip(layers, encoder(clip[None], torch.tensor([50])).states, strict=True):
            torch.testing.assert_close(state, expected[layer], atol=1e-4, rtol=0)


def test_whisper_equals_the_stock_encoder(encoder_config, clips, tmp_path):
    """On a clip that fills the stock encoder's window (of one second here) exactly.

    It ends in silence, because the stock feature extractor mirrors a full window at its end and a shorter one not.
    """
    clip = clips[1].clone()
    clip[-400:] = 0
    one_second = {"max_source_positions": 50}
    full = AutoModel.from_config(encoder_config("whisper", **one_second)).eval()
    full.save_pretrained(tmp_path)
    encoder = build(encoder_config, "whisper", (1, 3), changes=one_second)
    encoder.load_encoder(tmp_path)
    features = WhisperFeatureExtractor(chunk_length=1)(clip.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = full.encoder(features.input_features, output_hidden_states=True).hidden_states
        for layer, state in zip((1, 3), encoder(clip[None], torch.tensor([50])).states, strict=True):
            torch.testing.assert_close(state, expected[layer], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_features_equal_the_feature_extractors(mels, clips, pad):
    values, mask = pad(clips)
    lengths = frame_lengths(mask)
    values = torch.nn.functional.pad(values, (0, 65 * FRAME_SAMPLES - values.shape[1]))[:, : 65 * FRAME_SAMPLES]
    values = values * (torch.arange(65 * FRAME_SAMPLES) < lengths[:, None] * FRAME_SAMPLES)
    ours = whisper_features(values, lengths, mels)
    extractor = WhisperFeatureExtractor(feature_size=mels)
    for row, length in enumerate(lengths.tolist()):
        theirs = extractor(
            values[row, : length * FRAME_SAMPLES].numpy(), sampling_rate=16000, return_tensors="pt"
        ).input_features
        torch.testing.assert_close(ours[row, :, : 2 * length], theirs[0, :, : 2 * length], atol=1e-3, rtol=0)
        assert torch.all(ours[row, :, 2 * length :] == 0)


def test_kaldi_features_equal_the_feature_extractors(clips, pad):
    """Followed by the 240 zeros that complete the last frame, a clip has the same frames there as here."""
    lengths = torch.tensor([30, 50, 21])
    values, _ = pad([clip[: n * FRAME_SAMPLES] for clip, n in zip(clips, lengths.tolist(), strict=False)])
    ours = kaldi_features(values, lengths, 80)
    extractor = SeamlessM4TFeatureExtractor()
    for row, length in enumerate(lengths.tolist()):
        clip = np.pad(values[row, : length * FRAME_SAMPLES].numpy(), (0, 240))
        theirs = extractor(clip, sampling_rate=16000, return_tensors="pt").input_features[0]
        torch.testing.assert_close(ours[row, :length], theirs[:length], atol=2e-3, rtol=0)
        assert torch.all(ours[row, length:] == 0)


@pytest.mark.parametrize("affine", [True, False])
def test_masked_group_norm_equals_the_stock_one_without_padding(affine):
    stock, ours = nn.GroupNorm(8, 8), MaskedGroupNorm(8, 8)
    if affine:
        nn.init.normal_(stock.weight)
        nn.init.normal_(stock.bias)
    ours.weight, ours.bias = stock.weight, stock.bias
    x = 3 * torch.randn(4, 8, 37) + 1
    torch.testing.assert_close(ours(x, torch.full((4,), 37)), stock(x), atol=1e-5, rtol=1e-5)
    lengths = torch.tensor([37, 20, 5, 2])
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            ours(x, lengths)[row, :, :length], stock(x[row : row + 1, :, :length])[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masked_group_norm_in_half_precision(dtype):
    """Sums over a long clip pass the largest float16 number."""
    stock, ours = nn.GroupNorm(2, 2), MaskedGroupNorm(2, 2)
    x = 5 + 4 * torch.randn(1, 2, 90_000)
    result = ours(x.to(dtype), torch.tensor([90_000]))
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), stock(x), atol=0.05, rtol=0.05)


# ------------------------------------------------------------------------------------------------ loading


@pytest.fixture
def repository(encoder_config, tmp_path):
    """(name, drop="") -> folder of a plain encoder, without the tensors whose name holds `drop`."""

    def save(name, drop=None):
        AutoModel.from_config(encoder_config(name)).save_pretrained(tmp_path)
        if drop:
            tensors = load_file(tmp_path / "model.safetensors")
            kept = {key: value for key, value in tensors.items() if drop not in key}
            assert len(kept) < len(tensors)
            save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return tmp_path

    return save


@pytest.mark.parametrize(
    ("name", "drop"),
    [("wavlm", "layers.0.attention"), ("wav2vec2", "feature_projection"), ("whisper", "encoder.layers.1.fc1")],
)
def test_missing_weights_are_refused(name, drop, repository, encoder_config):
    folder = repository(name, drop)
    with pytest.raises(ValueError, match=f"{folder} lacks encoder weights"):
        build(encoder_config, name).load_encoder(folder)


@pytest.mark.parametrize(
    ("name", "drop"), [("wavlm", "encoder.layers.3."), ("wav2vec2", "masked_spec_embed"), ("whisper", "decoder")]
)
def test_missing_weights_that_are_not_used_do_not_matter(name, drop, repository, encoder_config):
    build(encoder_config, name).load_encoder(repository(name, drop))


def test_too_shallow_encoder_is_refused(repository, encoder_config):
    folder = repository("wav2vec2")
    with pytest.raises(ValueError, match="lacks encoder weights"):
        build(encoder_config, "wav2vec2", (5,), changes={"num_hidden_layers": 6}).load_encoder(folder)


def test_encoder_of_another_type_is_refused(repository, encoder_config):
    folder = repository("hubert")
    with pytest.raises(ValueError, match="hubert, not wav2vec2"):
        build(encoder_config, "wav2vec2").load_encoder(folder)


@pytest.mark.parametrize("name", ["whisper-tiny.en-encoder", "whisper-base-encoder"])
def test_real_whisper_weights(name, shared, voice):
    folder = shared(f"encoders/{name}")
    encoder = SereEncoder(SereConfig(encoder_config=AutoConfig.from_pretrained(folder))).eval()
    encoder.load_encoder(folder)
    tensors = load_file(folder / "model.safetensors")
    key = next(key for key in tensors if key.endswith("encoder.layers.1.fc1.weight"))
    torch.testing.assert_close(encoder.model.layers[1].fc1.weight, tensors[key].float())
    with torch.no_grad():
        states = encoder(voice(1.0)[None], torch.tensor([50])).states
    assert len(states) == len(encoder.layers)
    for state in states:
        assert state.shape == (1, 50, encoder.hidden_size) and torch.isfinite(state).all() and state.std() > 0.1


# ------------------------------------------------------------------------------------------------ training


def test_gradients_reach_every_trainable_parameter(encoder_name, encoder_config, clips, pad):
    values, mask = pad(clips[:2])
    encoder = build(encoder_config, encoder_name).train()
    sum((state * torch.randn_like(state)).sum() for state in encoder(values, frame_lengths(mask)).states).backward()
    trainable = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert len(trainable) > 20
    assert [name for name, p in trainable.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    # a bias of the keys moves all of a query's scores alike, so that its true gradient is zero
    assert [
        n for n, p in trainable.items() if not p.grad.any() and not n.endswith(("k_proj.bias", "linear_k.bias"))
    ] == []


def test_states_in_training_do_not_depend_on_pretraining_tricks(encoder_name, encoder_config, clips):
    """No masking of time steps, no dropped layers; dropout itself is off here."""
    off = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "conformer_conv_dropout")
    config = encoder_config(encoder_name, mask_time_prob=0.5, apply_spec_augment=True)
    for option in off:
        if hasattr(config, option):
            setattr(config, option, 0.0)
    config.layerdrop = 0.5
    encoder = SereEncoder(SereConfig(encoder_config=config, encoder_layers=[3]))
    clip, lengths = clips[1][None], torch.tensor([50])
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.train()(clip, lengths).states[0], encoder.eval()(clip, lengths).states[0], atol=1e-5, rtol=0
        )


def test_encoder_of_a_half_precision_repository_is_built_in_full_precision(encoder_config):
    encoder = build(encoder_config, "wav2vec2", changes={"dtype": "float16"})
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}

"""The semantic stream: any supported transformers audio encoder, fed the real samples only.

Every encoder gets its input made here from the waveform, sees at most 30 s at once, and gives one state per 20 ms frame
of each clip (T = n_samples // 320). Padding and the other clips of the batch change nothing.
"""

import copy
import functools
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel
from transformers.audio_utils import mel_filter_bank, window_function
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import (
    Wav2Vec2BertRelPositionalEmbedding,
    Wav2Vec2BertRotaryPositionalEmbedding,
)
from transformers.models.wavlm.modeling_wavlm import WavLMAttention
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils.output_capturing import capture_outputs

from .configuration_sere import FRAME_SAMPLES
from .dynamics_sere import fourier_basis, power_spectrum
from .weights_sere import check_beside, check_finite

WINDOW_FRAMES = 1500  # 30 s: what Whisper's position table holds, and a bound on attention memory for the others


def frame_lengths(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the frames of each clip, (B,), from its sample mask (B, N): one per 20 ms, at least one."""
    return (attention_mask.long().sum(1) // FRAME_SAMPLES).clamp_min(1)


def frame_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Map (B,) lengths to (B, size) bool, True on real frames."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


class SereEncoderOutput(NamedTuple):
    """Output of [`SereEncoder`]."""

    states: tuple[torch.Tensor, ...]  # (B, T, H) after each chosen layer, zeros at padding
    hidden_states: tuple[torch.Tensor, ...] | None = None  # (B, T, H) before the first layer and after every one
    attentions: tuple[torch.Tensor, ...] | None = None  # (B, heads, T, T) in every layer


class MaskedGroupNorm(nn.GroupNorm):
    """Normalisation over the real frames only, zeros at padding.

    WavLM's and wav2vec2's base models normalise over time: with padding in the sum, a clip's result would depend on
    the batch it sits in.
    """

    def forward(self, input: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Normalise input (B, C, T) over the real frames (B,) of each clip, in single precision for the sums."""
        grouped = input.float().unflatten(1, (self.num_groups, -1))  # (B, G, C / G, T)
        real = frame_mask(lengths, input.shape[2])[:, None, None].float()
        count = (lengths * grouped.shape[2])[:, None, None, None]
        mean = (grouped @ real.mT).sum(2, keepdim=True) / count
        centred = (grouped - mean) * real
        variance = torch.linalg.vector_norm(centred, dim=(2, 3), keepdim=True).square() / count
        scaled = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        weight, bias = self.weight.float()[:, None], self.bias.float()[:, None]
        return torch.addcmul(bias * real[:, 0], scaled, weight).to(input.dtype)


class MaskedConvolutions(nn.Module):
    """The convolutions of WavLM's, wav2vec2's and HuBERT's base models, with their norm over real frames only.

    Args:
        layers: those of the encoder.
    """

    def __init__(self, layers: nn.ModuleList):
        super().__init__()
        self.conv_layers = layers

    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        """Convolve (B, 2, N), waveforms and 1 at their real samples, to (B, C, T).

        What is real comes with the samples, and is never kept on a module, where calls at the same time would mix.
        """
        hidden, lengths = packed[:, :1], (packed[:, 1] > 0).sum(1)
        if self.training and next(self.parameters()).requires_grad:
            hidden.requires_grad_()  # reentrant gradient checkpointing asks for it
        layers: list[Any] = list(self.conv_layers)
        for layer in layers:
            norm = getattr(layer, "layer_norm", None)
            lengths = (lengths - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
            if isinstance(norm, MaskedGroupNorm):
                hidden = layer.activation(norm(layer.conv(hidden), lengths))
            else:
                hidden = layer(hidden)
        return hidden


class RotaryPositions(Wav2Vec2BertRotaryPositionalEmbedding):
    """Rotary positions of wav2vec2-bert, computed in every call: transformers keeps those of the last clip."""

    def forward(self, hidden_states):
        times = torch.arange(hidden_states.shape[1], device=hidden_states.device, dtype=torch.float32)
        angles = (times[:, None] * self.inv_freq.float()).repeat(1, 2)[:, None, None]
        return torch.stack([angles.cos(), angles.sin()]).type_as(hidden_states)


class RelativePositions(Wav2Vec2BertRelPositionalEmbedding):
    """Relative positions of wav2vec2-bert; transformers keeps them in the precision of the last clip."""

    def forward(self, hidden_states):
        table, size = self.extend_pe(hidden_states, self.pe), hidden_states.shape[1]
        middle = table.shape[1] // 2
        return table[:, middle - size + 1 : middle + size]


class CalledAttention(WavLMAttention):
    """WavLM's attention with its projections called, where transformers hands their weights to a fused function.

    Adapters and quantised layers in their place would be passed by there, and hooks that bring offloaded weights not
    see them used.
    """

    def torch_multi_head_self_attention(self, hidden_states, attention_mask, gated_position_bias):
        batch, size, width = hidden_states.shape
        query, key, value = (
            layer(hidden_states).view(batch, size, self.num_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )  # each (B, heads, T, H / heads)
        scores = (query * self.scaling) @ key.transpose(2, 3) + gated_position_bias.view(batch, -1, size, size)
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask.ne(1)[:, None, None, :], -torch.inf)
        weights = scores.softmax(-1)
        context = F.dropout(weights, self.dropout, self.training) @ value
        return self.out_proj(context.transpose(1, 2).reshape(batch, size, width)), weights

    def compute_bias(self, query_length: int, key_length: int) -> torch.Tensor:
        device = self.gru_rel_pos_const.device  # the table itself may be offloaded until it is called
        places = torch.arange(key_length, device=device) - torch.arange(query_length, device=device)[:, None]
        return self.rel_attn_embed(self._relative_positions_bucket(places)).permute(2, 0, 1)


# in the place of modules that pass layers by, or keep what belongs to one call; they have the same tensors
REPLACEMENTS = {
    WavLMAttention: CalledAttention,
    Wav2Vec2BertRotaryPositionalEmbedding: RotaryPositions,
    Wav2Vec2BertRelPositionalEmbedding: RelativePositions,
}


class ShortWhisperEncoder(WhisperEncoder):
    """Whisper's encoder for clips of any length up to its 30 s, without padding to them and without the last norm.

    Positions are those of the first frames; a mask keeps padding out of the attention.
    """

    @capture_outputs
    def forward(self, input_features: torch.Tensor, attention_mask: torch.Tensor, **kwargs):
        """Map input_features (B, mels, 2 T), attention_mask (B, T) of frames to last_hidden_state (B, T, H)."""
        hidden = F.gelu(self.conv1(input_features))  # real states see no hidden frame past their clip's end
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.embed_positions(torch.arange(hidden.shape[1], device=hidden.device))
        bias = None
        if torch.compiler.is_compiling() or not bool(attention_mask.all()):  # a graph must not look at values
            bias = torch.zeros(attention_mask.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill(attention_mask.eq(0), torch.finfo(hidden.dtype).min)[:, None, None, :]
            bias = bias.expand(-1, 1, hidden.shape[1], -1)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=bias, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden)


def _kept(function):
    """Keep the arrays that a function makes, as constants into which a compiler does not look."""
    cached = functools.lru_cache(function)

    def call(*arguments):
        return cached(*arguments)

    return torch.compiler.assume_constant_result(call)


@_kept
def _whisper_filters(num_mel_bins: int):
    return mel_filter_bank(201, num_mel_bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")


@_kept
def _kaldi_filters(num_mel_bins: int):
    return mel_filter_bank(
        257, num_mel_bins, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )


@_kept
def _povey_window():
    return window_function(400, "povey", periodic=False)


@_kept
def _basis(size: int):
    return fourier_basis(400, size)


def _overlapping(padded: torch.Tensor, count: int) -> torch.Tensor:
    """Cut `count` frames of 400 samples, 160 apart, from (B, 160 count + 240 or more) samples: (B, count, 400)."""
    blocks = padded[:, : 160 * count + 240].reshape(padded.shape[0], 2 * count + 3, 80)
    return torch.cat([blocks[:, i : i + 2 * count - 1 : 2] for i in range(5)], 2)


def _spectrum(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Give the power (B, n, size / 2 + 1) of frames (B, n, 400)."""
    basis = torch.as_tensor(_basis(size), dtype=torch.float32, device=frames.device)
    return power_spectrum(frames, size, basis)


def whisper_features(waveform: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    """Compute the log-mel features of Whisper's feature extractor, cut to the real frames.

    waveform (B, T * 320) with zeros at padding, lengths (B,) in 20 ms frames -> (B, mels, 2 T), zeros at padding.
    """
    padded = torch.cat([waveform[:, 1:201].flip(1), F.pad(waveform, (0, 200))], 1)
    window = torch.hann_window(400, device=waveform.device)
    power = _spectrum(_overlapping(padded, waveform.shape[1] // 160) * window, 400)  # (B, 2 T, 201)
    filters = torch.as_tensor(_whisper_filters(num_mel_bins), dtype=torch.float32, device=waveform.device)
    log_mel = (power @ filters).clamp_min(1e-10).log10()
    mask = frame_mask(2 * lengths, log_mel.shape[1])[..., None]
    ceiling = log_mel.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
    return (((torch.maximum(log_mel, ceiling - 8) + 4) / 4) * mask).mT


def kaldi_features(waveform: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    """Compute the normalised filter banks of wav2vec2-bert's feature extractor, two 10 ms frames stacked.

    waveform (B, T * 320) with zeros at padding, lengths (B,) -> (B, T, 2 * mels), zeros at padding. The clip is
    followed by 240 zeros so that its last 20 ms have their two frames.
    """
    padded = F.pad(waveform, (0, 240)) * 2**15
    frames = _overlapping(padded, waveform.shape[1] // 160)
    frames = frames - frames.mean(2, keepdim=True)
    frames = torch.cat([frames[..., :1] * (1 - 0.97), frames[..., 1:] - 0.97 * frames[..., :-1]], 2)
    window = torch.as_tensor(_povey_window(), dtype=torch.float32, device=frames.device)
    power = _spectrum(frames * window, 512)
    filters = torch.as_tensor(_kaldi_filters(num_mel_bins), dtype=torch.float32, device=frames.device)
    log_mel = (power @ filters).clamp_min(1.192092955078125e-07).log()  # (B, 2 T, mels)
    mask = frame_mask(2 * lengths, log_mel.shape[1])[..., None]
    count = (2 * lengths)[:, None, None].to(log_mel.dtype)
    centred = (log_mel - (log_mel * mask).sum(1, keepdim=True) / count) * mask
    scaled = centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / (count - 1) + 1e-7)
    return scaled.reshape(scaled.shape[0], scaled.shape[1] // 2, 2 * num_mel_bins)


class SereEncoder(nn.Module):
    """Hidden states of chosen layers at 50 frames/s.

    The encoder is built only as deep as the deepest layer in use: what lies above cannot change a result.
    """

    def __init__(self, config):
        super().__init__()
        self.layers = list(config.encoder_layers)
        self.normalize = config.encoder_normalize
        inner = copy.deepcopy(config.encoder_config)
        inner.num_hidden_layers = max(self.layers)
        # masking for pre-training and dropped layers would make the cached states of a clip random
        inner.apply_spec_augment, inner.layerdrop, inner.encoder_layerdrop = False, 0.0, 0.0
        self.model_type = inner.model_type
        self.hidden_size = inner.hidden_size
        if self.model_type == "whisper":
            self.model = ShortWhisperEncoder(inner)
        else:
            inner.add_adapter = False
            if self.model_type == "wav2vec2-bert":  # its table of positions is computed, and no longer one is used
                inner.max_source_positions = WINDOW_FRAMES
            self.model = AutoModel.from_config(inner)
            self._mask_group_norm()
            for module in self.model.modules():
                module.__class__ = REPLACEMENTS.get(type(module), type(module))
        self.freeze_unused()

    @property
    def layer_types(self) -> list[str]:
        """Names of the classes of its transformer layers."""
        layers = self.model.layers if self.model_type == "whisper" else self.model.encoder.layers
        return sorted({type(layer).__name__ for layer in layers})

    def freeze_feature_encoder(self):
        """Stop gradients into the convolutions that turn audio into the input of the first layer."""
        names = ("feature_extractor.", "conv1.", "conv2.")
        for name, parameter in self.model.named_parameters():
            if name.startswith(names):
                parameter.requires_grad_(False)

    def freeze_unused(self):
        """Freeze what no pooled state depends on: as trainable it would hang distributed training.

        Nor must Whisper's positions, which it was trained with as they are.
        """
        unused = ("masked_spec_embed", "layer_norm", "encoder.layer_norm", "embed_positions")
        post_norm = getattr(self.model.config, "do_stable_layer_norm", True)
        for name, parameter in self.model.named_parameters():
            module = name.rsplit(".", 1)[0]
            if name in unused or (module in unused and post_norm):
                parameter.requires_grad_(False)

    def _mask_group_norm(self):
        layers = getattr(getattr(self.model, "feature_extractor", None), "conv_layers", [])
        for layer in layers:
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                layer.layer_norm = MaskedGroupNorm(norm.num_groups, norm.num_channels, norm.eps)
                layer.layer_norm.weight, layer.layer_norm.bias = norm.weight, norm.bias
                self.model.feature_extractor = MaskedConvolutions(layers)

    def load_encoder(self, name_or_path: str, **kwargs):
        """Warm-start from a plain encoder repository (`AutoModel.from_pretrained`); unused upper layers are dropped.

        Raises:
            ValueError: the repository is of another type, lacks weights that this encoder needs, has adapters, weights
                that are not finite, or code of its own.
        """
        check_beside(name_or_path, kwargs)
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **kwargs)
        if config.model_type == "wav2vec2-bert":  # as above: a table of any length would be computed
            config.max_source_positions = WINDOW_FRAMES
        full, info = AutoModel.from_pretrained(
            name_or_path,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
            **kwargs,
        )
        if full.config.model_type != self.model_type:
            raise ValueError(f"{name_or_path} is of type {full.config.model_type}, not {self.model_type}.")
        prefix = "encoder." if self.model_type == "whisper" else ""
        state = {key.removeprefix(prefix): value for key, value in full.state_dict().items() if key.startswith(prefix)}
        initialised = {name.removeprefix(prefix) for name in info["missing_keys"] if name.startswith(prefix)}
        lacking = self.model.load_state_dict(state, strict=False).missing_keys
        lacking += sorted(initialised & {name for name, p in self.model.named_parameters() if p.requires_grad})
        if lacking:
            raise ValueError(f"{name_or_path} lacks encoder weights, for example {lacking[0]}: give another encoder.")
        check_finite(self, str(name_or_path))

    def forward(
        self,
        waveform: torch.Tensor,
        lengths: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> SereEncoderOutput:
        """Encode clips.

        Args:
            waveform: (B, N) float, zeros at padding.
            lengths: (B,) real frames of each clip.
            output_hidden_states: give those of all layers too, with whatever they hold at padding.
            output_attentions: give the attention weights too, of clips up to 30 s.

        Raises:
            ValueError: attention weights of a longer clip are asked for.
        """
        size = max(1, waveform.shape[1] // FRAME_SAMPLES)
        waveform = F.pad(waveform, (0, FRAME_SAMPLES))[:, : size * FRAME_SAMPLES]
        waveform = waveform * frame_mask(lengths * FRAME_SAMPLES, waveform.shape[1])
        if self.normalize and self.model_type not in ("whisper", "wav2vec2-bert"):
            waveform = self._normalize(waveform, lengths)
        if size <= WINDOW_FRAMES:
            output = self._encode(waveform, lengths, output_attentions)
        elif output_attentions:
            raise ValueError("output_attentions is for clips of up to 30 s: the encoder sees a longer one in windows.")
        else:
            output = self._encode_long(waveform, lengths, size, output_hidden_states)
        return output if output_hidden_states else output._replace(hidden_states=None)

    def _normalize(self, waveform, lengths):
        mask = frame_mask(lengths * FRAME_SAMPLES, waveform.shape[1])
        count = (lengths * FRAME_SAMPLES)[:, None]
        centred = (waveform - waveform.sum(1, keepdim=True) / count) * mask
        return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / count + 1e-7)

    def _encode_long(self, waveform, lengths, size, output_hidden_states):
        """Encode 30 s windows counted from each clip's start, one batch of windows per 30 s."""
        parts = []
        for start in range(0, size, WINDOW_FRAMES):
            width = min(WINDOW_FRAMES, size - start)
            left = lengths - start  # below 1 for clips that have ended: one frame stands for them, and is dropped
            output = self._encode(
                waveform[:, start * FRAME_SAMPLES : (start + width) * FRAME_SAMPLES], left.clamp(1, width)
            )
            states = output.hidden_states if output_hidden_states else output.states
            parts.append([state * (left > 0)[:, None, None] for state in states])
        joined = tuple(torch.cat(layer, 1) for layer in zip(*parts, strict=True))
        return self._chosen(joined, frame_mask(lengths, size)) if output_hidden_states else SereEncoderOutput(joined)

    def _encode(self, waveform, lengths, output_attentions=False):
        mask = frame_mask(lengths, waveform.shape[1] // FRAME_SAMPLES)
        inputs_of = {"whisper": self._whisper, "wav2vec2-bert": self._wav2vec2_bert}
        inputs, attention_mask = inputs_of.get(self.model_type, self._wav2vec2)(waveform, lengths, mask)
        output = self.model(
            inputs.to(next(self.model.parameters()).dtype),
            attention_mask=attention_mask,
            output_hidden_states=True,
            output_attentions=output_attentions,
        )
        return self._chosen(output.hidden_states, mask, output.attentions if output_attentions else None)

    def _chosen(self, hidden_states, mask, attentions=None) -> SereEncoderOutput:
        states = (hidden_states[layer].to(mask.device) * mask[..., None] for layer in self.layers)
        return SereEncoderOutput(tuple(states), tuple(hidden_states), attentions)

    def _wav2vec2(self, waveform, lengths, mask):
        waveform = F.pad(waveform, (0, 80))  # the first convolutions span 400 samples: gives T frames for T * 320
        samples = frame_mask(lengths * FRAME_SAMPLES + 80, waveform.shape[1]).long()
        if isinstance(self.model.feature_extractor, MaskedConvolutions):
            waveform = torch.stack([waveform, samples.to(waveform.dtype)], dim=1)
        return waveform, samples

    def _wav2vec2_bert(self, waveform, lengths, mask):
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            features = kaldi_features(waveform.float(), lengths, self.model.config.feature_projection_input_dim // 2)
        return features, mask.long()

    def _whisper(self, waveform, lengths, mask):
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            mel = whisper_features(waveform.float(), lengths, self.model.config.num_mel_bins)
        return mel, mask.long()

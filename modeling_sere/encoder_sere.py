"""The semantic stream: any supported transformers audio encoder, fed the real samples only.

Every encoder gets its input made here from the waveform, sees at most 30 s at once, and gives one state per 20 ms frame
of each clip (T = n_samples // 320). Padding and the other clips of the batch change nothing.
"""

import copy
import functools

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers.audio_utils import mel_filter_bank, window_function

from .configuration_sere import HOP

WINDOW_FRAMES = 1500  # 30 s: what Whisper's position table holds, and a bound on attention memory for the others


def frame_lengths(attention_mask: torch.Tensor) -> torch.Tensor:
    """Frames of each clip, (B,), from its sample mask (B, N): one per 20 ms, at least one."""
    return (attention_mask.long().sum(1) // HOP).clamp_min(1)


def frame_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(B,) lengths -> (B, size) bool, True on real frames."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


class MaskedGroupNorm(nn.GroupNorm):
    """Normalisation over the real frames only; `lengths` (B,) is set before each forward. What pads stays unnormalised.

    Where no gradient is asked for it works in place: its input is the largest tensor of all, and nobody else's.
    WavLM's and wav2vec2's base models normalise over time: with padding in the sum, a clip's result would depend on
    the batch it sits in.
    """

    lengths = None

    def forward(self, input):  # (B, C, T)
        output = torch.zeros_like(input) if input.requires_grad else input
        weight, bias = self.weight.float(), self.bias.float()  # half precision cannot hold the sum over a long clip
        for clip, length in enumerate(self.lengths.tolist()):
            real = input[clip : clip + 1, :, :length].float()
            output[clip, :, :length] = F.group_norm(real, self.num_groups, weight, bias, self.eps)[0]
        return output


@functools.lru_cache
def _whisper_filters(num_mel_bins: int):
    return mel_filter_bank(201, num_mel_bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")


@functools.lru_cache
def _kaldi_filters(num_mel_bins: int):
    return mel_filter_bank(
        257, num_mel_bins, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )


def whisper_features(waveform: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    """log-mel of Whisper's feature extractor, cut to the real frames.

    waveform (B, T * 320) with zeros at padding, lengths (B,) in 20 ms frames -> (B, mels, 2 T), zeros at padding.
    """
    padded = torch.cat([waveform[:, 1:201].flip(1), waveform, waveform.new_zeros(len(waveform), 200)], 1)
    window = torch.hann_window(400, device=waveform.device)
    spectrum = torch.stft(padded, 400, 160, window=window, center=False, return_complex=True)
    power = spectrum[..., : waveform.shape[1] // 160].abs().square()  # (B, 201, 2 T)
    filters = torch.as_tensor(_whisper_filters(num_mel_bins), dtype=torch.float32, device=waveform.device)
    log_mel = torch.einsum("fm,bft->bmt", filters, power).clamp_min(1e-10).log10()
    mask = frame_mask(2 * lengths, log_mel.shape[2])[:, None, :]
    ceiling = log_mel.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
    return ((torch.maximum(log_mel, ceiling - 8) + 4) / 4) * mask


def kaldi_features(waveform: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    """Normalised filter banks of wav2vec2-bert's feature extractor, two 10 ms frames stacked.

    waveform (B, T * 320) with zeros at padding, lengths (B,) -> (B, T, 2 * mels), zeros at padding. The clip is
    followed by 240 zeros so that its last 20 ms have their two frames.
    """
    padded = F.pad(waveform, (0, 240)) * 2**15
    frames = padded.unfold(1, 400, 160)  # (B, 2 T, 400)
    frames = frames - frames.mean(2, keepdim=True)
    frames = torch.cat([frames[..., :1] * (1 - 0.97), frames[..., 1:] - 0.97 * frames[..., :-1]], 2)
    window = torch.as_tensor(window_function(400, "povey", periodic=False), dtype=torch.float32, device=frames.device)
    power = torch.fft.rfft(frames * window, 512).abs().square()
    filters = torch.as_tensor(_kaldi_filters(num_mel_bins), dtype=torch.float32, device=frames.device)
    log_mel = (power @ filters).clamp_min(1.192092955078125e-07).log()  # (B, 2 T, mels)
    mask = frame_mask(2 * lengths, log_mel.shape[1])[..., None]
    count = (2 * lengths)[:, None, None].to(log_mel.dtype)
    centred = (log_mel - (log_mel * mask).sum(1, keepdim=True) / count) * mask
    scaled = centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / (count - 1) + 1e-7)
    return scaled.reshape(len(scaled), -1, 2 * num_mel_bins)


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
            from transformers.models.whisper.modeling_whisper import WhisperEncoder

            self.model = WhisperEncoder(inner)
        else:
            inner.add_adapter = False
            self.model = AutoModel.from_config(inner)
            self._mask_group_norm()
        self._freeze_unused()

    @property
    def layer_types(self) -> list[str]:
        """Names of the classes of its transformer layers."""
        layers = self.model.layers if self.model_type == "whisper" else self.model.encoder.layers
        return sorted({type(layer).__name__ for layer in layers})

    def _freeze_unused(self):
        """What no pooled state depends on must not count as trainable (it would hang distributed training)."""
        unused = ("masked_spec_embed", "layer_norm", "encoder.layer_norm")
        post_norm = getattr(self.model.config, "do_stable_layer_norm", True)
        for name, parameter in self.model.named_parameters():
            module = name.rsplit(".", 1)[0]
            if name in unused or (module in unused and post_norm):
                parameter.requires_grad_(False)

    def _mask_group_norm(self):
        for layer in getattr(getattr(self.model, "feature_extractor", None), "conv_layers", []):
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                masked = MaskedGroupNorm(norm.num_groups, norm.num_channels, norm.eps)
                masked.weight, masked.bias = norm.weight, norm.bias
                layer.layer_norm = masked

    def load_encoder(self, name_or_path: str, **kwargs):
        """Warm-start from a plain encoder repository (`AutoModel.from_pretrained`); unused upper layers are dropped.

        Raises:
            ValueError: the repository is of another type or lacks weights that this encoder needs.
        """
        full, info = AutoModel.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True, **kwargs)
        if full.config.model_type != self.model_type:
            raise ValueError(f"{name_or_path} is of type {full.config.model_type}, not {self.model_type}.")
        prefix = "encoder." if self.model_type == "whisper" else ""
        state = {key.removeprefix(prefix): value for key, value in full.state_dict().items() if key.startswith(prefix)}
        initialised = {name.removeprefix(prefix) for name in info["missing_keys"] if name.startswith(prefix)}
        lacking = self.model.load_state_dict(state, strict=False).missing_keys
        lacking += sorted(initialised & {name for name, p in self.model.named_parameters() if p.requires_grad})
        if lacking:
            raise ValueError(f"{name_or_path} lacks encoder weights, for example {lacking[0]}: give another encoder.")

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One (B, T, H) tensor per chosen layer, zeros at padding.

        Args:
            waveform: (B, N) float, zeros at padding.
            lengths: (B,) real frames of each clip.
        """
        size = int(lengths.max())
        waveform = F.pad(waveform[:, : size * HOP], (0, max(0, size * HOP - waveform.shape[1])))
        waveform = waveform * frame_mask(lengths * HOP, waveform.shape[1])
        if self.normalize and self.model_type not in ("whisper", "wav2vec2-bert"):
            waveform = self._normalize(waveform, lengths)
        if size <= WINDOW_FRAMES:
            return self._encode(waveform, lengths)
        return self._encode_long(waveform, lengths, size)

    def _normalize(self, waveform, lengths):
        mask = frame_mask(lengths * HOP, waveform.shape[1])
        count = (lengths * HOP)[:, None]
        centred = (waveform - waveform.sum(1, keepdim=True) / count) * mask
        return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) / count + 1e-7)

    def _encode_long(self, waveform, lengths, size):
        """30 s windows counted from each clip's start, one batch of windows per 30 s."""
        parts = []
        for start in range(0, size, WINDOW_FRAMES):
            width = min(WINDOW_FRAMES, size - start)
            rows = (lengths > start).nonzero().squeeze(1)
            block = waveform[rows, start * HOP : (start + width) * HOP]
            states = self._encode(block, (lengths[rows] - start).clamp_max(width))
            parts.append([s.new_zeros(len(lengths), width, s.shape[2]).index_copy(0, rows, s) for s in states])
        return tuple(torch.cat(layer, 1) for layer in zip(*parts, strict=True))

    def _encode(self, waveform, lengths):
        mask = frame_mask(lengths, waveform.shape[1] // HOP)
        encode = {"whisper": self._whisper, "wav2vec2-bert": self._wav2vec2_bert}.get(self.model_type, self._wav2vec2)
        return tuple(states * mask[..., None] for states in encode(waveform, lengths, mask))

    def _wav2vec2(self, waveform, lengths, mask):
        waveform = F.pad(waveform, (0, 80))  # the first convolutions span 400 samples: gives T frames for T * 320
        samples = frame_mask(lengths * HOP + 80, waveform.shape[1]).long()
        for layer in self.model.feature_extractor.conv_layers:
            if isinstance(getattr(layer, "layer_norm", None), MaskedGroupNorm):
                kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
                layer.layer_norm.lengths = (lengths * HOP + 80 - kernel) // stride + 1
        dtype = next(self.model.parameters()).dtype
        output = self.model(waveform.to(dtype), attention_mask=samples, output_hidden_states=True)
        return [output.hidden_states[layer] for layer in self.layers]

    def _wav2vec2_bert(self, waveform, lengths, mask):
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            features = kaldi_features(waveform.float(), lengths, self.model.config.feature_projection_input_dim // 2)
        dtype = next(self.model.parameters()).dtype
        output = self.model(features.to(dtype), attention_mask=mask.long(), output_hidden_states=True)
        return [output.hidden_states[layer] for layer in self.layers]

    def _whisper(self, waveform, lengths, mask):
        model = self.model
        dtype = model.conv1.weight.dtype
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            mel = whisper_features(waveform.float(), lengths, model.config.num_mel_bins)
        hidden = F.gelu(model.conv1(mel.to(dtype)))  # real states see no hidden frame past their clip's end
        hidden = F.gelu(model.conv2(hidden)).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        bias = None
        if not bool(mask.all()):
            bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill(~mask, torch.finfo(hidden.dtype).min)[:, None, None, :]
            bias = bias.expand(-1, 1, hidden.shape[1], -1)
        wanted = []
        for depth, layer in enumerate(model.layers, start=1):
            hidden = layer(hidden, attention_mask=bias)
            if depth in self.layers:
                wanted.append(hidden)
        return [wanted[sorted(self.layers).index(layer)] for layer in self.layers]

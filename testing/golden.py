"""Golden numbers: the raw features of a few recordings, kept under the version of the features that gave them.

    python -m testing.golden

writes them anew. It refuses to do so for numbers that moved under a version that is already written: whoever moves
features raises `FEATURE_VERSION` first, so that no cache mixes them with those of before.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import HubertConfig, PreTrainedConfig, Wav2Vec2BertConfig, Wav2Vec2Config, WavLMConfig, WhisperConfig

from modeling_sere import SereConfig, SereModel
from modeling_sere.audio_sere import read_audio
from modeling_sere.dynamics_sere import FEATURE_VERSION

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests" / "golden_features.json"
RECORDINGS = ("MK0_anger_20.flac", "MK0_fear_30.flac", "MK0_sadness_30.flac")
ENCODED_SAMPLES = 12_345  # of each recording; an encoder's block is long to compute and quick to differ
TOLERANCE = 2e-3  # relative to 1 + the size of a number: above the rounding of other processors, below any change
_CONVOLUTIONAL = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def encoders() -> dict[str, PreTrainedConfig]:
    """Give a tiny configuration of each kind of encoder by its name."""
    return {
        "wavlm": WavLMConfig(**_CONVOLUTIONAL),
        "wav2vec2-large": Wav2Vec2Config(**_CONVOLUTIONAL, **_LARGE),
        "hubert": HubertConfig(**_CONVOLUTIONAL),
        "wav2vec2-bert": Wav2Vec2BertConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
            left_max_position_embeddings=16, right_max_position_embeddings=4,
        ),
        "whisper": WhisperConfig(
            d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=64, decoder_layers=1,
            decoder_attention_heads=4, decoder_ffn_dim=64, vocab_size=50, pad_token_id=0, bos_token_id=0,
            eos_token_id=0, decoder_start_token_id=0,
        ),
    }  # fmt: skip


def waveforms() -> list[np.ndarray]:
    """Give the recordings at 16 kHz, and one that is resampled from two channels at 11,025 Hz."""
    clips = [read_audio(str(ROOT / "samples" / "polish" / name)) for name in RECORDINGS]
    time = np.arange(11_025) / 11_025
    chirp = np.sin(2 * np.pi * (120 + 60 * time) * time) * (0.2 + 0.1 * np.sin(2 * np.pi * 3 * time))
    return [*clips, read_audio({"array": np.stack([chirp, 0.5 * chirp]), "sampling_rate": 11_025})]


def features(encoder: PreTrainedConfig | None) -> torch.Tensor:
    """Give raw features (4, D) of the recordings, those of an encoder from numpy's random weights."""
    options = {} if encoder is None else {"encoder_config": encoder, "encoder_layers": [1, 3]}
    model = SereModel(SereConfig(**options)).eval()
    clips = waveforms()
    if encoder is not None:
        random = np.random.RandomState(0)
        with torch.no_grad():
            for _, weight in sorted(model.encoder.named_parameters()):
                drawn = random.standard_normal(tuple(weight.shape)) / max(1, weight[0].numel()) ** 0.5
                weight.copy_(torch.from_numpy(drawn + (weight.ndim == 1)))
        clips = [clip[:ENCODED_SAMPLES] for clip in clips]
    values = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    mask = torch.arange(values.shape[1]) < torch.tensor([len(clip) for clip in clips])[:, None]
    with torch.inference_mode():
        pooled = model.pool(model.frames(values, mask.long()))[1]
    return pooled if encoder is None else pooled[:, -64:]


def moved(old: list, new: torch.Tensor) -> float:
    """Tell by how much the numbers differ, in units of the tolerance; infinite if there are more or fewer of them."""
    known = torch.tensor(old)
    if known.shape != new.shape:
        return float("inf")
    return ((new - known).abs() / (1 + known.abs())).max().item() / TOLERANCE


def read() -> dict:
    """Give what is written: `version` and the numbers of each stream."""
    return json.loads(FILE.read_text()) if FILE.is_file() else {"version": 0, "features": {}}


def main():
    made = {"none": features(None)} | {name: features(config) for name, config in encoders().items()}
    known = read()
    if known["version"] == FEATURE_VERSION:
        changed = [name for name, values in made.items() if moved(known["features"].get(name, []), values) > 1]
        sys.exit(f"Raise FEATURE_VERSION first: {', '.join(changed)} moved." if changed else "Nothing has moved.")
    rounded = {name: [[float(f"{x:.6g}") for x in row] for row in values.tolist()] for name, values in made.items()}
    FILE.write_text(json.dumps({"version": FEATURE_VERSION, "features": rounded}).replace("]], ", "]],\n") + "\n")


if __name__ == "__main__":
    main()

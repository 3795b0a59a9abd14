"""Tiny configurations of every supported type of encoder."""

from transformers import HubertConfig, Wav2Vec2BertConfig, Wav2Vec2Config, WavLMConfig, WhisperConfig

# 16 channels per group, fewer than any released encoder: with 8, oneDNN's bfloat16 kernel for processors with AMX gives
# wrong sums
_CONVOLUTIONAL = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # the variant of the large checkpoints
ENCODERS = {
    "wavlm": (WavLMConfig, _CONVOLUTIONAL),
    "wavlm-large": (WavLMConfig, _CONVOLUTIONAL | _LARGE),
    "wav2vec2": (Wav2Vec2Config, _CONVOLUTIONAL),
    "wav2vec2-large": (Wav2Vec2Config, _CONVOLUTIONAL | _LARGE),
    "hubert": (HubertConfig, _CONVOLUTIONAL),
    "wav2vec2-bert": (
        Wav2Vec2BertConfig,
        {
            "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64,
            "left_max_position_embeddings": 16, "right_max_position_embeddings": 4,
        },
    ),
    "whisper": (
        WhisperConfig,
        {
            "d_model": 32, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": 50,
            "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0,
        },
    ),
}  # fmt: skip


def encoder_config(name: str, **changes):
    """Return a tiny encoder's configuration, with fields that differ."""
    kind, options = ENCODERS[name]
    return kind(**(options | changes))

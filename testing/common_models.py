"""SERE in transformers' own common tests: pytest runs this file for `python -m benchmarks.common_tests`.

`tests.test_modeling_common` is that of transformers here, which the command has unpacked in front of this repository.
"""

import json
import unittest

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor
from transformers.models.auto import modeling_auto

from modeling_sere import SereConfig, SereForAudioClassification, SereModel
from testing.encoders import encoder_config

KINDS = ("none", "wavlm", "wav2vec2", "hubert", "wav2vec2-bert", "whisper")
FRAMES = 25

# the mixin finds out by name what inputs and labels a class takes
modeling_auto.MODEL_MAPPING_NAMES[SereConfig.model_type] = SereModel.__name__
modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES[SereConfig.model_type] = SereForAudioClassification.__name__


class SereTester:
    """Configurations and inputs of one kind of encoder."""

    batch_size, is_training = 3, True
    seq_length = encoder_seq_length = FRAMES

    def __init__(self, kind: str):
        self.encoder = {} if kind == "none" else {"encoder_config": encoder_config(kind), "encoder_layers": [1, 2]}
        self.num_hidden_layers = 0 if kind == "none" else 2
        config = self.get_config()
        self.hidden_size = SereModel(config).dynamics(torch.zeros(1, 400), torch.ones(1, 400)).frames.shape[-1]
        if kind != "none":
            self.hidden_size, self.num_attention_heads = config.encoder_config.hidden_size, 4

    def get_config(self) -> SereConfig:
        return SereConfig(**self.encoder)

    def prepare_config_and_inputs_for_common(self):
        waveform = floats_tensor([self.batch_size, FRAMES * 320], scale=0.5)
        mask = torch.ones(self.batch_size, FRAMES * 320, dtype=torch.long)
        return self.get_config(), {"input_values": waveform - 0.25, "attention_mask": mask}


class SereCommonTests(ModelTesterMixin):
    """The mixin on both models; a class of this file's end is one kind of encoder."""

    kind = "none"
    all_model_classes = (SereModel, SereForAudioClassification)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = SereTester(self.kind)
        self.has_attentions = self.kind != "none"
        self._is_composite = self.kind != "none"
        fields = json.loads(self.model_tester.get_config().to_json_string())
        encoder = {name: fields[name] for name in self.model_tester.encoder}
        self.config_tester = ConfigTester(self, config_class=SereConfig, has_text_modality=False, **encoder)

    def test_config(self):
        self.config_tester.run_common_tests()


for kind in KINDS:
    name = f"Test_{kind}".replace("-", "_")
    globals()[name] = type(name, (SereCommonTests, unittest.TestCase), {"kind": kind, "__module__": __name__})

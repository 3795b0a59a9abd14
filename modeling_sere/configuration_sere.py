"""Configuration of SERE models: every size and every constant of the field and the loss, validated."""

import copy
import math
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

# How each emotion tends to sound, in units of a speaker's own standard deviations: F0 level, F0 variability,
# loudness, high-frequency energy, tempo. Written from the literature on vocal emotion (docs/method.md, "Prior"),
# never fitted to data.
EMOTION_PROFILE = {
    "anger": [0.5, 0.5, 1.0, 1.0, 0.5],
    "happiness": [0.7, 0.7, 0.5, 0.5, 0.5],
    "fear": [0.7, -0.5, -0.3, -0.2, 0.7],
    "sadness": [-0.5, -1.0, -1.0, -1.0, -1.0],
    "disgust": [-0.5, 0.0, -0.2, 0.0, -0.7],
    "surprise": [1.0, 1.0, 0.3, 0.2, 0.3],
    "neutral": [-0.8, -0.7, -0.4, -0.4, 0.2],
}
NUM_CUES = 5
FRAME_SAMPLES = 320  # samples per frame of every stream: 20 ms at 16 kHz
MAX_LABELS = 1000
MAX_LABEL_LENGTH = 1000
LEAST_POSITIVE = 1e-6  # of a divisor: quotients stay finite in single precision
MAX_SOURCES = 1_000_000
MAX_DEPTH = 200  # layers of an encoder, or of its convolutions
PROBLEMS = (None, "single_label_classification", "multi_label_classification", "regression")
SUPPORTED_ENCODERS = ("wavlm", "wav2vec2", "hubert", "wav2vec2-bert", "whisper")


def default_layers(num_layers: int) -> list[int]:
    """Return the layers at one third, one half and two thirds of an encoder's depth, without repetition."""
    return sorted({max(1, round(num_layers * part)) for part in (1 / 3, 1 / 2, 2 / 3)})


class SereConfig(PreTrainedConfig):
    r"""Configuration of [`SereModel`] and [`SereForAudioClassification`].

    Args:
        encoder_config (`PreTrainedConfig`, `dict` or `None`): the semantic stream's encoder, of type WavLM, wav2vec2,
            HuBERT, wav2vec2-bert or Whisper (its encoder half). `None`: the dynamics stream only.
        encoder_layers (`list[int]`, *optional*): the hidden states that are pooled, 1 = after the first layer.
            Default: at one third, one half and two thirds of the encoder's depth.
        encoder_normalize (`bool`): bring each clip to zero mean and unit variance before a waveform encoder
            (`do_normalize` of its own feature extractor).
        encoder_weight (`float`): weight of each encoder layer's block in the resonance, the dynamics block being 1.
        num_voice_groups (`int`): groups of voices with statistics of their own, found without labels: 2, or 1 for none.
        prior_profile (`dict[str, list[float]]`): the prior: emotion -> five cues (F0 level, F0 variability, loudness,
            high-frequency energy, tempo). Emotions without an entry get no prior; an empty dict switches it off.
        prior_weight (`float`): weight of the prior beside the labelled sources.
        ridge (`float`): damping of the response to the labelled sources.
        field_damping (`float`): modes of the resonance matrix weaker than this are damped by the field.
        field_sharpness (`float`): factor before the softmax of every round.
        field_rounds (`int`): rounds of self-organisation; 0 leaves the start.
        nuisance_rounds (`int`): how often the field is organised again without what groups of clips share apart from
            their emotion; 0 leaves it.
        field_passes (`int`): how often everything is normalised, whitened and organised again with what the posteriors
            of the pass before tell of speakers and emotions; 0 leaves the first.
        field_balance (`float`): strength of the Sinkhorn balance towards the class prior, 0 (none) to 1 (exact).
        tric_weight, tric_temperature (`float`): weight and temperature of the TRIC loss.
        visit_weight (`float`): weight, inside TRIC, of the term that asks for every unlabelled clip to be visited.
        consistency_weight (`float`): weight of the agreement between two views of each unlabelled clip.
        view_dropout (`float`): share of standardised features dropped in the second view.
        num_sources (`int`): labelled clips whose embeddings travel in the checkpoint.
        source_corpus (`dict[str, str]`): what is known of the corpus they come from: "name", "language", "license".

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    model_type = "sere-resonance"  # a name that no upstream architecture will take
    sub_configs = {"encoder_config": AutoConfig}  # attn_implementation and dtype reach the encoder by this
    keys_to_ignore_at_inference = [  # what transformers' Trainer does not gather: its predictions are the logits
        "hidden_states",
        "attentions",
        "highlights",
        "embeddings",
        "features",
        "loss_classification",
        "loss_tric",
        "loss_consistency",
    ]

    def __init__(
        self,
        encoder_config=None,
        encoder_layers=None,
        encoder_normalize=True,
        encoder_weight=2.0,
        num_voice_groups=2,
        prior_profile=None,
        prior_weight=2.0,
        ridge=1.0,
        field_damping=2.0,
        field_sharpness=2.0,
        field_rounds=10,
        nuisance_rounds=3,
        field_passes=3,
        field_balance=0.5,
        tric_weight=0.0,
        tric_temperature=0.1,
        visit_weight=0.5,
        consistency_weight=0.0,
        view_dropout=0.2,
        num_sources=0,
        source_corpus=None,
        **kwargs,
    ):
        self.encoder_config = _encoder_config(encoder_config)
        if encoder_layers is None:
            encoder_layers = [] if encoder_config is None else default_layers(self.encoder_config.num_hidden_layers)
        self.encoder_layers = list(encoder_layers) if isinstance(encoder_layers, tuple) else encoder_layers
        self.encoder_normalize = encoder_normalize
        self.encoder_weight = encoder_weight
        self.num_voice_groups = num_voice_groups
        self.prior_profile = copy.deepcopy(EMOTION_PROFILE) if prior_profile is None else prior_profile
        self.prior_weight = prior_weight
        self.ridge = ridge
        self.field_damping = field_damping
        self.field_sharpness = field_sharpness
        self.field_rounds = field_rounds
        self.nuisance_rounds = nuisance_rounds
        self.field_passes = field_passes
        self.field_balance = field_balance
        self.tric_weight = tric_weight
        self.tric_temperature = tric_temperature
        self.visit_weight = visit_weight
        self.consistency_weight = consistency_weight
        self.view_dropout = view_dropout
        self.num_sources = num_sources
        self.source_corpus = {} if source_corpus is None else source_corpus
        count = kwargs.get("num_labels")
        if count is not None and (type(count) is not int or not 2 <= count <= MAX_LABELS):  # before a name for each
            raise ValueError(f"num_labels must be a whole number from 2 to {MAX_LABELS}, not {count!r}.")
        if kwargs.get("transformers_weights") is not None:  # transformers would read that file, which may be a pickle
            raise ValueError("transformers_weights must not be set: the weights of SERE are in model.safetensors.")
        if not isinstance(kwargs.get("id2label", {}), (dict, type(None))):
            raise ValueError(f"id2label must map 0, 1, ... to emotions, not be {kwargs['id2label']!r}.")
        super().__init__(**_both_ways(kwargs))
        self._number_labels()
        self._validate()

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build as in transformers; values given at loading are validated too, and code from elsewhere is refused.

        Raises:
            ValueError: a field is out of its range, or names code of another repository.
        """
        if not isinstance(config_dict, dict):
            raise ValueError("config.json is none of a SERE model: it holds no JSON object.")
        names = config_dict.get("id2label")
        if isinstance(names, dict) and len(names) > MAX_LABELS:  # before a copy is made of them
            raise ValueError(f"num_labels must be from 2 to {MAX_LABELS}, not {len(names)}: give id2label.")
        _refuse_foreign_code(config_dict)
        try:
            result = super().from_dict(config_dict, **_both_ways(kwargs))
            config = result[0] if isinstance(result, tuple) else result
            config._number_labels()
            config._validate()
        except ValueError as error:
            raise ValueError(_one_sentence(error)) from error
        except Exception as error:  # transformers meets what is in a stranger's file in many places
            raise ValueError(f"config.json is none of a SERE model ({_one_sentence(error)}).") from error
        return result

    def _number_labels(self):
        """Take numbers that are written as text, as JSON and many training scripts have them, for numbers."""
        self.id2label = {_whole(index): label for index, label in self.id2label.items()}
        named = self.label2id or {label: index for index, label in self.id2label.items()}
        self.label2id = {label: _whole(index) for label, index in named.items()}

    @property
    def labels(self) -> list[str]:
        """Emotion names in the order of the logits."""
        return [self.id2label[i] for i in range(self.num_labels)]

    def validate_labels(self) -> None:
        """Pass if there is one name for each emotion, both ways. Raises ValueError: what is wrong with them."""
        if not 2 <= self.num_labels <= MAX_LABELS:
            raise ValueError(f"num_labels must be from 2 to {MAX_LABELS}, not {self.num_labels}: give id2label.")
        names = list(self.id2label.values())
        proper = all(isinstance(name, str) and len(name) <= MAX_LABEL_LENGTH for name in names)
        if set(self.id2label) != set(range(self.num_labels)) or not proper or len(set(names)) < self.num_labels:
            shown = str(self.id2label)[:200]
            raise ValueError(f"id2label must map 0, 1, ... to different emotions, not be {shown}.")
        if self.label2id != {label: index for index, label in self.id2label.items()}:
            raise ValueError(f"label2id is {str(self.label2id)[:200]}, which contradicts id2label: leave it out.")

    def _validate(self):
        at_least = {
            "encoder_weight": 0,
            "prior_weight": 0,
            "ridge": LEAST_POSITIVE,
            "field_damping": LEAST_POSITIVE,
            "field_sharpness": LEAST_POSITIVE,
            "tric_weight": 0,
            "tric_temperature": LEAST_POSITIVE,
            "visit_weight": 0,
            "consistency_weight": 0,
        }
        for name, low in at_least.items():
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= 1e6:
                raise ValueError(f"{name} must be a number from {low} to 1000000, not {value!r}.")
        for name, low, high in (("field_balance", 0, 1), ("view_dropout", 0, 0.95)):
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low} to {high}, not {value!r}.")
        for name, low, high in (
            ("field_rounds", 0, 100), ("nuisance_rounds", 0, 20), ("field_passes", 0, 100),
            ("num_sources", 0, MAX_SOURCES), ("num_voice_groups", 1, 2),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
        self.validate_labels()
        if self.problem_type not in PROBLEMS:
            raise ValueError(f"problem_type must be one of {', '.join(map(str, PROBLEMS))}, not {self.problem_type!r}.")
        if self.problem_type not in PROBLEMS[:2] and (self.tric_weight or self.consistency_weight):
            raise ValueError(f"tric_weight and consistency_weight must be 0 with problem_type {self.problem_type!r}.")
        if not isinstance(self.encoder_normalize, bool):
            raise ValueError(f"encoder_normalize must be true or false, not {self.encoder_normalize!r}.")
        if not isinstance(self.prior_profile, dict) or not all(isinstance(name, str) for name in self.prior_profile):
            raise ValueError(f"prior_profile must map emotions to cues, not be {self.prior_profile!r}.")
        corpus = self.source_corpus
        known = isinstance(corpus, dict) and corpus.keys() <= {"name", "language", "license"}
        if not known or not all(isinstance(text, str) for text in corpus.values()):
            raise ValueError(f'source_corpus must map "name", "language" or "license" to texts, not be {corpus!r}.')
        for emotion, cues in self.prior_profile.items():
            if not isinstance(cues, (list, tuple)) or len(cues) != NUM_CUES or not all(map(_is_number, cues)):
                raise ValueError(f"prior_profile[{emotion!r}] must be {NUM_CUES} finite numbers, not {cues!r}.")
        self._validate_encoder()

    def _validate_encoder(self):
        if self.encoder_config is None:
            if self.encoder_layers:
                raise ValueError("encoder_layers is given but encoder_config is None: drop one of the two.")
            return
        stride = math.prod(getattr(self.encoder_config, "conv_stride", [FRAME_SAMPLES]))
        if stride != FRAME_SAMPLES:
            raise ValueError(
                f"encoder_config must give a state every {FRAME_SAMPLES} samples (conv_stride), not every {stride}."
            )
        depth = self.encoder_config.num_hidden_layers
        convolutions = len(getattr(self.encoder_config, "conv_stride", []))
        if type(depth) is not int or not 1 <= depth <= MAX_DEPTH or convolutions > MAX_DEPTH:
            raise ValueError(f"encoder_config must have from 1 to {MAX_DEPTH} layers, not {depth!r}.")
        layers = self.encoder_layers
        valid = isinstance(layers, list) and all(type(layer) is int and 1 <= layer <= depth for layer in layers)
        if not valid or not layers or len(set(layers)) < len(layers):
            raise ValueError(f"encoder_layers must be different whole numbers from 1 to {depth}, not {layers!r}.")


def _both_ways(options: dict[str, Any]) -> dict[str, Any]:
    """Return names of emotions that are given one way, in both; what is no mapping of numbers is left to be refused."""
    one = {key: options[key] for key in ("id2label", "label2id") if isinstance(options.get(key), dict) and options[key]}
    if len(one) != 1:
        return options
    ((key, names),) = one.items()
    other = {value: name for name, value in names.items() if isinstance(value, (str, int))}
    if key == "id2label":
        return {**options, "label2id": other}
    return {**options, "id2label": {_whole(index): label for index, label in other.items()}}


def _refuse_foreign_code(values: dict):
    """Refuse "owner/name--" before a class and a kernel "owner/name", the newest code of that repository."""
    parts = [part for part in (values, values.get("encoder_config")) if isinstance(part, dict)]
    classes = [text for part in parts for key in ("auto_map", "custom_pipelines") for text in _texts(part.get(key))]
    foreign = [place.partition("--")[0] for place in classes if "--" in place]
    kernels = [text for part in parts for key, value in part.items() if "attn_implementation" in key.lower()
               for text in _texts(value)]  # fmt: skip
    foreign += [kernel for kernel in kernels if "/" in kernel]
    if foreign:
        raise ValueError(
            f"config.json takes code from {foreign[0][:100]}, and a pinned revision does not reach there: ask the "
            "model's owner to put its code beside it."
        )


def _texts(value: Any) -> list[str]:
    """Collect all texts in something of JSON, however deep."""
    found, waiting = [], [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
    return found


def _one_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _encoder_config(value) -> PreTrainedConfig | None:
    """Read the encoder's configuration from an object (copied), a dict or None."""
    if value is None:
        return None
    model_type = value.get("model_type") if isinstance(value, dict) else getattr(value, "model_type", None)
    if model_type not in SUPPORTED_ENCODERS:
        raise ValueError(
            f"encoder_config has model_type {model_type!r}; supported encoders are {', '.join(SUPPORTED_ENCODERS)}."
        )
    try:
        config = AutoConfig.for_model(**value) if isinstance(value, dict) else copy.deepcopy(value)
    except Exception as error:  # transformers checks types in its own way, and raises what is no ValueError
        raise ValueError(f"encoder_config is none of {model_type}: {' '.join(str(error).split())}.") from error
    config.name_or_path = ""  # else a path of the machine that trained would travel in config.json
    config.dtype = None  # the encoder is built in the dtype that the whole model is asked for
    return config


def _whole(index):
    """Return the number that a text of digits is, or whatever else was given."""
    return int(index) if isinstance(index, str) and index.isdecimal() else index


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

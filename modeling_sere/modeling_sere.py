"""SERE models: `SereModel` (frames, highlights, embeddings) and `SereForAudioClassification` (logits and losses)."""

import math
import os
import sys
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file, logging

from .card_sere import UNNAMED, put_card
from .configuration_sere import NUM_CUES, SereConfig
from .dynamics_sere import CUES, FRAME_NAMES, FUNCTIONAL_NAMES, SereDynamics, from_onset
from .embedding_sere import SereEmbedding, moments
from .encoder_sere import SereEncoder, frame_lengths
from .published_sere import CARD, check_writable, published
from .resonance_sere import UNLABELLED, LinearMap, TripleResonanceInteractionChain
from .weights_sere import check_beside, check_finite, check_weights

logger = logging.get_logger(__name__)

NOT_FINITE = (
    "The model gives logits that are not finite: the input holds NaN, the weights are damaged, or their precision is "
    "too low (load them with dtype=torch.float32)."
)


class SereFrames(NamedTuple):
    """Frames of clips, computed once; everything after it is cheap."""

    dynamics: torch.Tensor  # (B, T, U) frame descriptors
    functionals: torch.Tensor  # (B, F)
    states: tuple[torch.Tensor, ...]  # per encoder layer (B, T, H)
    mask: torch.Tensor  # (B, T) bool
    hidden_states: tuple[torch.Tensor, ...] | None = None  # as in SereModelOutput
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class SereModelOutput(ModelOutput):
    """Output of [`SereModel`].

    last_hidden_state: (B, T, H) state of the last encoder layer in use, or the frame descriptors without an encoder.
    highlights: (B, T) weight of each 20 ms frame, >= 0, summing to 1 over a clip's real frames, 0 at padding.
    features: (B, D) pooled features before normalisation.
    embeddings: (B, D) normalised, unit length: their dot product is the resonance of two clips.
    cues: (B, 5) standardised cues of the prior.
    frame_mask: (B, T) 1 on real frames, 0 at padding.
    hidden_states: with `output_hidden_states` only: (B, T, H) of the encoder before its first layer and after each of
        the layers that it is built with; the frame descriptors alone without an encoder.
    attentions: with `output_attentions` only: (B, heads, T, T) in each of these layers; None without an encoder.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    highlights: torch.Tensor | None = None
    features: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    cues: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None


@dataclass
class SereClassifierOutput(SequenceClassifierOutput):
    """`SequenceClassifierOutput` with the parts of the loss and what explains the logits.

    loss: scalar, with `labels` only; its parts are loss_classification, loss_tric (with its visit term) and
    loss_consistency, each unweighted. logits: (B, C). highlights: (B, T). embeddings: (B, D). features: (B, D).
    hidden_states, attentions: as in [`SereModelOutput`].
    """

    highlights: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    features: torch.Tensor | None = None
    loss_classification: torch.Tensor | None = None
    loss_tric: torch.Tensor | None = None
    loss_consistency: torch.Tensor | None = None


class SerePreTrainedModel(PreTrainedModel):
    config_class = SereConfig
    base_model_prefix = "sere"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # statistics and the organised map keep their digits when the encoder is loaded in half precision
    # (regular expressions: a plain "embedding" would also match inside encoders)
    _keep_in_fp32_modules_strict = [r"\bembedding\b", "highlight_weight"]
    _origin = ("", False)  # the folder, or the name on the Hub, that the weights came from, and whether it is the Hub
    accepts_loss_kwargs = False  # the loss is a mean: Trainer must divide it by the gradient accumulation steps itself

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, SereModel):
            init.zeros_(module.highlight_weight)
        elif isinstance(module, SereEmbedding):
            for tensor in (module.log_gain, module.statistics, module.voice_weight, module.voice_bias):
                init.zeros_(tensor)
            init.ones_(module.cue_std)
            init.copy_(module.cue_map, cue_map())
        elif isinstance(module, SereForAudioClassification):
            if module.source_labels is not None:
                init.zeros_(module.source_embeddings)
                init.zeros_(module.source_cues)
                init.constant_(module.source_labels, UNLABELLED)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """Load as in transformers, but from `model.safetensors` only: reading a pickle can run whatever code is in it.

        An index of several files is not followed, as it may name pickles. The file is checked before it is read.

        Raises:
            OSError: there is no such file, or the repository cannot be reached.
            ValueError: the file does not hold what config.json calls for, or holds NaN (see `check_weights`), or a file
                beside it would change the model or run other code (see `check_beside`).
        """
        name = pretrained_model_name_or_path
        if name is None:
            return super().from_pretrained(name, *model_args, **kwargs)
        options = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
        place = {option: kwargs[option] for option in options if kwargs.get(option) is not None}
        if (kwargs.get("adapter_kwargs") or {}).get("_adapter_model_path") is not None:
            raise ValueError(
                f"{kwargs['adapter_kwargs']['_adapter_model_path']} has adapters: load {name} by its name."
            )
        check_beside(name, place, feature_extractor().to_dict())
        weights = cached_file(name, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **place)
        if weights is None:
            raise OSError(
                f"{name} has no {SAFE_WEIGHTS_NAME}: SERE reads no other weights, as a pickle (pytorch_model.bin) "
                "can run code; ask its owner to save it as safetensors, in one file."
            )
        config = kwargs.get("config")
        if not isinstance(config, PreTrainedConfig):
            others = {**kwargs, "return_unused_kwargs": True}
            config, _ = SereConfig.from_pretrained(name if config is None else config, **others)
        check_weights(weights, str(name), cls, config, bool(kwargs.get("ignore_mismatched_sizes")))
        loaded = super().from_pretrained(name, *model_args, **{**kwargs, "use_safetensors": True})
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for module in model.modules():
            if isinstance(module, SereEncoder):
                module.freeze_unused()  # loading forgets what was frozen
        check_finite(model, str(name))
        if isinstance(model, SereForAudioClassification):
            model.follow_labels(cls._labels_of(name, place) or model.config.labels, str(name))
        on_hub = not os.path.isdir(name)
        model._origin = (str(name) if on_hub else os.path.abspath(name), on_hub)
        return loaded

    @staticmethod
    def _labels_of(name, place: dict) -> list[str] | None:
        """Return names of the emotions of weights, as their config.json has them whatever is given at loading."""
        try:
            return SereConfig.from_pretrained(name, **place).labels
        except OSError:  # weights alone, whose configuration was given
            return None

    def save_pretrained(self, save_directory, is_main_process=True, **kwargs):
        """Save as in transformers, and write the feature extractor's preprocessor_config.json and the pipeline's code.

        A card is written where there is none: that of the folder the weights came from, if they are unchanged, or one
        that says that nothing was measured. Weights are always one file, model.safetensors, as no other is read.

        Raises:
            ValueError: a file that would be written is a link or no regular file (see `check_writable`), a `variant` is
                given, or the model has adapters, which are never read beside the weights.
        """
        from .pipeline_sere import SerePipeline  # this line makes the pipeline's files travel with the model's

        self.config.custom_pipelines = {
            "audio-classification": {
                "impl": f"pipeline_sere.{SerePipeline.__name__}",
                "pt": ["AutoModelForAudioClassification"],
                "type": "audio",
            }
        }
        self.config.auto_map = {
            "AutoConfig": "configuration_sere.SereConfig",
            "AutoModel": "modeling_sere.SereModel",
            "AutoModelForAudioClassification": "modeling_sere.SereForAudioClassification",
        }
        if kwargs.get("variant") is not None:
            raise ValueError(f"variant is {kwargs['variant']!r}; SERE reads {SAFE_WEIGHTS_NAME} only: leave it out.")
        if getattr(self, "_hf_peft_config_loaded", False):
            raise ValueError("The model has adapters, which would be left out: merge them into its weights first.")
        if is_main_process:
            check_writable(save_directory)
            feature_extractor().save_pretrained(save_directory)
        self.config.validate_labels()
        if self.config.encoder_config is not None:
            self.config.encoder_config.dtype = None  # the encoder's is the model's own
        kwargs["max_shard_size"] = sys.maxsize
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process and not os.path.exists(os.path.join(save_directory, CARD)):
            self._put_card(save_directory, UNNAMED)

    def _put_card(self, folder, repo_id: str):
        put_card(folder, repo_id, *self._origin, self.config.labels, self.config.source_corpus)

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=None, **kwargs):
        """Switch it on as in transformers, where WavLM's layers in re-entrant checkpoints call each other for ever."""
        encoder = getattr(self, self.base_model_prefix, self).encoder
        reentrant = getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant")
        if enable and reentrant and encoder is not None and encoder.model_type == "wavlm":
            raise ValueError("WavLM's position bias needs gradient_checkpointing_kwargs={'use_reentrant': False}.")
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    def _gives_dict(self, return_dict: bool | None) -> bool:
        return self.config.return_dict if return_dict is None else return_dict

    def _upload_modified_files(self, working_dir, repo_id, files_timestamps, **kwargs):
        """Commit at once, for `push_to_hub`, all files that `published` names, however old, and no others.

        Before it transformers' empty card makes way for one of this model: there is no public place between its saving
        and its uploading.
        """
        self._put_card(working_dir, repo_id)
        files = published(working_dir)
        ours = {name.partition("/")[0] for name in files}
        if "plots" in ours:  # transformers takes all of a folder
            names = [f"plots/{name}" for name in sorted(os.listdir(os.path.join(working_dir, "plots")))]
            if foreign := [name for name in names if name not in files]:
                raise ValueError(f"{working_dir} has {foreign[0]}, which is no plot of the card: move it away to push.")
        others = {name: math.inf for name in os.listdir(working_dir) if name not in ours}  # never newer than this
        return super()._upload_modified_files(working_dir, repo_id, others, **kwargs)


def feature_extractor() -> Wav2Vec2FeatureExtractor:
    """Return the stock feature extractor that pads waveforms and changes nothing else."""
    return Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


def called(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a layer gives in the precision of its weights, in float32.

    It is called, so that whatever was put in its place or around it takes part: adapters, quantised layers, hooks.
    """
    dtypes = (p.dtype for p in layer.parameters() if p.is_floating_point())
    return layer(inputs.to(next(dtypes, torch.float32))).float()


def cue_map() -> torch.Tensor:
    """Return (F, 5): column k holds the signs of cue k's functionals over their number."""
    names = FUNCTIONAL_NAMES
    table = torch.zeros(len(names), NUM_CUES, dtype=torch.float32)
    for column, signs in enumerate(CUES.values()):
        for name, sign in signs.items():
            table[names.index(name), column] = sign / len(signs)
    return table


class SereModel(SerePreTrainedModel):
    """Waveform -> frames of two streams -> highlights -> embedding.

    Source: arXiv:2604.07417 for the idea of highlights; formulae in docs/method.md ("Highlights", "Embedding").
    """

    # a classifier's checkpoint loads as the base model without a word about its head
    _keys_to_ignore_on_load_unexpected = [r"^classifier\.", r"^cue_classifier\.", r"^source_"]

    def __init__(self, config: SereConfig):
        super().__init__(config)
        self.dynamics = SereDynamics()
        self.encoder = SereEncoder(config) if config.encoder_config is not None else None
        width = len(FRAME_NAMES)
        sizes = [len(FUNCTIONAL_NAMES) + width]
        if self.encoder is not None:
            sizes += [self.encoder.hidden_size] * len(config.encoder_layers)
        self.highlight_weight = nn.Parameter(torch.zeros(width, dtype=torch.float32))
        self.embedding = SereEmbedding(config, sizes, cue_map())
        self.gradient_checkpointing = False  # transformers looks for it; the encoder's layers have their own
        # device maps and FSDP cut between these
        self._no_split_modules = [] if self.encoder is None else self.encoder.layer_types
        self.post_init()

    def get_input_embeddings(self):
        """Return None: waveforms have no table of embeddings."""
        return None

    def freeze_base_model(self):
        """Stop gradients into the encoder: what stays trainable are highlight weights, gains and classifier."""
        if self.encoder is not None:
            self.encoder.requires_grad_(False)

    def freeze_feature_encoder(self):
        """Stop gradients into the encoder's convolutions, if there are any."""
        if self.encoder is not None:
            self.encoder.freeze_feature_encoder()

    def frames(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> SereFrames:
        """Compute both streams of (B, N) waveforms at 16 kHz; `attention_mask` (B, N), default all real."""
        if input_values.ndim != 2:
            raise ValueError(f"input_values must be (batch, samples), not {tuple(input_values.shape)}.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        if attention_mask.shape != input_values.shape:
            raise ValueError(
                f"attention_mask must have the shape of input_values, {tuple(input_values.shape)}, "
                f"not {tuple(attention_mask.shape)}."
            )
        if not torch.compiler.is_compiling():  # a graph must not look at values
            longest = int(attention_mask.long().sum(1).max())  # padding beyond it costs time for nothing
            input_values, attention_mask = input_values[:, :longest], attention_mask[:, :longest]
            if not bool((input_values.float() * attention_mask).square().sum().isfinite()):
                raise ValueError("input_values hold NaN, or numbers far beyond those of samples from -1 to 1.")
        waveform, attention_mask = from_onset(input_values.float(), attention_mask)
        dynamics = self.dynamics(waveform, attention_mask)
        streams = dynamics.frames, dynamics.functionals
        if self.encoder is None:
            hidden_states = (dynamics.frames,) if output_hidden_states else None
            return SereFrames(*streams, (), dynamics.frame_mask, hidden_states)
        encoded = self.encoder(waveform, frame_lengths(attention_mask), output_hidden_states, output_attentions)
        return SereFrames(*streams, encoded.states, dynamics.frame_mask, encoded.hidden_states, encoded.attentions)

    def highlights(self, dynamics: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (B, T) softmax over time of standardised loudness plus the learned refinement ("highlights")."""
        count = mask.sum(1, keepdim=True)[..., None]
        masked = dynamics.float() * mask[..., None]
        centred = (masked - masked.sum(1, keepdim=True) / count) * mask[..., None]
        std = (centred.square().sum(1, keepdim=True) / count + 1e-12).sqrt()
        standardised = centred / std.clamp_min(1e-4)
        scores = standardised[..., FRAME_NAMES.index("log_energy")] + standardised @ self.highlight_weight.float()
        return torch.softmax(scores.masked_fill(~mask, -torch.inf), 1)

    def pool(self, frames: SereFrames) -> tuple[torch.Tensor, torch.Tensor]:
        """Pool frames into highlights (B, T) and raw features (B, D), in float32."""
        with torch.autocast(device_type=frames.mask.device.type, enabled=False):
            highlights = self.highlights(frames.dynamics, frames.mask)
            streams = (frames.dynamics, *frames.states)
            pooled = [torch.einsum("bt,bth->bh", highlights, stream.float()) for stream in streams]
            return highlights, torch.cat([frames.functionals.float(), *pooled], 1)

    def speaker_statistics(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None):
        """Return the statistics (2, D) of one speaker from earlier clips (n, N), for `statistics=` of `forward`.

        Few clips say little: their statistics are shrunk towards the domain's (equation "enrolment").
        """
        return self.enrol(self(input_values, attention_mask, return_dict=True).features)

    @torch.no_grad()
    def estimate_statistics(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """Take the statistics of a domain from some of its clips (n, N), of which no labels are needed.

        It is what a model from a configuration lacks; train_sere.py does more, with groups of voices.
        """
        _, features = self.pool(self.frames(input_values, attention_mask))
        embedding = self.embedding
        embedding.statistics.copy_(moments(features.float()).expand_as(embedding.statistics))
        embedding.cue_std.copy_(embedding.raw_cues(embedding.standardised(features.float())).std(0, correction=0))

    def enrol(self, features: torch.Tensor) -> torch.Tensor:
        """Compute `speaker_statistics` from raw features (n, D)."""
        return self.embedding(features, enrol=True)

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        statistics: torch.Tensor | None = None,
        frames: SereFrames | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SereModelOutput:
        """Embed clips.

        Args:
            input_values: (B, N) waveform at 16 kHz in [-1, 1]. attention_mask: (B, N), 0 at padding.
            statistics: (2, D) or (B, 2, D) from `speaker_statistics`; default: the checkpoint's target domain.
            frames: both streams from `SereModel.frames`, in place of the waveform, where they were kept.
            output_hidden_states, output_attentions, return_dict: as in transformers; default: the configuration's. An
                index or a list of indices gives these hidden states, and None in place of the others.

        Raises:
            ValueError: neither or both of input_values and frames, input_values is not (B, N), statistics have another
                size, or attentions of more than 30 s are asked for.
        """
        if (input_values is None) == (frames is None):
            raise ValueError("Give either input_values or frames.")
        if frames is None:
            more = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            attentions = self.config.output_attentions if output_attentions is None else output_attentions
            wanted = more is not None and more is not False
            frames = self.frames(input_values, attention_mask, wanted, attentions)  # type: ignore[arg-type]  # seen above
            frames = frames._replace(hidden_states=_selected(frames.hidden_states, more))
        highlights, features = self.pool(frames)
        embeddings, cues = self.embedding(features, statistics)
        output = SereModelOutput(
            last_hidden_state=frames.states[-1] if frames.states else frames.dynamics,
            highlights=highlights,
            features=features,
            embeddings=embeddings,
            cues=cues,
            frame_mask=frames.mask.long(),
            hidden_states=frames.hidden_states,
            attentions=frames.attentions,
        )
        return output if self._gives_dict(return_dict) else output.to_tuple()


def _selected(hidden_states: tuple | None, wanted: bool | int | list[int] | None) -> tuple | None:
    if hidden_states is None or wanted is None or isinstance(wanted, bool):
        return hidden_states
    count = len(hidden_states)
    kept = {index % count for index in ([wanted] if isinstance(wanted, int) else wanted) if -count <= index < count}
    return tuple(states if index in kept else None for index, states in enumerate(hidden_states))


class SereForAudioClassification(SerePreTrainedModel):
    """A SERE model with the organised field as its classifier.

    Organising leaves a linear map of the embedding (`LinearMap`), kept here as ordinary parameters, so that one
    clip needs no other data and any training loop can go on from there. The labelled sources travel as buffers:
    `source_embeddings` (M, D), `source_cues` (M, 5), `source_labels` (M,); all are None in a model that carries none.
    """

    _keep_in_fp32_modules_strict = ["classifier"]
    # of earlier versions: sources written empty where a model carried none, and the map of the cues (`check_weights`)
    _keys_to_ignore_on_load_unexpected = [r"^source_", r"^cue_classifier\."]

    def __init__(self, config: SereConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.sere = SereModel(config)
        size = sum(self.sere.embedding.block_sizes)
        self.classifier = nn.Linear(size, config.num_labels, dtype=torch.float32)
        self.tric = TripleResonanceInteractionChain(config)
        self.source_embeddings: torch.Tensor
        self.source_cues: torch.Tensor
        self.source_labels: torch.Tensor
        count, kind = config.num_sources, torch.float32
        if count:
            self._keep_in_fp32_modules_strict = [*self._keep_in_fp32_modules_strict, "source_(embeddings|cues)"]
        self.register_buffer("source_embeddings", torch.zeros(count, size, dtype=kind) if count else None)
        self.register_buffer("source_cues", torch.zeros(count, NUM_CUES, dtype=kind) if count else None)
        self.register_buffer("source_labels", torch.full((count,), UNLABELLED) if count else None)
        self.post_init()

    def freeze_base_model(self):
        """Stop gradients into the encoder."""
        self.sere.freeze_base_model()

    def freeze_feature_encoder(self):
        """Stop gradients into the encoder's convolutions, if there are any."""
        self.sere.freeze_feature_encoder()

    def speaker_statistics(self, input_values, attention_mask=None):
        """Enrol a speaker: see [`SereModel.speaker_statistics`]."""
        return self.sere.speaker_statistics(input_values, attention_mask)

    def estimate_statistics(self, input_values, attention_mask=None):
        """Enrol a speaker: see [`SereModel.estimate_statistics`]."""
        self.sere.estimate_statistics(input_values, attention_mask)

    @torch.no_grad()
    def adopt(self, linear: LinearMap):
        """Take over an organised field. Raises ValueError: it is a start without rounds, which needs the cues."""
        if linear.cue_weight.any():
            raise ValueError("A map that needs the cues cannot be kept: organise with one round at least.")
        self.classifier.weight.copy_(linear.weight.T)
        self.classifier.bias.copy_(linear.bias)

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map embeddings (B, D) to logits (B, C) in float32."""
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            return called(self.classifier, embeddings)

    @torch.no_grad()
    def follow_labels(self, labels: list[str], name: str) -> None:
        """Let all that was learned for an emotion follow its name, where the names differ from those of the weights.

        The classifier's rows and the labelled sources go where their emotion has gone. Sources of an emotion that is
        gone are dropped, and the rows that are left are taken, in their order, for the names that are new; both is said
        in a warning. A classifier that was drawn anew, for another number of emotions, is left as it is.

        Args:
            labels: the names that the weights were saved with, in their order. name: what messages call the model.

        Raises:
            ValueError: a source has a label that is none.
        """
        sources = self.source_labels
        if sources is not None and bool(((sources < 0) & (sources != UNLABELLED) | (sources >= len(labels))).any()):
            raise ValueError(f"{name}: source_labels holds numbers that are no label of its {len(labels)} emotions.")
        now = self.config.labels
        if labels == now:
            return
        if len(now) == len(labels):
            left = iter([k for k, label in enumerate(labels) if label not in now])
            rows = [labels.index(label) if label in labels else next(left) for label in now]
            for parameter in self.classifier.parameters():
                parameter.copy_(parameter[rows].clone())
            renamed = [f"{labels[row]} is now {label}" for row, label in zip(rows, now, strict=True)]
            if renamed := [text for text, label in zip(renamed, now, strict=True) if label not in labels]:
                logger.warning("%s: names of emotions have changed: %s.", name, ", ".join(renamed))
        if sources is None:
            return
        places = torch.tensor([now.index(label) if label in now else UNLABELLED for label in labels])
        moved = torch.where(sources < 0, UNLABELLED, places.to(sources.device)[sources.clamp_min(0)])
        kept = (moved >= 0) | (sources < 0)
        if gone := len(kept) - int(kept.sum()):
            lost = ", ".join(label for label in labels if label not in now)
            logger.warning("%s: %d labelled sources are dropped, as their emotions are gone: %s.", name, gone, lost)
        self.config.num_sources = int(kept.sum())
        for buffer, values in (("embeddings", self.source_embeddings), ("cues", self.source_cues), ("labels", moved)):
            setattr(self, f"source_{buffer}", values[kept] if self.config.num_sources else None)

    def losses(self, features, embeddings, logits, labels, statistics=None) -> dict[str, torch.Tensor]:
        """Compute the parts of the loss and their weighted sum, as in docs/method.md ("Loss").

        A part without clips to work on is a zero with a gradient of zero, so that every process of a distributed run
        takes the same backward pass.

        Args:
            labels: (B,) or (B, 1) class index, or -100 for an unlabelled clip. With `problem_type` "regression" or
                "multi_label_classification" (the default for labels that are no whole numbers): (B, C), a row of -100
                for an unlabelled clip.
        """
        problem = self.config.problem_type
        if problem is None:
            problem = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        classes = self._classes(labels, len(logits)) if problem == "single_label_classification" else None
        if classes is None:
            each = self._each_value(logits, labels, problem)
            labelled = (labels != UNLABELLED).all(1)
            classes = torch.full_like(labelled, UNLABELLED, dtype=torch.long)
        else:
            each = F.cross_entropy(logits, classes, ignore_index=UNLABELLED, reduction="none")
            labelled = classes != UNLABELLED
        classification = (each * labelled).sum() / labelled.sum().clamp_min(1)
        tric = self.tric.combine(self.tric(embeddings, classes))
        consistency = logits.sum() * 0
        if self.training and self.config.consistency_weight > 0:
            consistency = self._consistency(features, logits, ~labelled, statistics)
        total = classification + self.config.tric_weight * tric + self.config.consistency_weight * consistency
        return {
            "loss": total, "loss_classification": classification, "loss_tric": tric, "loss_consistency": consistency,
        }  # fmt: skip

    def _classes(self, labels, count: int) -> torch.Tensor:
        """Check labels of any shape that has one per clip, and flatten them to (B,)."""
        if labels.is_floating_point() or labels.shape not in ((count,), (count, 1)):
            raise ValueError(
                f"labels must be whole numbers of shape ({count},), not {labels.dtype} of {tuple(labels.shape)}."
            )
        labels = labels.reshape(count).long()
        if bool(((labels != UNLABELLED) & ((labels < 0) | (labels >= self.num_labels))).any()):
            raise ValueError(f"labels must be from 0 to {self.num_labels - 1}, or -100 for an unlabelled clip.")
        return labels

    def _each_value(self, logits, labels, problem: str) -> torch.Tensor:
        """Compute the loss (B,) of each clip whose labels (B, C) are targets of their own for each output."""
        if labels.shape != logits.shape:
            raise ValueError(f"labels must have shape {tuple(logits.shape)}, not {tuple(labels.shape)}: {problem}.")
        loss = F.mse_loss if problem == "regression" else F.binary_cross_entropy_with_logits
        return loss(logits, labels.to(logits.dtype), reduction="none").mean(1)

    def _consistency(self, features, logits, unlabelled, statistics):
        """Compute the KL divergence of a view with dropped features from the full view, over the unlabelled clips."""
        view = self.sere.embedding(features, statistics, dropout=self.config.view_dropout)
        other = self.classify(view[0])
        each = F.kl_div(other.log_softmax(1), logits.detach().softmax(1), reduction="none").sum(1)
        return (each * unlabelled).sum() / unlabelled.sum().clamp_min(1)

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        statistics: torch.Tensor | None = None,
        frames: SereFrames | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SereClassifierOutput:
        """Classify clips.

        Args:
            input_values: (B, N) waveform at 16 kHz in [-1, 1]. attention_mask: (B, N), 0 at padding.
            labels: (B,) class index, -100 for unlabelled clips; with it the output has the loss and its parts. Labels
                of another `problem_type` as in `losses`.
            statistics: (2, D) or (B, 2, D) from `speaker_statistics`; default: the checkpoint's target domain.
            frames, output_hidden_states, output_attentions, return_dict: as in `SereModel`.

        Raises:
            ValueError: a label is out of range, logits are not finite (but in training, where a scaler of gradients may
                try), or as `SereModel`.
        """
        base = self.sere(
            input_values,
            attention_mask,
            statistics,
            frames,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits = self.classify(base.embeddings).to(base.embeddings.device)
        if not (self.training or torch.compiler.is_compiling() or logits.is_meta) and not bool(logits.isfinite().all()):
            raise ValueError(NOT_FINITE)
        losses = {}
        if labels is not None:
            losses = self.losses(base.features, base.embeddings, logits, labels.to(logits.device), statistics)
        output = SereClassifierOutput(
            logits=logits,
            highlights=base.highlights,
            embeddings=base.embeddings,
            features=base.features,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
            **losses,
        )
        return output if self._gives_dict(return_dict) else output.to_tuple()


SereConfig.register_for_auto_class()
SereModel.register_for_auto_class("AutoModel")
SereForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

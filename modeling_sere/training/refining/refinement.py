"""Refining by gradient: highlight weights and gains on kept frames, or the encoder too from audio."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from tqdm.auto import tqdm

from modeling_sere.modeling_sere import SereForAudioClassification
from modeling_sere.resonance_sere import UNLABELLED
from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.encoding.features import collate, encoded_before
from modeling_sere.training.errors import RunError
from modeling_sere.training.organising.adaptation import Adaptation
from modeling_sere.training.refining.checkpoint import Checkpoints
from modeling_sere.training.refining.frame_store import FrameStore

CHECKPOINT_EVERY = 50  # steps
LORA_RANK = 8
# feed-forward layers, which every kind of encoder has
LORA_LAYERS = {"whisper": ["fc1", "fc2"], "default": ["intermediate_dense", "output_dense"]}


@contextmanager
def trainable(model: SereForAudioClassification, train_encoder: str):
    """Choose what refining trains, and undo it at the end: adapters are merged, gradients switched back on.

    Args:
        train_encoder: "none" (highlight weights, gains and classifier), "full" (the encoder too) or "lora".
    """
    encoder = model.sere.encoder
    wanted = {} if encoder is None else {name: p.requires_grad for name, p in encoder.named_parameters()}
    adapters = None
    if train_encoder != "full":
        model.freeze_base_model()
    if train_encoder == "lora":
        import peft

        layers = LORA_LAYERS.get(encoder.model_type, LORA_LAYERS["default"])
        adapters = peft.get_peft_model(
            encoder.model, peft.LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=layers)
        )
    try:
        yield
    finally:
        if adapters is not None:
            encoder.model = adapters.merge_and_unload()
        if encoder is not None:
            for name, parameter in encoder.named_parameters():
                parameter.requires_grad_(wanted[name])


class Refinement:
    """Gradient steps with the model's own loss over mixed batches of labelled and unlabelled clips.

    Batches are drawn by a generator seeded with (seed, step), so that a resumed run sees what an uninterrupted one
    does. Every process draws its own unlabelled clips and the same labelled ones.

    Args:
        adaptation: of an organised model; what of it does not require a gradient stays as it is.
        shots: (n source,) class index of the labelled clips, -100 elsewhere.
        load: items -> keyword arguments of the model's forward (frames or waveforms); source clips are numbered from
            0, target clips after them.
    """

    def __init__(self, adaptation: Adaptation, accelerator: Accelerator, shots: torch.Tensor, load, arguments):
        self.accelerator, self.load, self.arguments = accelerator, load, arguments
        model, targets = adaptation.model, len(adaptation.target.embeddings)
        self.labels = torch.cat([shots, torch.full((targets,), UNLABELLED)])
        self.statistics, self.group = adaptation.clip_statistics()
        self.shots = (self.labels != UNLABELLED).nonzero().squeeze(1)
        self.others = (self.labels == UNLABELLED).nonzero().squeeze(1)
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=arguments.learning_rate, weight_decay=0.0
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def draw(self, step: int) -> torch.Tensor:
        """Return items of one step's batch: labelled, then unlabelled."""
        size = self.arguments.batch_size
        shared = torch.Generator().manual_seed(self.arguments.seed * 1_000_003 + step)
        own = torch.Generator().manual_seed(
            (self.arguments.seed * 1_000_003 + step) * 1009 + self.accelerator.process_index
        )
        labelled = self.shots[torch.randperm(len(self.shots), generator=shared)[:size]]
        unlabelled = self.others[torch.randperm(len(self.others), generator=own)[:size]]
        return torch.cat([labelled, unlabelled])

    def run(self, checkpoint: Path, resume: bool, log) -> None:
        """Take all steps, with checkpoints in the folder `checkpoint`; `log(values, step)` sees each step's losses."""
        checkpoints = Checkpoints(checkpoint, self.accelerator)
        first = checkpoints.restore() if resume else 0
        self.model.train()
        bar = tqdm(
            range(first, self.arguments.refine_steps), initial=first, total=self.arguments.refine_steps,
            desc="Refining", unit="step", disable=not self.accelerator.is_local_main_process,
        )  # fmt: skip
        with bar:
            for step in bar:
                torch.manual_seed(self.arguments.seed * 1_000_003 + step)  # dropout repeats after a resume
                losses = self._step(self.draw(step))
                if not math.isfinite(losses["loss"]):
                    raise RunError(f"The loss of refining step {step} is {losses['loss']}: lower --learning_rate.")
                bar.set_postfix(loss=f"{losses['loss']:.3f}")
                log(losses, step)
                if (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < self.arguments.refine_steps:
                    checkpoints.save(step + 1)
        self.model.eval()

    def _step(self, items: torch.Tensor) -> dict[str, float]:
        device = self.accelerator.device
        statistics = self.statistics[self.group[items]].to(device)
        output = self.model(**self.load(items.tolist()), labels=self.labels[items].to(device), statistics=statistics)
        self.optimizer.zero_grad()
        self.accelerator.backward(output.loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {name: value.item() for name, value in output.items() if name.startswith("loss")}


def refine(
    arguments: SereArguments,
    accelerator: Accelerator,
    adaptation: Adaptation,
    shots: torch.Tensor,
    checkpoint: Path,
    clips: list[tuple[Corpus, list[int]]],
    log: Callable[[dict, int], None],
) -> SereForAudioClassification:
    """Take `arguments.refine_steps` steps from the model of `adaptation` on; `clips`: its source and target clips.

    Returns the refined model on the CPU, whole on every process; it is the one of `adaptation` except under FSDP.

    Raises:
        RunError: adapters under FSDP, an infinite loss, a full disk, or a clip that has become unusable.
    """
    sharded = accelerator.distributed_type == DistributedType.FSDP
    if sharded and arguments.train_encoder == "lora":
        raise RunError("--train_encoder lora cannot be spread by FSDP, and is small: use several plain GPUs instead.")
    model = adaptation.model.to(accelerator.device)
    corpora = [corpus for corpus, indices in clips for _ in indices]
    indices = [index for _, indices in clips for index in indices]
    with trainable(model, arguments.train_encoder), FrameStore(model.sere, accelerator.device) as store:
        if arguments.train_encoder == "none":
            store.fill(corpora, indices, progress=accelerator.is_local_main_process)

        def load(items: list[int]) -> dict:
            if arguments.train_encoder == "none":
                return {"frames": store.batch(items)}
            waveforms = {}
            for corpus, _ in clips:
                asked = {indices[item]: item for item in sorted(items) if corpora[item] is corpus}
                waveforms |= {asked[clip.index]: encoded_before(clip) for clip in corpus.iter_audio(asked)}
            values, mask = collate([waveforms[item] for item in items], accelerator.device)
            return {"input_values": values, "attention_mask": mask}

        refinement = Refinement(adaptation, accelerator, shots, load, arguments)
        refinement.run(checkpoint, arguments.resume, log)
        if sharded:
            model = gather(refinement.model)
    return model.to("cpu").eval()


def gather(sharded: SereForAudioClassification) -> SereForAudioClassification:
    """Return a whole copy of a model that FSDP has spread over the processes, which cannot be undone in place."""
    state = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
    model = SereForAudioClassification(sharded.config)
    model.load_state_dict(state)
    return model

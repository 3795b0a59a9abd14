"""transformers' Trainer on a saved model, called as transformers' own run_audio_classification.py calls it."""

import json
import multiprocessing
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from huggingface_hub import HfApi, constants, hf_api
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.utils import hub as transformers_hub

from modeling_sere import SereForAudioClassification
from testing.encoders import ENCODERS
from testing.forked import linux_only
from testing.hub_server import HubServer

PITCHES = ("low", "middle", "high")
STEPS = 4


@pytest.fixture(scope="module")
def pushed(make_model, tmp_path_factory):
    """(kind of encoder, labels) -> the folder of a model as a run leaves it: with statistics, sources and code."""
    root = tmp_path_factory.mktemp("pushed")

    def folder(kind: str = "wav2vec2", labels=PITCHES):
        path = root / f"{kind}-{len(labels)}"
        if not path.exists():
            make_model(kind, labels=labels, num_sources=6).save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="module")
def data(voice):
    """A dataset with a column of waveforms and a ClassLabel, as `datasets` gives them decoded."""
    rows = {
        "audio": [voice(0.4 + 0.03 * (i % 4), i, pitch=(100, 160, 250)[i % 3]).tolist() for i in range(18)],
        "label": [i % 3 for i in range(18)],
    }
    features = Features({"audio": Sequence(Value("float32")), "label": ClassLabel(names=list(PITCHES))})
    return Dataset.from_dict(rows, features=features)


def stock_trainer(name, data, output_dir, freeze=True, adapters=None, ignore=False, **options) -> Trainer:
    """The calls of transformers' examples/pytorch/audio-classification/run_audio_classification.py, in its order."""
    feature_extractor = AutoFeatureExtractor.from_pretrained(name, return_attention_mask=True, trust_remote_code=True)
    input_name = feature_extractor.model_input_names[0]

    def transforms(batch):
        waveforms = [np.asarray(audio, dtype=np.float32) for audio in batch["audio"]]
        inputs = feature_extractor(waveforms, sampling_rate=feature_extractor.sampling_rate)
        return {input_name: inputs.get(input_name), "labels": list(batch["label"])}

    labels = data.features["label"].names
    config = AutoConfig.from_pretrained(
        name,
        num_labels=len(labels),
        label2id={label: str(i) for i, label in enumerate(labels)},
        id2label={str(i): label for i, label in enumerate(labels)},
        finetuning_task="audio-classification",
        trust_remote_code=True,
    )
    model = AutoModelForAudioClassification.from_pretrained(
        name, from_tf=False, config=config, trust_remote_code=True, ignore_mismatched_sizes=ignore
    )
    if freeze:
        model.freeze_feature_encoder()
    if adapters is not None:
        model = get_peft_model(model, adapters)
    data = data.with_transform(transforms)
    options = {"max_steps": STEPS, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2} | options
    arguments = TrainingArguments(
        output_dir=output_dir, report_to=[], use_cpu=True, disable_tqdm=True, seed=1, remove_unused_columns=False,
        per_device_train_batch_size=4, learning_rate=0.01, logging_steps=1, **options,
    )  # fmt: skip
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda seen: {
            "accuracy": float((np.argmax(seen.predictions, axis=1) == seen.label_ids).mean())
        },
        processing_class=feature_extractor,
    )


def losses(trainer) -> list[float]:
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


# ------------------------------------------------------------------------------------------------ the script's calls


@pytest.mark.parametrize("stream", ["none", "wavlm", "wav2vec2-bert", "whisper"])
def test_the_calls_of_the_stock_script(stream, pushed, data, tmp_path):
    """Training, evaluation and the best model; the result loads as what it was."""
    trainer = stock_trainer(
        pushed(stream), data, tmp_path, load_best_model_at_end=True, metric_for_best_model="accuracy",
        gradient_accumulation_steps=2,
    )  # fmt: skip
    assert trainer.model.config.id2label == dict(enumerate(PITCHES))
    assert trainer.model.config.label2id == {label: i for i, label in enumerate(PITCHES)}
    frozen = [name for name, p in trainer.model.named_parameters() if not p.requires_grad]
    assert any(".conv" in name for name in frozen) == (stream in ("wavlm", "whisper"))
    trainer.train()
    assert len(losses(trainer)) == STEPS and np.isfinite(losses(trainer)).all()
    best = trainer.evaluate()["eval_accuracy"]
    seen = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert best == max(seen)
    trainer.save_model()
    assert "Results of these weights: not measured" in (tmp_path / "README.md").read_text()
    predicted = trainer.predict(trainer.eval_dataset)
    assert predicted.predictions.shape == (18, 3)
    again = pipeline("audio-classification", model=str(tmp_path), trust_remote_code=True, device="cpu")
    answer = again(np.asarray(data[0]["audio"], dtype=np.float32), top_k=1)[0]["label"]
    assert answer == PITCHES[predicted.predictions[0].argmax()]


def test_training_goes_on_where_it_stopped(pushed, data, tmp_path):
    whole = stock_trainer(pushed(), data, tmp_path / "whole")
    whole.train()
    stopped = stock_trainer(pushed(), data, tmp_path / "stopped")
    stopped.train(resume_from_checkpoint=tmp_path / "whole" / "checkpoint-2")
    assert stopped.state.global_step == STEPS
    for (name, one), other in zip(whole.model.named_parameters(), stopped.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=0, msg=name)


def test_other_emotions(pushed, data, tmp_path):
    """The sentence names the way out, and the way out works."""
    folder = pushed(labels=("calm", "loud"))
    with pytest.raises(RuntimeError, match="for other emotions give ignore_mismatched_sizes=True"):
        stock_trainer(folder, data, tmp_path)
    trainer = stock_trainer(folder, data, tmp_path, ignore=True, max_steps=1)
    trainer.train()
    assert trainer.model.config.labels == list(PITCHES)


def test_adapters_in_the_trainer(pushed, data, tmp_path):
    """Adapters on an encoder's attention and a head trained whole: only they move, and are all that is saved."""
    adapters = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"])
    trainer = stock_trainer(pushed(), data, tmp_path, freeze=False, adapters=adapters)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    assert any("lora_A" in name for name in moved) and any("classifier.modules_to_save" in name for name in moved)
    trainer.save_model()
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 200_000
    assert not (tmp_path / "model.safetensors").exists()


def test_push_from_the_trainer(pushed, data, tmp_path, monkeypatch):
    with HubServer({"hf_ana": {"name": "ana"}}) as server:
        monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
        monkeypatch.setattr(transformers_hub, "_hf_api", None, raising=False)  # made once, for the Hub of that moment
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        options = {"push_to_hub": True, "hub_model_id": "ana/pitches", "hub_token": "hf_ana"}
        trainer = stock_trainer(pushed("none"), data, tmp_path / "out", max_steps=2, **options)
        trainer.train()
        trainer.push_to_hub(finetuned_from="org/sere", tasks="audio-classification")
        api = HfApi(endpoint=server.endpoint, token="hf_ana")
        files = set(api.list_repo_files("ana/pitches"))
        place = api.snapshot_download("ana/pitches", cache_dir=tmp_path, allow_patterns="config.json")
        config = json.loads(Path(place, "config.json").read_text())
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "pipeline_sere.py"} <= files
    assert config["id2label"] == {str(i): label for i, label in enumerate(PITCHES)}


# ------------------------------------------------------------------------------------------------ labels and problems


def test_labels_in_a_column(make_model, clips, pad):
    model, labels = make_model(), torch.tensor([0, 1, -100, -100, 2])
    with torch.no_grad():
        assert model(*pad(clips), labels=labels[:, None]).loss == model(*pad(clips), labels=labels).loss


@pytest.mark.parametrize("labels", [torch.zeros(4).long(), torch.zeros(5, 2).long(), torch.zeros(1, 5).long()])
def test_labels_of_another_shape(labels, make_model, clips, pad):
    with pytest.raises(ValueError, match=r"labels must be whole numbers of shape \(5,\)"):
        make_model()(*pad(clips), labels=labels)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", None])
def test_labels_of_each_output(problem, make_model, clips, pad):
    """Targets of their own for each output, a row of -100 where a clip has none."""
    model = make_model("wavlm", problem_type=problem).train()
    labels = torch.rand(5, 3).round()
    labels[1] = -100
    output = model(*pad(clips), labels=labels)
    known = [0, 2, 3, 4]
    loss = (
        torch.nn.functional.mse_loss
        if problem == "regression"
        else torch.nn.functional.binary_cross_entropy_with_logits
    )
    torch.testing.assert_close(output.loss, loss(output.logits[known], labels[known]))
    output.loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    with pytest.raises(ValueError, match=r"labels must have shape \(5, 3\)"):
        model(*pad(clips), labels=labels[:, :2])


def test_labels_that_do_not_fit_the_problem(make_model, make_config, clips, pad):
    model = make_model(problem_type="single_label_classification")
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        model(*pad(clips), labels=torch.rand(5, 3))
    for option in ("tric_weight", "consistency_weight"):
        with pytest.raises(ValueError, match="must be 0 with problem_type 'regression'"):
            make_config(problem_type="regression", **{option: 0.1})
    with pytest.raises(ValueError, match="problem_type must be one of"):
        make_config(problem_type="ranking")


# ------------------------------------------------------------------------------------------------ two processes


def test_what_was_frozen_stays_frozen(encoder_name, make_model, pushed):
    made, loaded = (
        {name: p.requires_grad for name, p in model.named_parameters()}
        for model in (make_model(encoder_name), SereForAudioClassification.from_pretrained(pushed(encoder_name)))
    )
    assert made == loaded and not all(made.values())


def _train_in_parallel(rank: int, port: int, folders: dict, batch, queue):
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    values, mask = (part[rank::2] for part in batch)
    for kind, folder in folders.items():
        model = SereForAudioClassification.from_pretrained(folder).train()
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # what a first backward pass leaves unused is told by the second
            parallel(values, mask, labels=torch.arange(len(values)) % 3).loss.backward()
        queue.put((rank, kind, sum(p.grad.double().abs().sum().item() for p in model.parameters() if p.requires_grad)))
    distributed.destroy_process_group()


@linux_only
def test_two_processes_after_loading(pushed, encoder_config, clips, pad, unused_port):
    """Every kind of encoder takes two steps, and both processes hold the same gradients."""
    folders = {kind: pushed(kind) for kind in ("none", *ENCODERS)}
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=_train_in_parallel, args=(rank, unused_port, folders, pad(clips[:4]), queue))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    sums = {(rank, kind): total for rank, kind, total in (queue.get(timeout=120) for _ in range(2 * len(folders)))}
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for kind in folders:
        assert sums[0, kind] == pytest.approx(sums[1, kind]) and sums[0, kind] > 0


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

"""Many threads and one model: no forward pass leaves or reads anything on a module."""

import copy
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from modeling_sere.pipeline_sere import SerePipeline

THREADS = 16
ROUNDS = 3
POSITIONS = ("rotary", "relative")  # of wav2vec2-bert, beside the ones of the released model
KINDS = ("none", "wavlm", "wavlm-large", "wav2vec2", "wav2vec2-large", "hubert", "wav2vec2-bert", *POSITIONS, "whisper")
PRIMITIVES = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)


@pytest.fixture(scope="module", params=KINDS)
def model(request, make_model, encoder_config):
    if request.param in POSITIONS:
        config = encoder_config("wav2vec2-bert", position_embeddings_type=request.param)
        return make_model("wav2vec2-bert", encoder_config=config)
    return make_model(request.param)


@pytest.fixture(scope="module")
def batches(voice, pad):
    """Clips of many lengths, alone and in batches with padding."""
    voices = [voice(0.2 + 0.13 * k, seed=k) for k in range(12)]
    return [pad([clip]) for clip in voices] + [pad(voices[k : k + 3], extra=1000 * k) for k in range(0, 12, 3)]


def answers(models: list, batches: list, pool: ThreadPoolExecutor | None = None) -> list[torch.Tensor]:
    """Logits of each batch by each model, in the caller's thread or all at once."""

    def answer(work) -> torch.Tensor:
        model, batch = work
        if pool is not None:
            barrier.wait(60)  # so that they really run at the same time
        with torch.inference_mode():
            return model(*batch).logits

    work = [(model, batch) for model in models for batch in batches]
    if pool is None:
        return list(map(answer, work))
    work = [work[k % len(work)] for k in range(-(-len(work) // THREADS) * THREADS)]
    barrier = threading.Barrier(THREADS)
    return list(pool.map(answer, work))[: len(models) * len(batches)]


def assert_all_equal(models: list, batches: list, expected: list[torch.Tensor], rounds: int = ROUNDS):
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(rounds):
            for found, wanted in zip(answers(models, batches, pool), expected, strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_every_answer_is_that_of_one_thread(model, batches):
    fresh = copy.deepcopy(model)  # its first call is one of many
    assert_all_equal([fresh], batches, answers([model], batches))


def test_copies_and_two_models_side_by_side(make_model, model, batches):
    """A copy, a model of the same class with other weights, and the model itself, all at once."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    expected = answers([model, other, model], batches[::3])
    assert_all_equal([model, other, copy.deepcopy(model)], batches[::3], expected, rounds=1)


def things(value, depth: int = 0) -> Iterable[tuple[str, object]]:
    """What hangs on a value, by its path: numbers and texts as they are, tensors and the rest as what they are."""
    if isinstance(value, PRIMITIVES):
        yield "", value
    elif isinstance(value, torch.Tensor):
        yield "", (id(value), value._version, tuple(value.shape))
    elif isinstance(value, dict) and depth < 4:
        for key, inner in value.items():
            yield from ((f".{key}{path}", thing) for path, thing in things(inner, depth + 1))
    elif isinstance(value, (list, tuple)) and depth < 4:
        for key, inner in enumerate(value):
            yield from ((f".{key}{path}", thing) for path, thing in things(inner, depth + 1))
    elif not isinstance(value, torch.nn.Module):
        yield "", id(value)


def state(model) -> dict[str, object]:
    """Every attribute of every module, hooks and buffers among them."""
    found = {}
    for name, module in model.named_modules():
        found |= {f"{name}{path}": thing for path, thing in things(dict(vars(module)))}
    return found


def test_a_call_changes_nothing_on_any_module(model, batches):
    """Beside the hooks by which transformers records hidden states, which the first call puts there for good."""
    fresh = copy.deepcopy(model)
    answers([fresh], batches[:1])
    before = state(fresh)
    assert len(before) > 50
    answers([fresh], batches)
    assert state(fresh) == before


@pytest.mark.parametrize("kind", ["wavlm", "wav2vec2"])
def test_one_pipeline(make_model, voice, kind):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    pipe = SerePipeline(model=make_model(kind), feature_extractor=extractor, device="cpu")
    clips = [voice(0.2 + 0.1 * k, seed=k).numpy() for k in range(THREADS)]
    expected = [pipe(clip, function_to_apply="none") for clip in clips]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(ROUNDS):
            for found, wanted in zip(
                pool.map(lambda clip: pipe(clip, function_to_apply="none"), clips), expected, strict=True
            ):
                assert [entry["label"] for entry in found] == [entry["label"] for entry in wanted]
                for one, other in zip(found, wanted, strict=True):
                    assert abs(one["score"] - other["score"]) < 1e-5

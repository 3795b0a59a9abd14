"""The identity of a run: its arguments, its clips and the model it starts from.

Kept as digests, since the folder of a run may be given away, and what they are made of names files and people.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from modeling_sere.training.arguments import SereArguments
from modeling_sere.training.encoding.pool import Pool, Pools
from modeling_sere.training.organising.carried_sources import Sources

# what a resumed run may change without becoming another run
FREE = (
    "resume", "overwrite_output_dir", "report_to", "output_dir", "cache_dir",
    "push_to_hub", "hub_model_id", "hub_private", "hub_revision_tag", "push_predictions",
)  # fmt: skip


def of_arguments(arguments: SereArguments) -> dict[str, str]:
    """Return {flag: digest} of all arguments that decide the result."""
    return {name: _text_digest([repr(value)]) for name, value in asdict(arguments).items() if name not in FREE}


def of_clips(clips: Iterable, keys: Iterable[str]) -> dict[str, Any]:
    """Return the number of clips and a digest of their content, labels and speakers, in their order.

    Args:
        clips: with `name`, `label` and `speaker`. keys: content keys of their audio.
    """
    rows = [json.dumps([clip.name, clip.label, clip.speaker, key]) for clip, key in zip(clips, keys, strict=True)]
    return {"clips": len(rows), "digest": _text_digest(rows)}


def of_data(model: str, source: Pool | Pools | Sources, target: Pool) -> dict[str, Any]:
    """Return what is only known once the clips are encoded, from the digest of the `model` to start from.

    Labelled clips that travelled in a model are part of it.
    """
    pools = {"target": target} | ({} if isinstance(source, Sources) else {"source": source})
    return {"model": model} | {side: of_clips(pool.clips, pool.keys) for side, pool in pools.items()}


def of_model(model: torch.nn.Module) -> str:
    """Return a digest of a model's configuration and weights."""
    digest = hashlib.blake2b(model.config.to_json_string().encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what differs between two identities, in words; what only one of them knows yet is no difference."""
    theirs, ours = one.get("arguments", {}), other.get("arguments", {})
    flags = [f"--{name}" for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    found = [f"arguments ({', '.join(flags)})"] if flags else []
    for side in ("source", "target"):
        before, after = one.get(side), other.get(side)
        if before and after and before != after:
            counts = before.get("clips"), after.get("clips")
            told = (
                f"{counts[0]} then, {counts[1]} now" if counts[0] != counts[1] else "content, labels, people or order"
            )
            found.append(f"clips of the {side} ({told})")
    if one.get("model") and other.get("model") and one["model"] != other["model"]:
        found.append("weights or configuration to start from")
    return found


def _text_digest(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()

"""The feature cache: shards of features on disk, found again by the content of a clip."""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np

import modeling_sere
from modeling_sere.modeling_sere import SereModel
from modeling_sere.training.errors import writing

logger = logging.getLogger(__name__)


def fingerprint(model: SereModel, precision: str = "no") -> str:
    """All that decides a clip's raw features: encoder weights, layers, highlights, front-end code, precision."""
    digest = hashlib.blake2b(digest_size=16)
    folder = Path(modeling_sere.__file__).parent
    for name in ("audio_sere.py", "dynamics_sere.py", "encoder_sere.py", "modeling_sere.py"):
        digest.update((folder / name).read_bytes())
    digest.update(b"features and strongest moment")  # what a row holds
    digest.update(repr((model.config.encoder_layers, model.config.encoder_normalize, model.dtype, precision)).encode())
    tensors = {"highlight_weight": model.highlight_weight}
    if model.encoder is not None:
        tensors |= model.encoder.state_dict()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


class FeatureCache:
    """Shards of features on disk, one folder per fingerprint.

    A shard is a structured .npy file (key, features) named by its digest, written under a temporary name and renamed
    when it is whole: a killed run leaves nothing that could be read by mistake, and two runs can share the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.places: dict[str, tuple[Path, int]] = {}  # key -> shard, row; none stays open: they may be thousands
        for path in sorted(folder.glob("*.npy")):
            try:
                shard = np.load(path, mmap_mode="r")
                if _digest(shard) != path.stem:
                    raise ValueError("its content has changed")
                self._place(path, shard)
            except (ValueError, OSError, EOFError) as error:
                logger.warning("Feature cache: %s is damaged and will be encoded again (%s).", path.name, error)

    def read(self, keys: list[str]) -> np.ndarray:
        """Features (n, D) of clips that are there, one row per key."""
        rows: dict[Path, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(self.places[key][0], []).append(row)
        values = None
        for path, wanted in rows.items():
            shard = np.load(path, mmap_mode="r")["features"]
            values = np.empty((len(keys), shard.shape[1]), np.float32) if values is None else values
            values[wanted] = shard[[self.places[keys[row]][1] for row in wanted]]
        return values

    def _place(self, path: Path, shard: np.ndarray):
        self.places.update((key.decode(), (path, row)) for row, key in enumerate(shard["key"]))

    def add(self, features: dict[str, np.ndarray]):
        """Write one shard. Raises RunError when the disk is full."""
        if not features:
            return
        size = len(next(iter(features.values())))
        shard = np.empty(len(features), dtype=[("key", "S64"), ("features", "f4", (size,))])
        for row, (key, values) in zip(shard, features.items(), strict=True):
            row["key"], row["features"] = key.encode(), values
        with writing(f"The feature cache {self.folder.parent}", "free some space or give another --cache_dir"):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".partial")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.save(file, shard)
                path = self.folder / f"{_digest(shard)}.npy"
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        self._place(path, shard)


def _digest(shard: np.ndarray) -> str:
    return hashlib.blake2b(shard.tobytes(), digest_size=16).hexdigest()

"""The feature cache: shards of features on disk, found again by the content of a clip."""

import hashlib
import io
import json
import logging
import os
import tokenize
import uuid
from pathlib import Path

import numpy as np
import torch

from modeling_sere.dynamics_sere import FEATURE_VERSION
from modeling_sere.modeling_sere import SereModel
from modeling_sere.training.errors import writing

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"  # added to the name of a shard that is set aside
NAMES = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")  # decide no feature
CHECK_BYTES = 8
# what NumPy raises for the header of no array: it is evaluated as a Python literal
NO_ARRAY = (
    ValueError, TypeError, SyntaxError, tokenize.TokenError, LookupError, AttributeError, ArithmeticError, EOFError,
    MemoryError, RecursionError,
)  # fmt: skip


def fingerprint(model: SereModel, precision: str = "no") -> str:
    """Return a digest of all that decides the raw features of a clip, and of nothing else.

    That is the version of the front end, the encoder's configuration and weights, the layers in use, the highlight
    weights, and the precision. Versions of torch and transformers are left out (docs/method.md, "Cost").
    """
    encoder = model.config.encoder_config
    settings = {} if encoder is None else {key: value for key, value in encoder.to_dict().items() if key not in NAMES}
    used = model.config.encoder_layers, model.config.encoder_normalize, str(model.dtype), precision
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([FEATURE_VERSION, settings, used], sort_keys=True, default=str).encode())
    tensors = {"highlight_weight": model.highlight_weight}
    if model.encoder is not None:
        tensors |= model.encoder.state_dict()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FeatureCache:
    """Shards of features on disk, one folder per fingerprint.

    A shard is a structured .npy file (key, features, check) named by the digest of the whole file, written under
    another name and renamed when it is whole: a killed run leaves nothing that could be read by mistake, and two runs
    can share the folder. The check of a row binds its key to its features and to the fingerprint. A shard that is not
    as it was written is named, set aside, and made again. Whoever may write into the folder can still give a clip
    other features (docs/safety.md).

    Args:
        folder: its name, the fingerprint, is part of every check.
        width: of the features, D; by default any, the same in all shards that are read together.
    """

    def __init__(self, folder: Path, width: int | None = None):
        self.folder, self.width = folder, width
        self.places: dict[str, tuple[Path, int]] = {}  # key -> shard, row; none stays open: they may be thousands
        for path in sorted(folder.glob("*.npy")):
            if (shard := self._load(path)) is not None:
                self._place(path, shard)

    def read(self, keys: list[str]) -> tuple[np.ndarray, list[int]]:
        """Return features (n, D) of clips, one row per key, and the rows of those that are not there, or no longer."""
        rows: dict[Path | None, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(self.places.get(key, (None, 0))[0], []).append(row)
        lost, values = rows.pop(None, []), None
        for path, wanted in rows.items():
            shard = self._load(path)
            found = None if shard is None else shard[[self.places[keys[row]][1] for row in wanted]]
            if found is None or [key.decode() for key in found["key"]] != [keys[row] for row in wanted]:
                lost += wanted
                continue
            if values is None:
                values = np.zeros((len(keys), found["features"].shape[1]), np.float32)
            values[wanted] = found["features"]
        for row in lost:
            self.places.pop(keys[row], None)
        return np.zeros((len(keys), self.width or 0), np.float32) if values is None else values, sorted(lost)

    def add(self, features: dict[str, np.ndarray]) -> None:
        """Write one shard. Raises RunError: the disk is full, or not ours to write to."""
        if not features:
            return
        size = len(next(iter(features.values())))
        shard = np.empty(len(features), dtype=_row(size))
        for row, (key, values) in zip(shard, features.items(), strict=True):
            row["key"], row["features"] = key.encode(), values
            row["check"] = self._check(row)
        buffer = io.BytesIO()
        np.save(buffer, shard)
        data = buffer.getvalue()
        path = self.folder / f"{_digest(data)}.npy"
        partial = self.folder / f"{uuid.uuid4().hex}.partial"
        with writing(f"The feature cache {self.folder.parent}", "free some space or give another --cache_dir"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with open(partial, "xb") as file:  # with the rights of the user's umask
                    file.write(data)
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        self._place(path, shard)

    def _place(self, path: Path, shard: np.ndarray):
        self.places.update((key.decode(), (path, row)) for row, key in enumerate(shard["key"]))

    def _load(self, path: Path) -> np.ndarray | None:
        """Return a shard that is as it was written; None if it is not, which is told."""
        try:
            if os.path.lexists(path) and not path.is_file():
                raise ValueError("it is no file")
            data = path.read_bytes()  # not mapped: a file that others cut short would end the process
            if _digest(data) != path.stem:
                raise ValueError("its content has changed")
            return self._parsed(data)
        except OSError as error:
            reason = error.strerror or error
            logger.warning("Feature cache: %s cannot be read, its clips are encoded again (%s).", path, reason)
        except NO_ARRAY as error:
            logger.warning("Feature cache: %s is damaged, its clips are encoded again (%s).", path, str(error)[:80])
            self._set_aside(path)
        return None

    def _parsed(self, data: bytes) -> np.ndarray:
        shard = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        if shard.ndim != 1 or shard.dtype.names != ("key", "features", "check"):
            raise ValueError("it is no shard")
        size = shard.dtype["features"].shape[-1:] or (0,)
        if shard.dtype != _row(size[0]) or self.width not in (None, size[0]):
            raise ValueError(f"its features are of another width than {self.width}")
        if any(row["check"] != self._check(row) for row in shard):
            raise ValueError("its rows are not those of its clips")
        if not np.isfinite(shard["features"]).all():
            raise ValueError("its features are not finite")
        return shard

    def _check(self, row: np.void) -> np.void:
        content = self.folder.name.encode() + row["key"] + row["features"].tobytes()
        return np.void(hashlib.blake2b(content, digest_size=CHECK_BYTES).digest())

    def _set_aside(self, path: Path):
        try:
            path.rename(path.with_name(path.name + DAMAGED))
        except OSError:
            pass  # not ours to rename: it is not read, and told of, each time


def _row(size: int) -> np.dtype:
    return np.dtype([("key", "S64"), ("features", "<f4", (size,)), ("check", f"V{CHECK_BYTES}")])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()

"""Features of whole corpora: every clip decoded and encoded once, kept in a memory-mapped cache."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from huggingface_hub.constants import HF_HOME
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

import modeling_sere
from modeling_sere.modeling_sere import SereFrames, SereModel
from modeling_sere.training.data import Corpus, DataError, DecodedClip, SkippedClip
from modeling_sere.training.disk import writing

logger = logging.getLogger(__name__)

DEFAULT_CACHE = Path(HF_HOME) / "sere"
SHARD_CLIPS = 256  # decoded together, sorted by length, encoded in batches, written as one shard
BATCH_SECONDS = 60  # padded audio per batch


@dataclass
class Features:
    """Raw features of the usable clips of a corpus.

    values: (n, D) float32. indices: (n,) positions in `corpus.clips`, ascending. keys: (n,) content keys of the audio.
    skipped: clips without usable audio.
    """

    values: np.ndarray
    indices: list[int]
    keys: list[str]
    skipped: list[SkippedClip]


def fingerprint(model: SereModel, precision: str = "no") -> str:
    """All that decides a clip's raw features: encoder weights, layers, highlights, front-end code, precision."""
    digest = hashlib.blake2b(digest_size=16)
    folder = Path(modeling_sere.__file__).parent
    for name in ("audio_sere.py", "dynamics_sere.py", "encoder_sere.py", "modeling_sere.py"):
        digest.update((folder / name).read_bytes())
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

    def __getitem__(self, key: str) -> np.ndarray:
        path, row = self.places[key]
        return np.array(np.load(path, mmap_mode="r")[row]["features"])

    def _place(self, path: Path, shard: np.ndarray):
        self.places.update((key.decode(), (path, row)) for row, key in enumerate(shard["key"]))

    def add(self, features: dict[str, np.ndarray]):
        """Write one shard. Raises DataError when the disk is full."""
        if not features:
            return
        size = len(next(iter(features.values())))
        shard = np.empty(len(features), dtype=[("key", "S64"), ("features", "f4", (size,))])
        for row, (key, values) in zip(shard, features.items(), strict=True):
            row["key"], row["features"] = key.encode(), values
        try:
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
        except OSError as error:
            raise DataError(
                f"The feature cache {self.folder.parent} cannot be written ({error.strerror or error}): "
                "free some space or give another --cache_dir."
            ) from error
        self._place(path, shard)


def _digest(shard: np.ndarray) -> str:
    return hashlib.blake2b(shard.tobytes(), digest_size=16).hexdigest()


def collate(waveforms: list[np.ndarray], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveforms -> input_values (B, N) and attention_mask (B, N)."""
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    lengths = torch.tensor([len(tensor) for tensor in tensors])
    values = pad_sequence(tensors, batch_first=True)
    mask = torch.arange(values.shape[1])[None, :] < lengths[:, None]
    return values.to(device), mask.long().to(device)


def length_batches(lengths: list[int], batch_seconds: float = BATCH_SECONDS) -> Iterator[list[int]]:
    """Positions grouped by similar length, each group's padded size within `batch_seconds`; longest first."""
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * longest > batch_seconds * 16000:
            yield batch
            batch = []
        longest = lengths[position] if not batch else longest
        batch.append(position)
    if batch:
        yield batch


class FeatureExtraction:
    """Encodes corpora with a frozen model, sharded over the processes of `accelerator`.

    Args:
        cache_dir: folder of the cache, or None to keep nothing on disk (an encoder that is being trained).
    """

    def __init__(self, model: SereModel, accelerator: Accelerator, cache_dir: Path | None):
        self.model = model
        self.accelerator = accelerator
        self.cache = None if cache_dir is None else FeatureCache(
            Path(cache_dir) / fingerprint(model, accelerator.mixed_precision)
        )
        self.encoded = 0  # clips that were not in the cache

    def __call__(self, corpus: Corpus, indices: list[int] | None = None) -> Features:
        """Raw features of `indices` (default: all clips) of a corpus, the same on every process."""
        indices = list(range(len(corpus))) if indices is None else sorted(indices)
        mine = indices[self.accelerator.process_index :: self.accelerator.num_processes]
        with tqdm(
            total=len(mine), desc=f"Encoding {corpus.name}", unit="clip",
            disable=not self.accelerator.is_local_main_process,
        ) as bar:  # fmt: skip
            rows, skipped = self._extract(corpus, mine, bar)
        rows = sorted(gather_object(rows), key=lambda row: row[0])
        skipped = sorted(gather_object(skipped))
        if not rows:
            raise DataError(f"{corpus.name}: not one clip could be read; the first is {_explain(corpus, skipped[0])}.")
        return Features(
            values=np.stack([row[2] for row in rows]),
            indices=[row[0] for row in rows],
            keys=[row[1] for row in rows],
            skipped=[SkippedClip(corpus.clips[index].name, reason) for index, reason in skipped],
        )

    def _extract(self, corpus, indices, bar):
        rows, skipped, waiting = [], [], []
        known = self.cache.places if self.cache else {}
        for clip in corpus.iter_audio(indices, known=known):
            bar.update()
            if clip.error is not None:
                skipped.append((clip.index, str(clip.error)))
                logger.warning("Skipped: %s", clip.error)
            elif clip.waveform is None:
                rows.append((clip.index, clip.key, self.cache[clip.key]))
            else:
                waiting.append(clip)
            if len(waiting) == SHARD_CLIPS:
                rows += self._encode(waiting)
                waiting = []
        rows += self._encode(waiting)
        return rows, skipped

    def _encode(self, clips: list[DecodedClip]) -> list[tuple[int, str, np.ndarray]]:
        rows = []
        for batch in length_batches([len(clip.waveform) for clip in clips]):
            values, mask = collate([clips[i].waveform for i in batch], self.accelerator.device)
            with torch.inference_mode(), self.accelerator.autocast():
                _, features = self.model.pool(self.model.frames(values, mask))
            features = features.float().cpu().numpy()
            rows += [(clips[i].index, clips[i].key, row) for i, row in zip(batch, features, strict=True)]
        self.encoded += len(rows)
        if self.cache is not None:
            self.cache.add({key: row for _, key, row in rows})
        return rows


def _explain(corpus: Corpus, skipped: tuple[int, str]) -> str:
    index, reason = skipped
    return f"{corpus.clips[index].name} ({reason})"


class FrameStore:
    """Frames of clips in one memory-mapped float16 file, for gradient steps on them without the encoder.

    Used as a context manager. The file has no name where the system allows that: even a killed run leaves nothing.
    """

    def __init__(self, model: SereModel, device):
        self.model, self.device = model, device
        with writing("The temporary folder", "free some space or set TMPDIR to a larger disk"):
            self.file = tempfile.TemporaryFile()
        self.offsets: dict[int, tuple[int, int]] = {}  # item -> (first row, frames)
        self.functionals: dict[int, torch.Tensor] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def fill(self, corpora: list[Corpus], indices: list[int], progress: bool):
        """Encode item k = clip `indices[k]` of `corpora[k]`, for all k. Raises DataError when the disk is full."""
        total = 0
        items = {(id(corpus), index): k for k, (corpus, index) in enumerate(zip(corpora, indices, strict=True))}
        with tqdm(total=len(indices), desc="Keeping frames", unit="clip", disable=not progress) as bar:
            for corpus in dict.fromkeys(corpora):
                for clip in corpus.iter_audio(sorted(index for owner, index in items if owner == id(corpus))):
                    bar.update()
                    values, mask = collate([clip.waveform], self.device)
                    with torch.inference_mode():
                        frames = self.model.frames(values, mask)
                    rows = torch.cat([frames.dynamics, *frames.states], 2)[0]
                    self._write(rows.half().cpu().numpy())
                    item = items[id(corpus), clip.index]
                    self.offsets[item] = (total, len(rows))
                    self.functionals[item] = frames.functionals[0].float().cpu().clone()
                    total += len(rows)
        self.widths = [frames.dynamics.shape[2], *(state.shape[2] for state in frames.states)]
        self.rows = np.memmap(self.file, dtype=np.float16, mode="r", shape=(total, sum(self.widths)))

    def _write(self, rows: np.ndarray):
        try:
            self.file.write(rows.tobytes())
            self.file.flush()
        except OSError as error:
            raise DataError(
                f"The frames of all clips do not fit into {tempfile.gettempdir()} ({error.strerror}): free some space "
                "or set TMPDIR to a larger disk."
            ) from error

    def batch(self, items: list[int]) -> SereFrames:
        """Frames of some items, padded with zeros."""
        spans = [self.offsets[item] for item in items]
        rows = pad_sequence(
            [torch.from_numpy(self.rows[start : start + size].astype(np.float32)) for start, size in spans],
            batch_first=True,
        )
        mask = torch.arange(rows.shape[1])[None, :] < torch.tensor([size for _, size in spans])[:, None]
        streams = [stream.to(self.device) for stream in rows.split(self.widths, 2)]
        functionals = torch.stack([self.functionals[item] for item in items])
        return SereFrames(streams[0], functionals.to(self.device), tuple(streams[1:]), mask.to(self.device))

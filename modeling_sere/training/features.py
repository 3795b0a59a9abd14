"""Features of whole corpora: every clip decoded and encoded once, kept in a memory-mapped cache."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
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
from modeling_sere.training.corpora.corpus import Corpus, DecodedClip, SkippedClip
from modeling_sere.training.errors import RunError, writing

logger = logging.getLogger(__name__)

DEFAULT_CACHE = Path(HF_HOME) / "sere"
SHARD_CLIPS = 256  # decoded together, sorted by length, encoded in batches, written as one shard,
SHARD_SECONDS = 1200  # or fewer if they are long
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


def collate(waveforms: list[np.ndarray], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveforms -> input_values (B, N) and attention_mask (B, N)."""
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    lengths = torch.tensor([len(tensor) for tensor in tensors])
    values = pad_sequence(tensors, batch_first=True)
    mask = torch.arange(values.shape[1])[None, :] < lengths[:, None]
    return values.to(device), mask.long().to(device)


def encoded_before(clip: DecodedClip) -> np.ndarray:
    """The waveform of a clip that was usable when its features were made. Raises RunError: it no longer is."""
    if clip.error is not None:
        raise RunError(f"{clip.error}; it was usable when this run began: restore it, then add --resume.")
    return clip.waveform


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
        everywhere: every process gets all features. Otherwise only the main one does, and the others need no memory.
    """

    def __init__(self, model: SereModel, accelerator: Accelerator, cache_dir: Path | None, everywhere: bool = True):
        self.model, self.accelerator, self.everywhere = model, accelerator, everywhere
        self.cache = None if cache_dir is None else FeatureCache(
            Path(cache_dir) / fingerprint(model, accelerator.mixed_precision)
        )
        self.encoded = 0  # clips that were not in the cache

    def __call__(self, corpus: Corpus, indices: list[int] | None = None) -> Features | None:
        """Raw features of `indices` (default: all clips) of a corpus, or None on a process that does not get them."""
        indices = list(range(len(corpus))) if indices is None else sorted(indices)
        mine = indices[self.accelerator.process_index :: self.accelerator.num_processes]
        with tqdm(
            total=len(mine), desc=f"Encoding {corpus.name}", unit="clip",
            disable=not self.accelerator.is_local_main_process,
        ) as bar:  # fmt: skip
            part = self._extract(corpus, mine, bar)
        parts = self._gathered(part)
        if parts is None:
            return None
        found, values, skipped = zip(*parts, strict=True)
        found, skipped = list(chain(*found)), sorted(chain(*skipped))
        if not found:
            raise RunError(f"{corpus.name}: not one clip could be read; the first is {_explain(corpus, skipped[0])}.")
        values = values[0] if len(values) == 1 else np.concatenate([part for part in values if len(part)])
        order = sorted(range(len(found)), key=found.__getitem__)
        return Features(
            values=values if order == list(range(len(order))) else values[order],
            indices=[found[row][0] for row in order],
            keys=[found[row][1] for row in order],
            skipped=[SkippedClip(corpus.clips[index].name, reason) for index, reason in skipped],
        )

    def _gathered(self, part) -> list | None:
        """What all processes have, in their order, where it is to be known."""
        if self.everywhere or self.accelerator.num_processes == 1:
            return gather_object([part])
        parts = [None] * self.accelerator.num_processes if self.accelerator.is_main_process else None
        torch.distributed.gather_object(part, parts)
        return parts

    def _extract(self, corpus, indices, bar) -> tuple[list[tuple[int, str]], np.ndarray, list[tuple[int, str]]]:
        """Index and key of each usable clip, their features (n, D), and index and reason of the others."""
        found, skipped, waiting, encoded = [], [], [], {}
        known = self.cache.places if self.cache else {}
        for clip in corpus.iter_audio(indices, known=known):
            bar.update()
            if clip.error is not None:
                skipped.append((clip.index, str(clip.error)))
                logger.warning("Skipped: %s", clip.error)
                continue
            found.append((clip.index, clip.key))
            if clip.waveform is not None:
                waiting.append(clip)
            if len(waiting) == SHARD_CLIPS or sum(len(clip.waveform) for clip in waiting) > SHARD_SECONDS * 16000:
                self._encode(waiting, encoded)
                waiting = []
        self._encode(waiting, encoded)
        keys = [key for _, key in found]
        if not keys:
            return found, np.empty((0, 0), np.float32), skipped
        return found, np.stack([encoded[key] for key in keys]) if encoded else self.cache.read(keys), skipped

    def _encode(self, clips: list[DecodedClip], kept: dict[str, np.ndarray]):
        """Features of some clips, into the cache if there is one, else into `kept`."""
        features = {}
        for batch in length_batches([len(clip.waveform) for clip in clips]):
            values, mask = collate([clips[i].waveform for i in batch], self.accelerator.device)
            with torch.inference_mode(), self.accelerator.autocast():
                _, pooled = self.model.pool(self.model.frames(values, mask))
            features |= zip((clips[i].key for i in batch), pooled.float().cpu().numpy(), strict=True)
        self.encoded += len(clips)
        if self.cache is None:
            kept.update(features)
        else:
            self.cache.add(features)


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
        """Encode item k = clip `indices[k]` of `corpora[k]`, for all k.

        Raises:
            RunError: the disk is full, or a clip has become unusable.
        """
        total = 0
        items = {(id(corpus), index): k for k, (corpus, index) in enumerate(zip(corpora, indices, strict=True))}
        with tqdm(total=len(indices), desc="Keeping frames", unit="clip", disable=not progress) as bar:
            for corpus in dict.fromkeys(corpora):
                for clip in corpus.iter_audio(sorted(index for owner, index in items if owner == id(corpus))):
                    bar.update()
                    values, mask = collate([encoded_before(clip)], self.device)
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
            raise RunError(
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

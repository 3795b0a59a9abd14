"""Features of whole corpora: every clip decoded and encoded once, kept in a memory-mapped cache."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from modeling_sere.audio_sere import SAMPLING_RATE
from modeling_sere.configuration_sere import FRAME_SAMPLES
from modeling_sere.modeling_sere import SereModel
from modeling_sere.training.corpora.corpus import Corpus, DecodedClip, SkippedClip
from modeling_sere.training.corpora.sounds import is_narrow
from modeling_sere.training.encoding.cache import FeatureCache, fingerprint
from modeling_sere.training.errors import RunError

logger = logging.getLogger(__name__)

SHARD_CLIPS = 256  # decoded together, sorted by length, encoded in batches, written as one shard,
SHARD_SECONDS = 1200  # or fewer if they are long
BATCH_SECONDS = 60  # padded audio per batch
BESIDE = 2  # columns of a row in the cache beside the features


@dataclass
class Features:
    """Raw features of the usable clips of a corpus.

    values: (n, D) float32. strongest: (n,) moment of the greatest highlight in seconds. indices: (n,) positions in
    `corpus.clips`, ascending. keys: (n,) content keys of the audio. skipped: clips without usable audio. narrow: (n,)
    whether there is next to nothing above 4 kHz, as over a telephone.
    """

    values: np.ndarray
    indices: list[int]
    keys: list[str]
    skipped: list[SkippedClip]
    strongest: np.ndarray
    narrow: np.ndarray | None = None


def collate(waveforms: list[np.ndarray], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad waveforms into input_values (B, N) and attention_mask (B, N)."""
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    lengths = torch.tensor([len(tensor) for tensor in tensors])
    values = pad_sequence(tensors, batch_first=True)
    mask = torch.arange(values.shape[1])[None, :] < lengths[:, None]
    return values.to(device), mask.long().to(device)


def encoded_before(clip: DecodedClip) -> np.ndarray:
    """Return the waveform of a clip that was usable when its features were made. Raises RunError: it no longer is."""
    if clip.error is not None:
        raise RunError(f"{clip.error}; it was usable when this run began: restore it, then add --resume.")
    return clip.waveform


def length_batches(lengths: list[int], batch_seconds: float = BATCH_SECONDS) -> Iterator[list[int]]:
    """Yield positions grouped by similar length, each group's padded size within `batch_seconds`; longest first."""
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * longest > batch_seconds * SAMPLING_RATE:
            yield batch
            batch = []
        longest = lengths[position] if not batch else longest
        batch.append(position)
    if batch:
        yield batch


def portions(clips: Iterable[DecodedClip]) -> Iterator[list[DecodedClip]]:
    """Give clips in lists of at most SHARD_CLIPS, or fewer that last SHARD_SECONDS."""
    portion: list[DecodedClip] = []
    for clip in clips:
        portion.append(clip)
        if len(portion) == SHARD_CLIPS or sum(len(c.waveform) for c in portion) > SHARD_SECONDS * SAMPLING_RATE:
            yield portion
            portion = []
    if portion:
        yield portion


NOT_FINITE = "the encoder gives features that are not finite: its weights are damaged, or its precision is too low"


class FeatureExtraction:
    """Encodes corpora with a frozen model, sharded over the processes of `accelerator`.

    Args:
        cache_dir: folder of the cache, or None to keep nothing on disk (an encoder that is being trained).
        everywhere: every process gets all features. Otherwise only the main one does, and the others need no memory.
    """

    def __init__(self, model: SereModel, accelerator: Accelerator, cache_dir: Path | None, everywhere: bool = True):
        self.model, self.accelerator, self.everywhere = model, accelerator, everywhere
        self.cache = None
        if cache_dir is not None:
            folder = Path(cache_dir) / fingerprint(model, accelerator.mixed_precision)
            self.cache = FeatureCache(folder, sum(model.embedding.block_sizes) + BESIDE)
        self.encoded = 0  # clips that were not in the cache

    def __call__(self, corpus: Corpus, indices: list[int] | None = None) -> Features | None:
        """Extract raw features of `indices` (default: all clips) of a corpus, or None on a process that does not get
        them.
        """
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
        found, rows, skipped = zip(*parts, strict=True)
        found, skipped = list(chain(*found)), sorted(chain(*skipped))
        if not found:
            raise RunError(f"{corpus.name}: not one clip could be read; the first is {_explain(corpus, skipped[0])}.")
        rows = rows[0] if len(rows) == 1 else np.concatenate([part for part in rows if len(part)])
        finite = np.isfinite(rows.sum(1, dtype=np.float64))
        skipped = sorted(skipped + [(found[row][0], NOT_FINITE) for row in (~finite).nonzero()[0]])
        if not finite.any():
            raise RunError(f"{corpus.name}: {NOT_FINITE}, for all {len(found)} clips.")
        order = sorted(finite.nonzero()[0].tolist(), key=found.__getitem__)
        rows = rows if order == list(range(len(found))) else rows[order]
        return Features(
            values=rows[:, :-BESIDE],
            strongest=rows[:, -2].copy(),
            narrow=rows[:, -1] > 0,
            indices=[found[row][0] for row in order],
            keys=[found[row][1] for row in order],
            skipped=[SkippedClip(corpus.clips[index].name, reason) for index, reason in skipped],
        )

    def _gathered(self, part) -> list | None:
        """Return what all processes have, in their order, where it is to be known."""
        if self.everywhere or self.accelerator.num_processes == 1:
            return gather_object([part])
        parts = [None] * self.accelerator.num_processes if self.accelerator.is_main_process else None
        torch.distributed.gather_object(part, parts)
        return parts

    def _extract(self, corpus, indices, bar) -> tuple[list[tuple[int, str]], np.ndarray, list[tuple[int, str]]]:
        """Return index and key of each usable clip, their rows (n, D + 2), and index and reason of the others.

        A row holds the features, the strongest moment, and whether the sound is narrow.
        """
        found, skipped, encoded, broken = [], [], {}, set()
        for clips in portions(self._decode(corpus, indices, bar, found, skipped)):
            rows = self._encode(clips)
            broken |= {key for key, row in rows.items() if not np.isfinite(row).all()}
            if self.cache is None:
                encoded |= rows
        for index in (index for index, key in found if key in broken):
            skipped.append((index, f"{corpus.clips[index].name} gives features that are not finite"))
            logger.warning("Skipped: %s", skipped[-1][1])
        found = [(index, key) for index, key in found if key not in broken]
        keys = [key for _, key in found]
        if not keys:
            return found, np.empty((0, 0), np.float32), skipped
        return found, np.stack([encoded[key] for key in keys]) if encoded else self._cached(corpus, found), skipped

    def _decode(self, corpus, indices, bar, found, skipped) -> Iterator[DecodedClip]:
        """Decode the clips that are not in the cache; note which are usable, and why the others are not."""
        seconds = 0.0
        for clip in corpus.iter_audio(indices, known=self.cache.places if self.cache else {}):
            if clip.waveform is not None:
                seconds += len(clip.waveform) / SAMPLING_RATE
                bar.set_postfix_str(f"{seconds / 3600:.2f} h of audio", refresh=False)
            bar.update()
            if clip.error is not None:
                skipped.append((clip.index, str(clip.error)))
                logger.warning("Skipped: %s", clip.error)
                continue
            found.append((clip.index, clip.key))
            if clip.waveform is not None:
                yield clip

    def _encode(self, clips: list[DecodedClip]) -> dict[str, np.ndarray]:
        """Return rows of some clips by key; those that are finite are put into the cache, if there is one."""
        rows = {}
        for batch in length_batches([len(clip.waveform) for clip in clips]):
            values, mask = collate([clips[i].waveform for i in batch], self.accelerator.device)
            with torch.inference_mode(), self.accelerator.autocast():
                highlights, pooled = self.model.pool(self.model.frames(values, mask))
            strongest = (highlights.argmax(1, keepdim=True) + 0.5) * FRAME_SAMPLES / SAMPLING_RATE
            narrow = torch.tensor([[float(is_narrow(clips[i].waveform))] for i in batch], device=strongest.device)
            encoded = torch.cat([pooled.float(), strongest, narrow], 1).cpu().numpy()
            rows |= zip((clips[i].key for i in batch), encoded, strict=True)
        self.encoded += len(clips)
        if self.cache is not None:
            self.cache.add({key: row for key, row in rows.items() if np.isfinite(row).all()})
        return rows

    def _cached(self, corpus, found) -> np.ndarray:
        """Return rows (n, D + 2) of the clips found, from the cache; what has been lost there meanwhile is encoded
        again.

        Raises:
            RunError: a clip that is no longer usable.
        """
        values, lost = self.cache.read([key for _, key in found])
        places = {found[row][0]: row for row in lost}
        clips = corpus.iter_audio(sorted(places)) if places else ()
        for portion in portions(clip for clip in clips if encoded_before(clip) is not None):
            rows = self._encode(portion)
            for clip in portion:
                values[places[clip.index]] = rows[clip.key]
        return values


def _explain(corpus: Corpus, skipped: tuple[int, str]) -> str:
    index, reason = skipped
    return f"{corpus.clips[index].name} ({reason})"

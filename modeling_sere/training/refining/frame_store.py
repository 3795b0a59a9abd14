"""Frames of clips on disk, for gradient steps on them."""

import tempfile

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from modeling_sere.modeling_sere import SereFrames, SereModel
from modeling_sere.training.corpora.corpus import Corpus
from modeling_sere.training.encoding.features import collate, encoded_before
from modeling_sere.training.errors import RunError, writing


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
        """Return frames of some items, padded with zeros."""
        spans = [self.offsets[item] for item in items]
        rows = pad_sequence(
            [torch.from_numpy(self.rows[start : start + size].astype(np.float32)) for start, size in spans],
            batch_first=True,
        )
        mask = torch.arange(rows.shape[1])[None, :] < torch.tensor([size for _, size in spans])[:, None]
        streams = [stream.to(self.device) for stream in rows.split(self.widths, 2)]
        functionals = torch.stack([self.functionals[item] for item in items])
        return SereFrames(streams[0], functionals.to(self.device), tuple(streams[1:]), mask.to(self.device))

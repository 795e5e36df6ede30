"""Images enlarged by many workers: files into a folder, and arrays in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.commands.interface.options import ReadingOptions, UpscaleOptions
from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.commands.runs.resume import Journal
from memsr_compiler.commands.upscale import Enlarger, make_folder
from memsr_compiler.distributed.batches import RUN, Batch, column
from memsr_compiler.images.streams import WRITTEN
from memsr_compiler.locks import claim, share_folder
from memsr_compiler.models.catalogue import DEFAULT, find_file
from memsr_compiler.quantities import Amount, size_in_bytes
from memsr_compiler.runtime.ort import Provider
from memsr_compiler.runtime.upscaler import Upscaler


class EnlargeFiles:
    """A worker that enlarges image files into a folder, from file to file as `memsrc upscale` does.

    A batch has the column "path"; the result has it too, "result", the file that was written, and "error", why there
    is none ("" where there is).  A result has its image's name, and .png behind it where files of its kind are not
    written, so names may not come twice.  What is in the folder already is not done again, so a batch that is given to
    another worker after the first has died goes on where that was, and no file is written by two.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] = DEFAULT,
        max_memory: Amount | None = None,
        threads: int = 1,
        provider: Provider = "cpu",
    ) -> None:
        """Make a network ready to run; the folder, made if need be, is on a file system that all workers share.

        model        one that ships ("x2-small"), or a plain network's file
        max_memory   bytes, or "256MB", that this worker may take for an image, as `--max-memory` of `memsrc upscale`
        threads      of the processor, as many as the worker was given
        provider     "cpu", "cuda" or "tensorrt"

        Raises InvalidInput for what cannot be had or does not fit.
        """
        self._folder = Path(folder)
        make_folder(self._folder)
        options = UpscaleOptions(
            source="",
            target=self._folder,
            model=Path(find_file(os.fspath(model))),
            max_memory=None if max_memory is None else size_in_bytes("max_memory", max_memory),
            threads=threads,
            provider=provider,
        )
        self._enlarger = Enlarger.open(options, ReadingOptions(), Talk())

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Enlarge a batch's files.

        Raises InvalidInput for a batch without paths, and where a `memsrc upscale` is at work in the folder.
        """
        paths = [os.fspath(path) for path in column(batch, "path")]
        with (
            share_folder(self._folder, RUN),
            Journal(self._folder, self._enlarger.work, lambda: claim(self._folder, "notes", wait=True)) as journal,
        ):
            outcomes = [self._enlarge(Path(path), journal) for path in paths]
        return {
            "path": np.array(paths),
            "result": np.array([outcome.get("result", outcome.get("kept", "")) for outcome in outcomes]),
            "error": np.array([outcome.get("failed", "") for outcome in outcomes]),
        }

    def _enlarge(self, source: Path, journal: Journal) -> dict[str, Any]:
        written = source.suffix.lower() in WRITTEN
        target = self._folder / (source.name if written else f"{source.name}.png")
        with claim(self._folder, f"piece {target.name}", wait=True):
            return self._enlarger.enlarge(source, target, source, journal)


class EnlargeImages:
    """A worker that enlarges images in memory: the column "image" of a batch, (N, H, W, C) or N arrays (H, W, C).

    The other columns stay as they are.
    """

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT,
        max_memory: Amount | None = None,
        threads: int = 1,
        provider: Provider = "cpu",
    ) -> None:
        """Make a network ready to run: see `EnlargeFiles`."""
        self._upscaler = Upscaler(model, max_memory=max_memory, threads=threads, provider=provider)

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Enlarge a batch's images.  Raises InvalidInput for a batch without images, or with some that do not fit."""
        large = [self._upscaler(image) for image in column(batch, "image")]
        if len({image.shape for image in large}) == 1:
            return {**batch, "image": np.stack(large)}
        images = np.empty(len(large), object)
        images[:] = large
        return {**batch, "image": images}

"""Records of every batch between two runs over the data: in memory while they are small, else on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from memsr_compiler.locks import temporary_folder

IN_MEMORY = 512 << 20  # bytes

Record = dict[str, Tensor]


class Spool:
    """A list of records that can be replaced one by one.  A context manager: the files go with it."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._folder: Path | None = None
        self._until_the_end = ExitStack()
        self._records: list[Record | Path] = []
        self._sizes: list[int] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._until_the_end.close()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
        if isinstance(record, Path):
            loaded: Record = torch.load(record, weights_only=True)
            return loaded
        return record

    def append(self, record: Record) -> None:
        self._records.append({})
        self._sizes.append(0)
        self[len(self) - 1] = record

    def __setitem__(self, index: int, record: Record) -> None:
        self._sizes[index] = 0
        size = sum(value.numel() * value.element_size() for value in record.values())
        if sum(self._sizes) + size <= self._in_memory:
            self._records[index], self._sizes[index] = record, size
            return
        if self._folder is None:
            self._folder = self._until_the_end.enter_context(temporary_folder(Path(tempfile.gettempdir())))
        path = self._folder / f"{index}.pt"
        torch.save({name: value.clone() for name, value in record.items()}, path)
        self._records[index] = path

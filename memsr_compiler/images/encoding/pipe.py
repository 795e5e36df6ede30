"""A thread that encodes what comes through a pipe, an uncompressed PNG."""

from __future__ import annotations

import contextlib
import queue
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memsr_compiler.errors import ExportError


class Writer(threading.Thread):
    """A thread that runs something; `finish` waits for it, and raises what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # raised again where it can be dealt with
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end; there is none to wait for where an interrupt came before it had begun."""
        if self.is_alive():
            super().join(timeout)

    def finish(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error


class PngPieces:
    """A PNG file piece by piece, its pixels as they are: ISO/IEC 15948, deflate with stored blocks only."""

    def __init__(self, width: int, channels: int, dtype: type[np.uint8] | type[np.uint16]) -> None:
        self._width, self._channels, self._bits = width, channels, 8 * np.dtype(dtype).itemsize
        self._deflate = zlib.compressobj(level=0)

    def start(self, height: int) -> bytes:
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[self._channels]  # grey, grey and alpha, RGB, RGB and alpha
        header = struct.pack(">2I5B", self._width, height, self._bits, colour, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + pack_chunk(b"IHDR", header)

    def rows(self, band: NDArray[Any]) -> bytes:
        """Encode a band (h, width, channels), each row behind the number of its filter, 0: none."""
        raw = np.ascontiguousarray(band.reshape(len(band), -1), dtype=f">u{self._bits // 8}").view(np.uint8)
        rows = np.empty((len(raw), 1 + raw.shape[1]), np.uint8)
        rows[:, 0], rows[:, 1:] = 0, raw
        return pack_chunk(b"IDAT", self._deflate.compress(rows.data))

    def end(self) -> bytes:
        return pack_chunk(b"IDAT", self._deflate.flush()) + pack_chunk(b"IEND", b"")


def pack_chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, with its length and CRC."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


class Pipe:
    """Bytes from one thread to another, a piece in advance."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue(maxsize=1)
        self._left = memoryview(b"")
        self._ended = threading.Event()

    def put(self, piece: bytes, reader: Writer) -> None:
        """Hand on a piece; an empty one is the end.  Raises what the reader raised, if it is no longer there."""
        while True:
            try:
                return self._queue.put(piece, timeout=0.2)
            except queue.Full:
                if not reader.is_alive():
                    reader.finish()
                    raise ExportError("the file was ended before all rows were written") from None

    def abort(self) -> None:
        """Tell the other side that what was put is of no use any more."""
        self._ended.set()

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes, none at the end."""
        while not len(self._left) and not self._ended.is_set():
            with contextlib.suppress(queue.Empty):
                self._left = memoryview(self._queue.get(timeout=0.2))
                if not len(self._left):
                    self._ended.set()
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)

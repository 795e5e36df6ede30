"""Somebody's code in another process, in which its modules are imported anew and draw other numbers."""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np
import torch

from memsr_compiler.errors import first_line
from memsr_compiler.trace.own_code.own_files import is_foreign, lies_in

Ask: TypeAlias = Callable[[object], Any]
_PATIENCE = 60.0  # seconds, and ten times what the same took in this process


class NotDone(Exception):
    """Words on what keeps code from being done in another process."""


@contextmanager
def split_off(work: Callable[[Any], object], without: Collection[str]) -> Iterator[Ask]:
    """A function that has `work` done in a process that is split off here and waits to be asked; it raises NotDone.

    Tensors, and tables and lists of them, go there and come back.

    without   names of modules that it forgets first
    Why not in this process: what modules do to torch and to registries as they are imported (`F.relu` replaced by a
    function that calls the old one) would be done twice, and some refuse that.  Why not in a process of its own: torch
    is imported for seconds there, and what the caller set up is missing.
    """
    begun = time.monotonic()
    try:
        context: Any = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(ours, theirs, work, without))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that this one has threads, and that one none
            process.start()
    except (ValueError, OSError, AssertionError) as error:  # no such processes here, or none of this one's
        why = first_line(error)

        def refuse(_: object) -> Any:
            raise NotDone(f"in another process: does not begin ({why})")

        yield refuse
        return
    theirs.close()

    def ask(given: object) -> Any:
        patience = _PATIENCE + 10 * (time.monotonic() - begun)
        try:
            ours.send_bytes(_pack(given))
            answer = _unpack(ours.recv_bytes()) if ours.poll(patience) else {"failed": "is not done in time"}
        except Exception as error:  # it has ended, or somebody's kinds of tensors cannot be sent
            raise NotDone(f"in another process: gives no answer ({first_line(error)})") from error
        if "failed" in answer:
            raise NotDone(f"in another process: {answer['failed']}")
        return answer["done"]

    try:
        yield ask
    finally:
        with suppress(OSError):  # there is no such group before it has begun
            os.killpg(process.pid, signal.SIGKILL)  # and what code started there as it was imported
        process.kill()
        process.join()
        ours.close()


def _serve(ours: Connection, theirs: Connection, work: Callable[[Any], object], without: Collection[str]) -> None:
    """Wait for what is given, forget modules, and answer; nothing of that is seen or heard outside."""
    ours.close()  # so that this ends where the other process does
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        given = theirs.recv_bytes()
    except EOFError:
        return
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # of a notebook, say, which are no files
    try:
        torch.set_num_threads(1)  # others than this one are not there, and would be waited for
        torch.set_num_threads = _keep_one
        torch.rand(97)  # other numbers, from the same seed, which code may give it again
        np.random.seed()
        random.seed()
        for name in without:
            del sys.modules[name]
        answer = _pack({"done": work(_unpack(given))})
    except BaseException as error:  # whatever it raises; SystemExit, too
        answer = _pack({"failed": first_line(error)})
    theirs.send_bytes(answer)


def _keep_one(nthreads: int) -> None:
    """Let no more threads work than one, whatever code asks for."""


def _pack(value: object) -> bytes:
    packed = io.BytesIO()
    torch.save(value, packed)
    return packed.getvalue()


def _unpack(packed: bytes) -> Any:
    return torch.load(io.BytesIO(packed), weights_only=False)


def list_beside(name: str) -> list[str]:
    """Modules that were imported from the folder of this one, or of the package that it is in; no installed ones."""
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):  # of modules that were made by hand
        return []
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), *filter(None, [spec.origin])]
    folder = os.path.dirname(places[0]) if places else ""
    return [other for other, module in list(sys.modules.items()) if folder and _is_of(folder, other, module)]


def _is_of(folder: str, name: str, module: object) -> bool:
    """Whether it is somebody's, lies in the folder or below, and can be imported by that name."""
    spec = getattr(module, "__spec__", None)
    file = getattr(spec, "origin", None)
    if not isinstance(file, str) or getattr(spec, "name", "") != name:
        return False
    return lies_in(file, [folder]) and is_foreign(file) and "-packages" not in file

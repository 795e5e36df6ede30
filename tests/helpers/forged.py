"""Plain networks with their certificates, changed at will, that say of themselves what an honest one would."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import Run
from torch import Tensor, nn

from memsr_compiler import PlainNet, check_certificate, read_teacher, save_plain
from memsr_compiler.errors import ExportError, MemsrError
from memsr_compiler.ir import Meaning
from memsr_compiler.lowering import freezing, verify
from memsr_compiler.plain.network import PlainLayer
from memsr_compiler.proof.certificate import Certificate
from memsr_compiler.proof.guarantee import list_carried, state_guarantee
from memsr_compiler.trace.trace import Traced, trace


@contextmanager
def reading_once() -> Iterator[None]:
    """Read each teacher once, however many networks are said to be it: what is forged is never the teacher.

    One is known by all that it holds, its class, its numbers and its attributes, as they are in a file.
    """
    read: dict[tuple[bytes, str], Traced] = {}
    trace_anew = trace

    def trace_once(teacher: nn.Module, **options: Any) -> Traced:
        file = io.BytesIO()
        torch.save(teacher, file)
        key = file.getvalue(), repr(sorted(options.items()))
        if key not in read:
            read[key] = trace_anew(teacher, **options)
        return read[key]

    with pytest.MonkeyPatch.context() as patch:
        for reader in (verify, freezing, sys.modules[__name__]):
            patch.setattr(reader, "trace", trace_once)
        yield


@dataclass
class DraftLayer:
    """One layer, to be changed in place."""

    weight: Tensor
    bias: Tensor
    relu: bool
    shuffle: int
    slope: Tensor | None = None


class Draft:
    """A plain network of one stage and its certificate, to be changed in place.  levels[i] is what layers[i] reads."""

    def __init__(self, teacher: nn.Module, honest: PlainNet) -> None:
        assert honest.certificate is not None
        self.graph = trace(teacher, input_range=honest.info.input_range).graph
        self.info, self.certificate = honest.info, honest.certificate
        self.layers = [
            DraftLayer(x.weight.detach().clone(), x.bias.detach().clone(), x.relu, x.shuffle, x.slope) for x in honest
        ]
        self.levels = [list(level) for level in honest.certificate.stages[0].levels]

    def meaning(self, level: int, kind: str, tensor: str = "") -> Meaning:
        """The one of this kind that a level has."""
        return next(m for m in self.levels[level] if m.kind == kind and tensor in ("", m.tensor))

    def swap(self, level: int, old: Meaning, *new: Meaning) -> None:
        """Put other meanings in place of one."""
        at = self.levels[level].index(old)
        self.levels[level][at : at + 1] = new

    def add_channel(self, level: int, meaning: Meaning, kernel: Tensor, bias: float) -> int:
        """A further channel of a level, which nobody reads; `meaning` has position 0.  Returns its position."""
        made, reader = self.layers[level - 1], self.layers[level]
        position = len(made.bias)
        made.weight = torch.cat([made.weight, kernel[None]])
        made.bias = torch.cat([made.bias, torch.tensor([bias], dtype=made.bias.dtype)])
        reader.weight = torch.cat([reader.weight, torch.zeros_like(reader.weight[:, :1])], dim=1)
        self.levels[level].append(replace(meaning, positions=(position,)))
        return position

    def claim(self) -> Certificate:
        """The certificate as it stands, before it names the weights."""
        if not self.levels:
            return self.certificate
        stage = replace(self.certificate.stages[0], levels=tuple(map(tuple, self.levels)))
        return replace(self.certificate, stages=(stage, *self.certificate.stages[1:]))

    def net(self) -> PlainNet:
        """The network, with every hash, the guarantee and the carry as they should be."""
        certificate = self.claim()
        layers = [PlainLayer(v.weight, v.bias, relu=v.relu, shuffle=v.shuffle, slope=v.slope) for v in self.layers]
        try:
            slopes = [layer.for_checker().slopes for layer in layers]
            words = state_guarantee(list_carried(certificate, self.graph, slopes))
        except (LookupError, ValueError, TypeError):  # a claim about what the teacher does not have
            words = self.info.guarantee
        carry = "shift" if certificate.shifts else self.info.carry
        net = PlainNet(layers, replace(self.info, guarantee=words, carry=carry)).eval()
        net.certificate = replace(certificate, plain_sha256=net.sha256())
        return net


def furthest(a: nn.Module, b: nn.Module, images: Sequence[Tensor]) -> float:
    """The largest difference of two networks on some images, both in float64."""
    with torch.no_grad():
        pairs = [(a.double()(x.double()), b.double()(x.double())) for x in images]
    return max(float((y - z).abs().max()) for y, z in pairs)


def must_be_refused(run: Run, teacher: Path, net: PlainNet, folder: Path) -> str:
    """Require that neither the public function nor the command takes a network.  Returns the reason."""
    with pytest.raises(MemsrError) as error:
        check_certificate(read_teacher(teacher, probe=False), net)
    try:
        save_plain(net, folder / "forged.safetensors")
    except ExportError:  # what no file of ours holds, no command sees
        return str(error.value)
    status, out, err = run("verify", teacher, folder / "forged.safetensors", "--no-probe")
    assert status in (1, 2) and "equivalent" not in out, (status, out, err)
    return str(error.value)

"""The certificate holds for what the compiler makes, and for nothing else.

An oracle that shares nothing with the checker evaluates each claim on images.  With exact networks there is no
rounding, so a claim is true or false; what is false, and what is not the teacher, the checker must refuse.
"""

from __future__ import annotations

import ast
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import random_images, random_network
from test_fuzz import shift_constant
from torch import Tensor, nn

from memsr_compiler import checker, ir
from memsr_compiler.certificate import Certificate, Stage, numbers, runs
from memsr_compiler.checker import Layer, check
from memsr_compiler.compile import compile_to_plain
from memsr_compiler.errors import CertificateError
from memsr_compiler.families.edsr import EDSR
from memsr_compiler.interp import evaluate
from memsr_compiler.schedule import Carrying
from memsr_compiler.trace import trace

NETWORKS = range(0, 160, 2)  # seeds of exact networks


class Converted:
    """A teacher, its plain layers, the certificate that links them, and images to tell networks apart."""

    def __init__(self, teacher: nn.Module, images: list[Tensor], carry: Carrying, constant: float | None = None) -> None:
        low = min(float(x.min()) for x in images)
        self.range = (0.0, 1.0) if low >= 0 else (-1.0, 1.0)
        plain = compile_to_plain(teacher, carry=carry, constant=constant, align=1, input_range=self.range)
        assert plain.certificate is not None
        self.graph = trace(teacher, input_range=self.range).graph
        self.layers, self.certificate, self.images = list(plain.checkable()), plain.certificate, images
        self.outputs = [run_layers(self.layers, x)[-1] for x in images]

    def changed(self, layers: Sequence[Layer]) -> bool:
        """Whether other layers compute something else, exactly."""
        return any(not torch.equal(run_layers(layers, x)[-1], y) for x, y in zip(self.images, self.outputs, strict=True))

    def refused(self, layers: Sequence[Layer], certificate: Certificate) -> bool:
        try:
            check(self.graph, layers, certificate)
        except CertificateError:
            return True
        return False

    def true(self, layers: Sequence[Layer], certificate: Certificate) -> bool:
        """Whether every claim of the certificate's only stage holds on all images."""
        return all(holds(self.graph, layers, certificate.stages[0], x) for x in self.images)


def converted(seed: int, carry: Carrying = "auto") -> Converted:
    network = random_network(seed).double()
    input_range = random.Random(seed).choice([(0.0, 1.0), (-1.0, 1.0)])
    images = random_images(network, input_range)
    constant = shift_constant(network, input_range, images) if carry == "shift" else None
    return Converted(network, images, carry, constant)


def small_edsr(carry: Carrying = "auto", constant: float | None = None) -> Converted:
    """Two residual blocks, weights of few bits: every kind of meaning but the parts."""
    teacher = EDSR(n_resblocks=2, n_feats=3, scale=2, n_colors=1, mean_shift=False, res_scale=1.0, simple_tail=True) \
        if False else _edsr()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_((torch.randn(p.shape, generator=generator) * 2).round().clamp(-2, 2) / 2)
    images = [torch.randint(0, 9, (2, 1, h, w), generator=generator).double() / 8 for h, w in ((1, 1), (4, 5), (9, 7))]
    return Converted(teacher.double(), images, carry, constant)

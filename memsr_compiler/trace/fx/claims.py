"""What a file says of the tensors of its program: torch believes it, so it is computed again, without numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from memsr_compiler.errors import InvalidInput
from memsr_compiler.trace.fx.needed import word_of
from memsr_compiler.trace.fx.rewritten import size_made_for

_A, _P = torch.ops.aten, torch.ops.prims
_DIVIDING = frozenset((
    _A.div, _A.div_, _A.divide, _A.divide_, _A.floor_divide, _A.floor_divide_, _A.remainder, _A.remainder_, _A.fmod,
    _A.fmod_, _P.div, _P.remainder, _P.fmod,
))  # fmt: skip
"""Of whole numbers, the least by -1 ends the process: it has no quotient."""
_DIVIDING_WITHIN = frozenset((
    _A.gcd, _A.gcd_, _A.lcm, _A.lcm_, _A.avg_pool1d, _A.avg_pool2d, _A.avg_pool3d, _A.adaptive_avg_pool1d,
    _A.adaptive_avg_pool2d, _A._adaptive_avg_pool2d, _A.adaptive_avg_pool3d, _A._adaptive_avg_pool3d, _P.gcd,
))  # fmt: skip
"""These divide by something of their own, which may be -1."""
_NORMS = frozenset((
    _A.batch_norm, _A.native_batch_norm, _A._native_batch_norm_legit, _A._native_batch_norm_legit_no_training,
))  # fmt: skip
"""Torch reads as many weights as there are channels, whether there are or not."""

_LEAST_FACTOR = 2.0**-10


def require_true(program: fx.GraphModule) -> None:
    """Raises InvalidInput where a program from a file makes tensors of other types or sizes than it says.

    It is looked at for images of the size that it was made for; whatever torch itself raises there, a run will.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = [_make(node.meta.get("val")) for node in program.graph.find_nodes(op="placeholder")]
        _Looking(program).run(*given, enable_io_processing=False)


def _make(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty([size_made_for(side) for side in value.shape], dtype=value.dtype)


class _Looking(fx.Interpreter):
    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__(program)
        self.extra_traceback = False  # which is put behind what is said here

    def run_node(self, n: fx.Node) -> Any:
        if isinstance(n.target, torch._ops.OpOverload):
            self._require_operands(n, n.target.overloadpacket)
        said = n.meta.get("val")
        try:
            made = super().run_node(n)
        except (DataDependentOutputException, DynamicOutputShapeException):
            made = _make_of_values(n, said)
        if isinstance(made, Tensor) and isinstance(said, Tensor) and not _agree(made, said):
            raise InvalidInput(
                f"{n.name}: {word_of(n)} makes {_say(made)}, and the file says {_say(said)}; it is damaged, or was "
                "changed: export the network again"
            )
        return made

    def _require_operands(self, n: fx.Node, operation: Any) -> None:
        """Raises InvalidInput for operands that torch does not look at, and that end the process."""
        assert isinstance(n.target, torch._ops.OpOverload), "it has been asked"
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        names = [argument.name for argument in n.target._schema.arguments]
        operands = [*args, *(kwargs.get(name) for name in names[len(args) :])]
        if any(name.startswith("scales") and _is_tiny(one) for name, one in zip(names, operands, strict=False)):
            raise InvalidInput(f"{n.name}: {word_of(n)} is by a factor of nearly 0; it is damaged")
        if operation in _NORMS and any(_is_short(one, operands[0].shape[1]) for one in operands[1:5]):
            raise InvalidInput(f"{n.name}: its batch norm has weights for other channels than it has; it is damaged")
        divides = operation in _DIVIDING_WITHIN or (operation in _DIVIDING and _may_be_minus_one(operands[1]))
        if divides and _is_whole(operands[0]):
            raise InvalidInput(
                f"{n.name}: {word_of(n)} divides whole numbers by whole numbers, of which some have no quotient; take "
                "float() of both, and export the network again"
            )


def _make_of_values(n: fx.Node, said: Any) -> Any:
    """What an operation makes, where values say how much of it: of the type that it takes, or places of it.

    A number is one of the size that free sizes have.
    """
    if not isinstance(said, Tensor):
        return size_made_for(said) if isinstance(said, torch.SymInt) else 1.0
    given = next((one.meta.get("val") for one in n.all_input_nodes), None)
    made = _make(said)
    places = "nonzero" in word_of(n)
    return made.to(torch.int64 if places or not isinstance(given, Tensor) else given.dtype)


def _is_short(weight: Any, channels: int) -> bool:
    return isinstance(weight, Tensor) and weight.shape != (channels,)


def _is_tiny(factor: Any) -> bool:
    """Whether a factor of an enlargement makes places of pixels that no integer holds."""
    return isinstance(factor, float) and 0 < factor < _LEAST_FACTOR


def _may_be_minus_one(divisor: Any) -> bool:
    return _is_whole(divisor) and (isinstance(divisor, Tensor) or divisor == -1)


def _is_whole(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex())
    return isinstance(value, int)


def _agree(made: Tensor, said: Tensor) -> bool:
    sides = zip(made.shape, said.shape, strict=False)
    known = all(side == other for side, other in sides if type(other) is int)
    return made.dtype == said.dtype and made.dim() == said.dim() and known


def _say(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"

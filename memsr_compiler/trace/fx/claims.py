"""Claims of a file on the tensors of its program: torch believes them, so they are computed again, by shapes alone."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._pytree import tree_leaves

from memsr_compiler.errors import InvalidInput
from memsr_compiler.torch_helpers import is_whole
from memsr_compiler.trace.fx.bounded import DIVIDING, in_silence
from memsr_compiler.trace.fx.needed import word_of
from memsr_compiler.trace.fx.rewritten import size_made_for
from memsr_compiler.trace.fx.size_arithmetic import require_short_numbers

log = logging.getLogger(__name__)
_A, _P = torch.ops.aten, torch.ops.prims
_DIVIDING_WITHIN = frozenset((
    _A.gcd, _A.gcd_, _A.lcm, _A.lcm_, _A.avg_pool1d, _A.avg_pool2d, _A.avg_pool3d, _A.adaptive_avg_pool1d,
    _A.adaptive_avg_pool2d, _A._adaptive_avg_pool2d, _A.adaptive_avg_pool3d, _A._adaptive_avg_pool3d, _P.gcd,
))  # fmt: skip
"""These divide by something of their own, and have none for some whole numbers, as `DIVIDING` has none."""
_NORMS = frozenset((
    _A.batch_norm, _A.native_batch_norm, _A._native_batch_norm_legit, _A._native_batch_norm_legit_no_training,
))  # fmt: skip
"""Torch reads as many weights as there are channels, whether there are or not."""
_STATISTICS = ("running_mean", "running_var")
_PLACES = frozenset((_A.nonzero, _A.argwhere, _A.nonzero_static))
_LEAST_FACTOR = 2.0**-10


def require_true(program: fx.GraphModule) -> None:
    """Raises InvalidInput where a program from a file makes tensors of other types or sizes than it says.

    It is looked at for images of the size that it was made for.  What cannot be computed without numbers, the file is
    not believed, nor what is made of that: it is known of no type any more.
    """
    require_short_numbers(program.graph)
    shapes = FakeTensorMode(allow_non_fake_inputs=True)
    looking = _Looking(program, shapes)
    with shapes:
        given = [_make(node.meta.get("val")) for node in program.graph.find_nodes(op="placeholder")]
        looking.run(*given, enable_io_processing=False)
    for node in looking.unknown:
        node.meta.pop("val", None)


def _make(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty([size_made_for(side) for side in value.shape], dtype=value.dtype)


class _Looking(fx.Interpreter):
    """Computes types and sizes.

    unknown    nodes of which that failed, and those that take them
    of_image   nodes that hang on the image, or on its size
    """

    def __init__(self, program: fx.GraphModule, shapes: FakeTensorMode) -> None:
        super().__init__(program)
        self.shapes = shapes
        self.extra_traceback = False  # which is put behind what is said here
        self.unknown: set[fx.Node] = set()
        self.of_image = set(program.graph.find_nodes(op="placeholder"))

    def run_node(self, n: fx.Node) -> Any:
        if not self.of_image.isdisjoint(n.all_input_nodes):
            writes = isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable
            self.of_image |= {n, *n.all_input_nodes[:1]} if writes else {n}
        if isinstance(n.target, torch._ops.OpOverload):
            self._require_operands(n, n.target.overloadpacket)
        said = n.meta.get("val")
        made = self._compute(n, said)
        if n.op == "get_attr" and isinstance(made, Tensor):
            made = self.shapes.from_tensor(made)
        for one in tree_leaves(made):
            if isinstance(one, FakeTensor):
                one.constant = None  # of which torch would compute with numbers after all
        if n in self.unknown or not self.unknown.isdisjoint(n.all_input_nodes):
            self.unknown.add(n)
        elif isinstance(made, Tensor) and isinstance(said, Tensor) and not _agree(made, said):
            raise InvalidInput(
                f"{n.name}: {word_of(n)} makes {_say(made)}, and the file says {_say(said)}; it is damaged, or was "
                "changed: export the network again"
            )
        return made

    def _compute(self, n: fx.Node, said: Any) -> Any:
        if n.target == _A.detach_.default:  # which torch does not do to a view without numbers
            return self.fetch_args_kwargs_from_env(n)[0][0]
        try:
            with in_silence():
                return super().run_node(n)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return self._make_of_values(n, said)
        except Exception as error:  # whatever torch cannot do without numbers
            log.info("%s: %s cannot be computed without numbers: %s", n.name, word_of(n), error)
            self.unknown.add(n)
            return _make(said)

    def _make_of_values(self, n: fx.Node, said: Any) -> Any:
        """A result where values say how much an operation makes: of the type that it takes, or places of it.

        A number is one of the size that free sizes have.
        """
        if not isinstance(said, Tensor):
            return size_made_for(said) if isinstance(said, torch.SymInt) else 1.0
        operands = self.fetch_args_kwargs_from_env(n)[0]
        given = next((one for one in operands if isinstance(one, Tensor)), None)
        places = getattr(n.target, "overloadpacket", None) in _PLACES
        return _make(said).to(torch.int64 if places or given is None else given.dtype)

    def _require_operands(self, n: fx.Node, operation: Any) -> None:
        """Raises InvalidInput for operands that torch does not look at, and that end the process."""
        assert isinstance(n.target, torch._ops.OpOverload), "it has been asked"
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        names = [argument.name for argument in n.target._schema.arguments]
        operands = [*args, *(kwargs.get(name) for name in names[len(args) :])]
        named = dict(zip(names, operands, strict=False))
        if any(name.startswith("scales") and _is_tiny(one) for name, one in named.items()):
            raise InvalidInput(f"{n.name}: {word_of(n)} is by a factor of nearly 0; it is damaged")
        if operation in _NORMS and not all(isinstance(named.get(name), Tensor) for name in _STATISTICS):
            raise InvalidInput(f"{n.name}: its batch norm has no statistics; export network.eval() again")
        if operation in _NORMS and any(_is_short(one, operands[0].shape[1]) for one in operands[1:5]):
            raise InvalidInput(f"{n.name}: its batch norm has weights for other channels than it has; it is damaged")
        of_image = n in self.of_image and operation in DIVIDING and _may_be_minus_one(operands[1])
        if (of_image or operation in _DIVIDING_WITHIN) and _is_whole(operands[0]):  # of others it is seen in a run
            raise InvalidInput(
                f"{n.name}: {word_of(n)} divides whole numbers, and some have no quotient; write the divisor as a "
                "number, `// 2`, or take float() of both, and export the network again"
            )


def _is_short(weight: Any, channels: int) -> bool:
    return isinstance(weight, Tensor) and weight.shape != (channels,)


def _is_tiny(factor: Any) -> bool:
    """Whether a factor of an enlargement makes places of pixels that no integer holds."""
    return isinstance(factor, float) and 0 < factor < _LEAST_FACTOR


def _may_be_minus_one(divisor: Any) -> bool:
    return _is_whole(divisor) and (isinstance(divisor, Tensor) or divisor == -1)


def _is_whole(value: Any) -> bool:
    return is_whole(value) if isinstance(value, Tensor) else isinstance(value, int)


def _agree(made: Tensor, said: Tensor) -> bool:
    sides = zip(made.shape, said.shape, strict=False)
    known = all(side == other for side, other in sides if type(other) is int)
    return made.dtype == said.dtype and made.dim() == said.dim() and known


def _say(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"

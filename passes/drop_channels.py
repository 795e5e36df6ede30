"""Channels that nobody reads, that are always zero, or that another one equals -> gone."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from memsr_compiler.errors import PassError
from memsr_compiler.ir import ACTIVATIONS, Block, BlockConv2d, Graph, Input, Op, PixelShuffle, PRelu, Relu, slopes_of
from memsr_compiler.ir.rewrite import rewrite


@rewrite(
    source="dead-code and common-subexpression elimination, channel by channel",
    reads=(Input, BlockConv2d, Relu, PRelu, PixelShuffle),
)
def drop_channels(graph: Graph) -> Graph:
    """Drop dead channels, then channels that are always zero, then all but the first of equal ones.

    Requires  the chain that merge_parallel leaves.
    Ensures   every channel between two layers is read, differs from the others and can be other than zero.  Where
              equal channels have become one, it may be that their readers' weights cancel: it stays, since a
              certificate can say that only of a channel that is there.
    """
    convs, relus = chain(graph)
    for i in reversed(range(len(relus))):  # from the end: a reader that goes takes what only it read along
        convs, relus = _keep(convs, relus, i, {c: c for c in _read(convs[i + 1])})
    for i in range(len(relus)):  # from the start: equal channels make equal channels
        convs, relus = _keep(convs, relus, i, _not_always_zero(convs[i], _slopes(convs, relus, i)))
        convs, relus = _keep(convs, relus, i, _representatives(convs[i], _slopes(convs, relus, i)))
    return rebuild(graph, convs, relus)


def chain(graph: Graph) -> tuple[list[BlockConv2d], list[Relu | PRelu]]:
    """The convolutions of a chain and the activations between them.  Raises PassError if the graph is not a chain."""
    convs = [op for op in graph if isinstance(op, BlockConv2d)]
    relus = [op for op in graph if isinstance(op, ACTIVATIONS)]
    if len(convs) != len(relus) + 1 or any(len(graph.users(op.name)) > 1 for op in graph):
        raise PassError(f"{graph.output}: not a chain of convolution and ReLU; run merge-parallel first")
    return convs, relus


def rebuild(graph: Graph, convs: Sequence[BlockConv2d], relus: Sequence[Relu | PRelu]) -> Graph:
    """The same chain with other convolutions and activations in place of its own."""
    ops: list[Op] = [graph.input, convs[0]]
    for relu, conv in zip(relus, convs[1:], strict=True):
        ops += [relu, conv]
    return Graph((*ops, *(op for op in graph if isinstance(op, PixelShuffle))), graph.output)


def _keep(
    convs: list[BlockConv2d], relus: list[Relu | PRelu], i: int, stands_for: dict[int, int]
) -> tuple[list[BlockConv2d], list[Relu | PRelu]]:
    """Level i with only the channels stands_for.values().

    Channel c of before is now stands_for[c]; it was always zero if that is -1, and was not needed if it has none.
    """
    width = len(convs[i].bias)
    kept = sorted({c for c in stands_for.values() if c >= 0})
    if not kept:  # a level has at least one channel
        kept, stands_for = [0], {**stands_for, 0: 0}
    if len(kept) == width:
        return convs, relus
    position = {c: p for p, c in enumerate(kept)}
    moved = {c: position.get(stands_for[c], -1) for c in stands_for}
    meaning = tuple(m for m in (m.renumber(moved) for m in relus[i].meaning) if m.positions)
    convs, relus = list(convs), list(relus)
    convs[i], convs[i + 1] = _with_rows(convs[i], position), _with_columns(convs[i + 1], moved, len(kept))
    relu = relus[i]
    relu = replace(relu, slope=relu.slope[kept]) if isinstance(relu, PRelu) else relu
    relus[i] = replace(relu, meaning=meaning)
    return convs, relus


def _runs(where: dict[int, int], start: int, length: int) -> list[tuple[int, list[int]]]:
    """Channels start .. start + length that are still there, as runs: (their first new number, their offsets)."""
    runs: list[tuple[int, list[int]]] = []
    for offset in range(length):
        new = where.get(start + offset, -1)
        if new < 0:
            continue
        if runs and new == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].append(offset)
        else:
            runs.append((new, [offset]))
    return runs


def _with_rows(conv: BlockConv2d, position: dict[int, int]) -> BlockConv2d:
    blocks = [
        replace(b, row=row, kernel=_pick(b.kernel, 0, offsets))
        for b in conv.blocks
        for row, offsets in _runs(position, b.row, len(b.kernel))
    ]
    return replace(conv, blocks=_nonzero(blocks), bias=conv.bias[sorted(position)])


def _with_columns(conv: BlockConv2d, moved: dict[int, int], width: int) -> BlockConv2d:
    blocks = [
        replace(b, column=column, kernel=_pick(b.kernel, 1, offsets))
        for b in conv.blocks
        for column, offsets in _runs(moved, b.column, b.kernel.shape[1])
    ]
    return replace(conv, blocks=_nonzero(blocks), channels_in=width)


def _pick(kernel: Tensor, dim: int, offsets: list[int]) -> Tensor:
    return kernel if len(offsets) == kernel.shape[dim] else kernel.index_select(dim, torch.tensor(offsets))


def _nonzero(blocks: list[Block]) -> tuple[Block, ...]:
    return tuple(b for b in blocks if b.kernel.any())


def _read(conv: BlockConv2d) -> list[int]:
    """The channels of its operand that a convolution reads."""
    read = torch.zeros(conv.channels_in, dtype=torch.bool)
    for b in conv.blocks:
        taps = b.kernel.flatten(1).any(0).reshape(b.kernel.shape[1], -1)
        read[b.column : b.column + len(taps)] |= taps.any(1)
    numbers: list[int] = read.nonzero()[:, 0].tolist()
    return numbers


def _slopes(convs: Sequence[BlockConv2d], relus: Sequence[Relu | PRelu], i: int) -> Tensor:
    return slopes_of(relus[i], len(convs[i].bias))


def _not_always_zero(conv: BlockConv2d, slopes: Tensor) -> dict[int, int]:
    """Each channel as itself, or as -1 if it can be nothing but zero."""
    fed = torch.zeros(len(conv.bias), dtype=torch.bool)
    for b in conv.blocks:
        fed[b.row : b.row + len(b.kernel)] |= b.kernel.flatten(1).any(1)
    # Where equal channels have become one, blocks may cancel: (nearly) no mark is then looked at in full.
    largest = max((float(torch.stack(b.kernel.aminmax()).abs().max()) for b in conv.blocks), default=0.0)
    constant = (conv.bias > 0) | ((conv.bias < 0) & (slopes != 0))
    doubtful = fed & ~constant & (_marks(conv).abs() <= largest * 1e-9)
    for channel in doubtful.nonzero()[:, 0].tolist():
        fed[channel] = bool(_row(conv, channel)[:-1].any())
    return {c: c if alive else -1 for c, alive in enumerate((fed | constant).tolist())}


def _marks(conv: BlockConv2d) -> Tensor:
    """One number for each row's kernel; equal kernels have (nearly) equal ones."""
    generator = torch.Generator().manual_seed(0)
    k = conv.kernel_size
    probe = torch.rand(conv.channels_in, k, k, generator=generator, dtype=torch.float64)
    mark = torch.zeros(len(conv.bias), dtype=torch.float64)
    for b in conv.blocks:
        rows, columns, inner, _ = b.kernel.shape
        at = (k - inner) // 2
        window = probe[b.column : b.column + columns, at : at + inner, at : at + inner]
        mark[b.row : b.row + rows] += b.kernel.flatten(1) @ window.flatten()
    return mark


def _representatives(conv: BlockConv2d, slopes: Tensor) -> dict[int, int]:
    """For each channel the first one with the same kernel, bias and slope."""
    mark = conv.bias + slopes + _marks(conv)  # those of equal rows are then compared in full
    ordered, order = mark.sort(stable=True)
    near = (ordered.diff() <= ordered.abs().max() * 1e-9).nonzero()[:, 0]
    close = list(zip(order[near].tolist(), order[near + 1].tolist(), strict=True))
    stands_for: dict[int, int] = {c: c for c in range(len(mark))}
    if not close:
        return stands_for
    candidates = {c: torch.cat([_row(conv, c), slopes[c : c + 1]]) for pair in close for c in pair}
    for a, b in close:
        if torch.equal(candidates[a], candidates[b]):
            first, second = sorted((stands_for[a], b))
            stands_for = {c: first if s in (second, b) else s for c, s in stands_for.items()}
    return stands_for


def _row(conv: BlockConv2d, channel: int) -> Tensor:
    blocks = [
        replace(b, row=0, kernel=b.kernel[channel - b.row : channel - b.row + 1])
        for b in conv.blocks
        if b.row <= channel < b.row + len(b.kernel)
    ]
    bias = conv.bias[channel : channel + 1]
    return torch.cat([replace(conv, blocks=tuple(blocks), bias=bias).dense().flatten(), bias])

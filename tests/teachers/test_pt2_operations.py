"""A .pt2 file asks for no operation that writes where it is told to, prints, or sets the seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import InvalidInput, MemsrError
from memsr_compiler.teachers import pt2
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.pt2_operations import is_checked

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
A = torch.ops.aten


class Asking(nn.Module):
    """A network that asks for an operation on numbers that its file holds."""

    def __init__(self, ask: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self.conv, self.ask = nn.Conv2d(3, 12, 3, padding=1), ask
        self.register_buffer("numbers", torch.tensor([0, 1, 2, 3]))

    def forward(self, x: Tensor) -> Tensor:
        self.ask(self.get_buffer("numbers"))
        return F.pixel_shuffle(self.conv(x), 2)


def save(model: nn.Module, path: Path) -> Path:
    """A file, whose program asks for all that the network does, used or not."""
    program = torch.export.export(model.eval(), (torch.rand(1, 3, 9, 8),))
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (lambda i: A._convert_indices_from_coo_to_csr(i, 4), "_convert_indices_from_coo_to_csr"),
        (lambda i: torch.segment_reduce(torch.rand(6), "sum", lengths=i, unsafe=True), "segment_reduce"),
        (
            lambda i: A.max_pool2d_with_indices_backward(
                torch.rand(1, 1, 2, 2),
                torch.rand(1, 1, 4, 4),
                [2, 2],
                [2, 2],
                [0, 0],
                [1, 1],
                False,
                i.view(1, 1, 2, 2),
            ),
            "max_pool2d_with_indices_backward",
        ),
        (lambda i: torch.embedding_renorm_(torch.rand(4, 4), i, 1.0, 2.0), "embedding_renorm"),
    ],
)
def test_operations_that_check_nothing_are_refused(ask: Callable[[Tensor], Tensor], name: str, tmp_path: Path) -> None:
    file = save(Asking(ask), tmp_path / "a.pt2")
    with pytest.raises(InvalidInput, match=rf"could execute code: it has target 'torch\.ops\.aten\.{name}"):
        read_teacher(file, probe=False)


@pytest.mark.parametrize(
    "target",
    ["_print.default", "manual_seed.default", "_batch_norm_with_update.default", "set_.source_Tensor",
     "as_strided_.default", "_unsafe_index_put.default",
     "_reshape_alias.default", "from_file.default", "resize_.default", "_foreach_print.List",
     "reflection_pad2d.out", "add.out", "max.dim_max", "sort.values", "im2col.out", "add.no_such",
     "repeat_interleave.Tensor", "repeat_interleave.self_Tensor", "repeat_interleave.Tensor_out"],
)  # fmt: skip
def test_those_of_no_network_are_on_no_list(target: str) -> None:
    assert not is_checked(f"torch.ops.aten.{target}")


@pytest.mark.parametrize(
    "name",
    ["conv2d.default", "add_.Tensor", "relu_.default", "_foreach_mul_.Scalar", "matmul.default",
     "pixel_shuffle.default", "index_put_.default", "reshape_as.default", "repeat_interleave.self_int", "max.dim"],
)  # fmt: skip
def test_those_of_networks_are(name: str) -> None:
    assert is_checked(f"torch.ops.aten.{name}")


class Normed(nn.Module):
    def __init__(self, kernels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.v, self.g = nn.Parameter(torch.rand(12, 3, 3, 3)), nn.Parameter(torch.rand(kernels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.conv2d(x, A._weight_norm(self.v, self.g, 0), padding=1), 2)


def test_weight_norms_are_read_where_their_weights_fit(tmp_path: Path) -> None:
    """Torch asks for as many sizes as kernels, and reads beyond what there is."""
    model, x = Normed(12), torch.rand(2, 3, 5, 6)
    torch.testing.assert_close(compile_to_plain(save(model, tmp_path / "a.pt2"))(x), model(x), rtol=0, atol=1e-5)
    with pytest.raises(InvalidInput, match=r"its weight norm has 1 sizes for 12 kernels; the file is damaged"):
        read_teacher(save(Normed(1), tmp_path / "b.pt2"), probe=False)


class Within(nn.Module):
    """A network, within torch.no_grad()."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = self.inner(x)
        return result * 1.0


def test_parts_without_gradients_are_looked_into(tmp_path: Path) -> None:
    """Which are graphs of their own."""
    with pytest.raises(InvalidInput, match=r"its weight norm is not one of stored weights, or within torch\.no_grad"):
        read_teacher(save(Within(Normed(12)), tmp_path / "a.pt2"), probe=False)
    dropping = Asking(lambda x: None)
    dropping.register_forward_hook(lambda _, __, y: F.dropout(y, 0.5, True))
    with pytest.raises(InvalidInput, match="was exported in training mode, in which dropout computes something else"):
        read_teacher(save(Within(dropping), tmp_path / "b.pt2"), probe=False)


@pytest.mark.parametrize("count", [4, 300])
def test_the_largest_of_hundreds_of_sizes_is_not_computed(count: int) -> None:
    """Which compares each with each, for minutes."""
    text = f"Max({', '.join(f'Symbol({chr(39)}s{i}{chr(39)})' for i in range(count))})"
    assert pt2._harmless_expression(text) is (count < 10)
    nested = "Max(Symbol('s0'), " * count + "1" + ")" * count
    assert pt2._harmless_expression(nested) is (count < 10)


class Large(nn.Module):
    """A network that multiplies by a number which it takes out of something large."""

    def __init__(self, make: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 12, 3, padding=1), make
        self.register_buffer("ones", torch.ones(100_000))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) * self.make(self.get_buffer("ones"), x).flatten()[0], 2)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda ones, x: ones.repeat(100_000), "repeat"),
        (lambda ones, x: ones[:, None] + ones, "add"),
        (lambda ones, x: ones[:, None] @ ones[None], "mm"),
        (lambda ones, x: ones.expand(100_000, -1).contiguous(), "clone"),
        (lambda ones, x: torch.full((100_000, 100_000), 1.0), "full"),
        (lambda ones, x: torch.cat([ones.repeat(3_000) for _ in range(4)]), "repeat"),
        (lambda ones, x: x.repeat(1, 1, 20_000, 20_000) * 0 + 1, "repeat"),
        (lambda ones, x: ones.expand(100_000, -1).sum(), "sum"),
        (lambda ones, x: F.conv2d(torch.ones(1, 1, 9_000, 9_000), torch.ones(1, 1, 1_000, 1_000)), "convolution"),
        (lambda ones, x: F.max_pool1d(ones.repeat(500)[None, None], 50_000, 1, 25_000), "max_pool2d_with_indices"),
    ],
)
def test_a_file_does_not_ask_for_gigabytes(make: Callable[[Tensor, Tensor], Tensor], name: str, tmp_path: Path) -> None:
    """Of constants, or of an image of a few pixels; nor for minutes."""
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if name == "repeat" else None
    program = torch.export.export(Large(make).eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "large.pt2")
    with pytest.raises(
        InvalidInput, match=rf"large\.pt2: its operation {name} takes [\d,]+ numbers, where an image of"
    ):
        read_teacher(tmp_path / "large.pt2", probe=False)
    with pytest.raises(InvalidInput, match=f"its operation {name} takes [\\d,]+ numbers, where an image of"):
        compile_to_plain(program.module())


def test_what_takes_no_memory_is_no_matter(tmp_path: Path) -> None:
    """A view of 10^10 numbers has those of what it is a view of."""
    model = Large(lambda ones, x: ones.expand(100_000, -1)[0])
    compile_to_plain(read_teacher(save(model, tmp_path / "a.pt2"), probe=False))


def lie(program: torch.export.ExportedProgram, operation: object, **said: torch.dtype) -> None:
    """Let a program say something else of what an operation makes, as a file may."""
    for node in program.graph.nodes:
        if node.target == operation:
            node.meta["val"] = node.meta["val"].to(**said)
        if "assert_tensor_metadata" in str(node.target):
            program.graph.erase_node(node)


def test_a_file_is_not_believed_what_its_tensors_are(tmp_path: Path) -> None:
    """A cast that was said to make float32 was taken out: it rounded what was larger than what it was tried on."""

    class Rounding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return (F.relu(self.conv(x) - 10) / 32).to(torch.int32).float()

    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Rounding().eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "true.pt2")
    lie(program, A.to.dtype, dtype=torch.float32)
    torch.export.save(program, tmp_path / "lie.pt2")
    read_teacher(tmp_path / "true.pt2", probe=False)
    with pytest.raises(InvalidInput, match=r"to: to makes int32 .*, and the file says float32"):
        read_teacher(tmp_path / "lie.pt2", probe=False)


def test_batch_norms_are_read_where_their_weights_fit(tmp_path: Path) -> None:
    """Torch reads as many as there are channels."""
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.PixelShuffle(2)).eval()
    program = torch.export.export(model, (torch.rand(1, 3, 9, 8),)).run_decompositions()
    torch.export.save(program, tmp_path / "whole.pt2")
    compile_to_plain(read_teacher(tmp_path / "whole.pt2", probe=False))
    for node in program.graph.nodes:
        if node.name == "p_1_bias":
            node.meta["val"] = node.meta["val"][:3]
    program.state_dict["1.bias"] = nn.Parameter(torch.ones(3))
    torch.export.save(program, tmp_path / "short.pt2")
    with pytest.raises(InvalidInput, match="its batch norm has weights for other channels than it has"):
        read_teacher(tmp_path / "short.pt2", probe=False)


@pytest.mark.parametrize(
    ("divide", "why"),
    [
        (lambda i: torch.div(i, torch.tensor(-1), rounding_mode="trunc"), "its operation div divides the least whole"),
        (lambda i: torch.div(i, -1, rounding_mode="floor"), "its operation div divides the least whole number by -1"),
        (lambda i: A.divide.Tensor_mode(i, torch.tensor(-1), rounding_mode="floor"), "divides the least whole number"),
        (lambda i: torch.lcm(i, torch.tensor(7)), "lcm divides whole numbers, and some have no quotient"),
        (
            lambda i: A.avg_pool2d(i.view(1, 1, 2, 2), [2, 2], [1, 1], [0, 0], False, True, -1),
            "avg_pool2d divides whole numbers, and some have no quotient",
        ),
    ],
)
def test_the_least_of_whole_numbers_is_not_divided_by_minus_one(
    divide: Callable[[Tensor], Tensor], why: str, tmp_path: Path
) -> None:
    """It has no quotient, which ended the process."""
    program = torch.export.export(Asking(divide).eval(), (torch.rand(1, 3, 9, 8),))
    program.state_dict["numbers"].fill_(-(2**63))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(InvalidInput, match=why):
        read_teacher(tmp_path / "a.pt2", probe=False)


def test_what_hangs_on_the_image_divides_no_whole_numbers(tmp_path: Path) -> None:
    """Other images than those that are tried may have other numbers."""

    class Dividing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.pixel_shuffle(self.conv(x) + torch.div(x.long(), x[:, :1].long(), rounding_mode="trunc").sum(), 2)

    with pytest.raises(
        InvalidInput, match="div divides whole numbers, and some have no quotient; write the divisor as"
    ):
        read_teacher(save(Dividing(), tmp_path / "a.pt2"), probe=False)


class Weighing(nn.Module):
    """A network with something of constants in front of its shuffle."""

    def __init__(self, weigh: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.weigh = nn.Conv2d(3, 12, 3, padding=1), weigh

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.weigh(self.conv(x)), 2)


@pytest.mark.parametrize(
    "weigh",
    [
        lambda y: y * torch.tensor([1.0, 2.0]).sum(),
        lambda y: y * torch.tensor([1.0, 2.0])[1],
        lambda y: F.conv2d(
            y, torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]).repeat(12, 1, 1, 1), padding=1, groups=12
        ),
        lambda y: y * y.new_tensor([1.0, 2.0]).sum(),
        lambda y: y[:, torch.arange(12) // torch.tensor(2)],
        lambda y: y[:, torch.remainder(torch.arange(12) + 3, torch.tensor(12))],
        lambda y: y[:, (torch.arange(12) + 3) % 12],
    ],
)
@pytest.mark.parametrize("decomposed", [False, True])
def test_constants_of_honest_networks_are_computed(
    weigh: Callable[[Tensor], Tensor], decomposed: bool, tmp_path: Path
) -> None:
    """Of lists in forward, and places by whole numbers: torch itself fails at some of them without numbers."""
    model, x = Weighing(weigh).eval(), torch.rand(1, 3, 9, 8)
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (x,), dynamic_shapes=(free,))
    torch.export.save(program.run_decompositions() if decomposed else program, tmp_path / "a.pt2")
    net = compile_to_plain(read_teacher(tmp_path / "a.pt2", probe=False))
    with torch.no_grad():
        assert torch.allclose(net(x), model(x), atol=1e-5)


def test_stored_weights_lie_in_memory_of_their_own(tmp_path: Path) -> None:
    """Where they lie is the file's word: all numbers of a norm in one place, and torch wrote behind that."""
    model = Normed(12).eval()
    program = torch.export.export(model, (torch.rand(1, 3, 9, 8),))
    size = torch.full((12,), 2.0)
    program.state_dict["g"] = nn.Parameter(size[-1:].as_strided((12, 1, 1, 1), (0, 1, 1, 1)))
    torch.export.save(program, tmp_path / "a.pt2")
    teacher = read_teacher(tmp_path / "a.pt2", probe=False)
    assert not any(torch._debug_has_internal_overlap(weight) for weight in teacher.module.parameters())
    with torch.no_grad():
        model.g.fill_(2.0)
        x = torch.rand(1, 3, 9, 8)
        assert torch.allclose(compile_to_plain(teacher)(x), model(x), atol=1e-5)


def test_factors_of_nearly_nothing_are_refused(tmp_path: Path) -> None:
    """They make places of pixels that no integer holds, and torch reads there."""
    asking = Asking(lambda i: A.upsample_nearest2d(i.view(1, 1, 2, 2).byte(), [4, 4], 1e-30, 1e-30))
    with pytest.raises(InvalidInput, match="is by a factor of nearly 0"):
        read_teacher(save(asking, tmp_path / "a.pt2"), probe=False)


def test_a_program_of_one_size_is_read_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Torch logs one for each small image that does not fit, which it is tried on."""

    class OfOneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return F.pixel_shuffle(self.conv(x) + torch.zeros(1, 12, *x.shape[2:]), 2)

    file = save(OfOneSize(), tmp_path / "a.pt2")
    with contextlib.suppress(MemsrError):  # it is said to be of one size
        compile_to_plain(read_teacher(file, probe=False))
    assert "Traceback" not in capfd.readouterr().err

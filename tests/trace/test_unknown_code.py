"""Code of forms that are not known to ask nothing: what of it no look hears is assumed aloud; and what is known."""

from __future__ import annotations

import gc
import importlib
import logging
import operator
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from memsr_compiler import compile_to_plain, export_onnx, load_teacher
from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.plain.load import load_plain
from memsr_compiler.torch_helpers import copy_module, unwrap_inside
from memsr_compiler.trace.own_code.unheard import noting_code
from memsr_compiler.trace.subject import _require_copied
from memsr_compiler.trace.trace import Traced, trace

LIMIT = 64


class Net(nn.Module):
    """Two ways to an image; what is taken, its subclasses decide."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 12, 3, padding=1)
        self.kept: Tensor
        self.register_buffer("kept", torch.zeros(1))

    def finish(self, y: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(F.relu(y)), 2)

    def take(self, way: Any, x: Tensor) -> Tensor:
        return self.finish(self.b(x) if way else self.a(x))


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.a(x))


class Asks(Net):
    def __init__(self, asks: Callable[[Any], Any]) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        return self.take(self.asks(x), x)


def outcome(network: nn.Module, caplog: pytest.LogCaptureFixture) -> str:
    """What reading a network says: its refusal, or its warnings; none where nothing is said."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        try:
            trace(network.eval())
        except UnsupportedModel as refusal:
            return f"refused: {refusal}"
    return "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("memsr_compiler"))


# -- what a tracer takes for one thing, and is another ---------------------------------------------------------


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: (x > 0.2).all().item() is True,
        lambda x: torch.equal(x, x.flip(3)) is True,
    ],
)
def test_a_symbol_is_not_true_itself(asks: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    assert "takes numbers out of the image" in outcome(Asks(asks), caplog)


@pytest.mark.parametrize("asks", [lambda x: (x.shape[2] > 100) is True, lambda x: x.shape[2] is LIMIT])
def test_nor_is_a_size(asks: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    assert "computes with the size of the image" in outcome(Asks(asks), caplog)


def dead_number(x: Any) -> bool:
    x.max().item()
    return x.shape[2] in {720, 1280}


def test_what_is_not_known_is_found_in_no_table(caplog: pytest.LogCaptureFixture) -> None:
    """After a number that is not known, a size was looked for by its proxy, and never there."""
    assert outcome(Asks(dead_number), caplog)


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x.permute(0, 2, 3, 1)[:, 512:].shape[1] > 0,
        lambda x: x[:, :, ::512].transpose(1, 2).shape[1] > 1,
    ],
)
def test_rows_in_the_place_of_channels_are_no_channels(
    asks: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Of small images there are as many at every size: none."""
    assert outcome(Asks(asks), caplog)


class Rows(nn.Module):
    """Python's `for` takes an IndexError for the end."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Tensor] = []

    def __getitem__(self, i: int) -> float:
        if self.images[-1].shape[2] > 100:
            raise IndexError
        if i > 1:
            raise IndexError
        return 0.5


class Loops(Net):
    def __init__(self) -> None:
        super().__init__()
        self.rows: Any = Rows()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.rows.images.append(x)
        for row in self.rows:
            y = y + row * self.b(x)
        return self.finish(y)


def test_what_python_itself_catches_is_a_decision(caplog: pytest.LogCaptureFixture) -> None:
    assert outcome(Loops(), caplog)


# -- what is written while torch.fx traces ----------------------------------------------------------------------


def writes_a_place(net: Net, x: Tensor) -> Any:
    net.kept[0] = x.amin()
    return net.kept > 0.2


def copies(net: Net, x: Tensor) -> Any:
    net.kept.copy_(x.amin())
    return net.kept > 0.2


def fills_a_copy_with_a_size(net: Net, x: Tensor) -> Any:
    kept = net.kept.clone()
    kept.fill_(x.shape[2])
    return int(kept) > 100


def writes_a_parameter(net: Net, x: Tensor) -> Any:
    bias: Any = net.tail.bias
    bias.data.view(12)[:1].copy_(x.amin())
    return bool(bias[0] > 0.2)


class Writes(Net):
    def __init__(self, decides: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.decides = decides

    def forward(self, x: Tensor) -> Tensor:
        y = self.finish(self.a(x))
        return y * 2 if self.decides(self, x) else y


@pytest.mark.parametrize("decides", [writes_a_place, copies, fills_a_copy_with_a_size, writes_a_parameter])
def test_what_is_kept_of_the_image_decides_nothing_unheard(
    decides: Callable[[Net, Tensor], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A buffer is a tensor of numbers while torch.fx traces, those of before it was written."""
    assert "refused" in outcome(Writes(decides), caplog)


# -- what a tracer does not run ------------------------------------------------------------------------------------


def is_bright(x: Tensor) -> bool:
    return bool(x.min() > 0.2)


class Calls(Asks):
    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = super().__call__(x)
        return y * 2 if is_bright(x) else y


def test_a_call_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    assert "takes numbers out of the image" in outcome(Calls(lambda x: False), caplog)


def test_a_norm_with_a_forward_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    def forward(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
        y = nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return y * 2 if bool(x.amin() > 1e6) else y

    class Normed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)
            self.norm.forward = types.MethodType(forward, self.norm)  # type: ignore[method-assign]

        def forward(self, x: Tensor) -> Tensor:
            return self.finish(self.norm(self.a(x)))

    assert "refused" in outcome(Normed(), caplog)


def test_a_method_of_tensors_that_somebody_replaced(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def relu(x: Tensor) -> Tensor:
        return x * 2 if bool(x.max() > 1e6) else torch.relu(x)

    class Relu(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.pixel_shuffle(self.tail(self.a(x).relu()), 2)

    monkeypatch.setattr(Tensor, "relu", relu)
    assert "takes numbers out of the image" in outcome(Relu(), caplog)


def test_a_function_that_is_called_with_each_number_crashes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[float] = [0.0]

    def note(value: float) -> float:
        seen.append(value)
        return value

    def asks(x: Any) -> bool:
        if isinstance(x, Tensor):
            x.amin().clone().apply_(note)
        return seen[-1] > 0.2

    assert outcome(Asks(asks), caplog)


# -- what is assumed -----------------------------------------------------------------------------------------------


def is_dark_as_a_parameter(x: Any) -> bool:
    return isinstance(x, Tensor) and bool(nn.Parameter(x).min() > 0.2)


def test_code_of_unknown_forms_is_assumed_aloud_and_in_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No list of looks is complete: this question none of them hears."""
    words = "is_dark_as_a_parameter does the same to every image"
    assert outcome(Asks(is_dark_as_a_parameter), caplog) == f"Asks: assumed: {words}"
    plain = compile_to_plain(Asks(is_dark_as_a_parameter).eval())
    assert words in plain.info.assumed
    export_onnx(plain, tmp_path / "plain.onnx")
    assert words in load_plain(tmp_path / "plain.onnx", require_certificate=False).info.assumed


def test_of_known_code_nothing_is_assumed(caplog: pytest.LogCaptureFixture) -> None:
    class Usual(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.dim() != 4:  # an assertion would be written anew by pytest
                raise ValueError(x.dim())
            tail: nn.Module | None = self.tail
            skip = None if tail is None else self.a(x)
            return self.finish(skip if skip is not None else self.b(x))

    traced: Traced = trace(Usual().eval())
    assert not traced.assumed and not outcome(Usual(), caplog)
    with noting_code(network := Usual().eval()) as noted:
        network(torch.rand(1, 3, 5, 5))
    assert not noted.unknown


class Called(fx.GraphModule):
    """Does something else than its graph, which is all that a tracer follows."""

    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x)


def is_itself(graph: fx.Graph) -> None:
    """Let one of two images be taken by what no proxy says."""
    output = next(node for node in graph.nodes if node.op == "output")
    image = next(iter(graph.nodes))
    with graph.inserting_before(output):
        answer = graph.call_function(operator.is_, (image, graph.call_method("contiguous", (image,))))
        output.args = (graph.call_function(operator.getitem, ((output.args[0], output.args[0]), answer)),)


def look_first(graph: fx.Graph) -> None:
    graph.on_generate_code(lambda before: lambda lines: lines)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_nor_is_anything_of_programs_of_torch_whose_graphs_are_all_that_runs(tmp_path: Path) -> None:
    """Of torch.fx, and of torch.export, whose copies run code of SymPy and of dataclasses of torch's."""
    program = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval())
    assert trace(program).assumed == ()
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(Plain().eval(), (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,))
    torch.export.save(exported, tmp_path / "a.pt2")
    teacher = load_teacher(tmp_path / "a.pt2", probe=False)
    assert isinstance(teacher, fx.GraphModule) and trace(teacher).assumed == ()


@pytest.mark.parametrize("change", [is_itself, look_first])
def test_programs_that_may_run_more_are_assumed_to_do_the_same(change: Callable[[fx.Graph], None]) -> None:
    program = fx.symbolic_trace(Plain().eval())
    change(program.graph)
    program.recompile()
    assert trace(program).assumed == ("GraphModule does the same to every image",)


def test_and_so_are_those_with_a_call_of_their_own_even_within_a_network() -> None:
    program = fx.symbolic_trace(Plain().eval())
    called = Called(program, program.graph)
    for network in (called, nn.Sequential(called)):
        assert trace(network.eval()).assumed == (f"{type(network).__name__} does the same to every image",)


def test_code_that_runs_as_garbage_is_collected_is_not_the_networks() -> None:
    """Tools hang callbacks on it, hypothesis among them: now and then a network was assumed to do the same."""
    noticed: list[str] = []

    def notice(phase: str, info: dict[str, int]) -> None:
        if hasattr(info, "items"):  # code of unknown forms
            noticed.append(phase)

    thresholds = gc.get_threshold()
    gc.callbacks.append(notice)
    gc.set_threshold(1)
    try:
        network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()).eval()
        with noting_code(network) as noted:
            network(torch.rand(1, 3, 5, 5))
            assert len([[i] for i in range(2000)]) == 2000  # of which garbage is collected
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(notice)
    assert noticed and not noted.unknown and gc.isenabled()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, as it imports its compiler
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrappers_that_torch_puts_around_a_network_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = Asks(lambda x: False).eval()
    plain, wrapped = compile_to_plain(network), compile_to_plain(wrap(network))
    assert wrapped.sha256() == plain.sha256() and wrapped.info.assumed == plain.info.assumed


@dataclass
class Settings:
    gain: float = 2.0


class Block(nn.Module):
    """Calls what Python makes of a text, as dataclasses have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) * Settings().gain, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, as it imports its compiler
def test_and_those_within_it(caplog: pytest.LogCaptureFixture) -> None:
    """What torch runs to compile them was taken for the network's code: of threads, or in texts of Python's."""
    block = Block()
    compiled = cast(nn.Module, torch.compile(block))
    network = nn.Sequential(compiled, nn.Identity(), compiled).eval()
    inner = unwrap_inside(network)
    assert network[0] is compiled and set(inner.children()) == {block, network[1]} and unwrap_inside(inner) is inner
    block.conv = nn.Conv2d(3, 12, 3, padding=1)  # found by both
    assert outcome(nn.Sequential(compiled), caplog) == outcome(nn.Sequential(block), caplog)


class Bank(Net):
    """A kernel by the size, in whole numbers that are operands of no number."""

    def __init__(self, take: Callable[[Net, Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.way = take

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.way(self, x, x.shape[2] // 1000))


@pytest.mark.parametrize(
    "take",
    [
        lambda net, x, k: net.a(x) + net.tail.bias[k],
        lambda net, x, k: torch.add(net.a(x), net.b(x), alpha=k),
        lambda net, x, k: net.a(F.avg_pool2d(x, 2 * k + 1, 1, k)),
        lambda net, x, k: net.a(F.avg_pool2d(x, 3, 1, 1, count_include_pad=k < 1)),
    ],
)
def test_whole_numbers_made_of_sizes_are_told(
    take: Callable[[Net, Tensor, Any], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    told = outcome(Bank(take), caplog)
    assert "runs other operations at" in told and "Bank.forward does the same to every image" in told


def test_a_copy_that_is_another_network_is_refused() -> None:
    class Forgets(Net):
        gain = 1.0

        def __getstate__(self) -> dict[str, Any]:
            return {**vars(self), "gain": 1.0}

        def forward(self, x: Tensor) -> Tensor:
            return self.finish(self.a(x) * self.gain)

    network = Forgets().eval()
    network.gain = 3.0
    with pytest.raises(InvalidInput, match=r"its gain is 3\.0, and that of its copy is not"):
        trace(network)


def test_what_torch_imports_the_first_time_is_not_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is said, and written, of a network would hang on what the process did before."""
    (tmp_path / "asked_for_late.py").write_text("def ask():\n    return hasattr(0, 'x')\nask()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with noting_code(Net()) as noted:
        importlib.import_module("asked_for_late")
    assert noted.unknown == ""
    with noting_code(Net()) as noted:
        importlib.import_module("asked_for_late").ask()
    assert noted.unknown == "ask"


def test_what_torch_leaves_out_of_its_copies_is_no_reason_to_refuse() -> None:
    program = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval())
    vars(program)["validate_inputs"] = True  # as programs of torch.export have it
    trace(program)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, as it imports its compiler
def test_nor_is_what_torch_compile_notes_of_a_module_inside() -> None:
    compiled = cast(nn.Module, torch.compile(nn.Conv2d(3, 12, 3, padding=1)))
    network = nn.Sequential(compiled, nn.PixelShuffle(2))
    _require_copied(network, copy_module(network, None))


class Strips:
    """An ordinary iterator, which ends by the size."""

    def __init__(self, x: Any) -> None:
        self.at, self.count = 0, -(-x.shape[2] // 512)

    def __iter__(self) -> Strips:
        return self

    def __next__(self) -> int:
        if self.at >= self.count:
            raise StopIteration
        self.at += 1
        return self.at


def test_an_iterator_that_ends_by_the_size_ends(caplog: pytest.LogCaptureFixture) -> None:
    """It was said to go on for ever."""
    assert outcome(Asks(lambda x: sum(Strips(x)) > 1e6), caplog)


def test_weights_without_numbers_are_told() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        network = Asks(lambda x: False).eval()
    with pytest.raises(InvalidInput, match="has no values yet"):
        compile_to_plain(network)

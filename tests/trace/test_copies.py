"""What is read is a copy in float64: the network itself, as it was given, must compute the same."""

from __future__ import annotations

import cProfile
import logging
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.torch_helpers import copy_module
from memsr_compiler.trace.trace import SYMBOLIC, GraphModule, trace

IS_ANOTHER = "gives something else than a copy of it in float64, by .* of its largest value"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.act: Callable[[Tensor], Tensor] = F.relu
        self.scales = [1.0]

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(self.act(self.a(x))), 2) * self.scales[0]


class BuiltAnew(Net):
    """Its copies have its weights, and nothing else of what was set later."""

    def __deepcopy__(self, memo: dict[int, Any]) -> BuiltAnew:
        other = type(self)()
        other.load_state_dict(self.state_dict())
        return other.train(self.training)


def double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 2


def hooked(network: nn.Module) -> nn.Module:
    network.register_forward_hook(double)
    return network


def with_a_forward(network: nn.Module) -> nn.Module:
    old = network.forward
    network.forward = lambda x: old(x) * 2
    return network


def changed(program: fx.GraphModule) -> fx.GraphModule:
    """Its graph, and not the code that was made of it."""
    (times,) = (node for node in program.graph.nodes if "mul" in node.name)
    times.args = (times.args[0], 3.0)
    return program


def with_settings() -> nn.Module:
    network = BuiltAnew()
    network.act, network.scales = F.relu6, [3.0]
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda: hooked(fx.symbolic_trace(Net())),
        lambda: nn.Sequential(hooked(fx.symbolic_trace(Net()))),
        lambda: with_a_forward(fx.symbolic_trace(Net())),
        lambda: changed(fx.symbolic_trace(Net())),
        with_settings,
    ],
    ids=["hook of a program", "hook of a program within", "forward of a program", "graph not recompiled", "built anew"],
)
def test_a_network_whose_copies_are_another_is_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(InvalidInput, match=IS_ANOTHER):
        trace(make().eval())


def export(network: nn.Module, sizes: Any = None) -> fx.GraphModule:
    program = torch.export.export(network.eval(), (torch.rand(1, 3, 24, 32),), dynamic_shapes=sizes).module()
    assert isinstance(program, fx.GraphModule)
    return program


def with_a_forward_of_its_class(program: nn.Module) -> nn.Module:
    kind: Any = type(program)
    old = kind.forward
    kind.forward = lambda self, x: old(self, x) * 2
    return program


def called_otherwise(program: nn.Module) -> nn.Module:
    kind: Any = type(program)
    old = kind.__call__
    kind.__call__ = lambda self, x: old(self, x) * 2
    return program


def hooked_before(program: nn.Module) -> nn.Module:
    program.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    return program


def with_hooked_guards(program: Any) -> nn.Module:
    def halve(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].mul_(0.5)

    program._guards_fn.register_forward_pre_hook(halve)
    return program  # type: ignore[no-any-return]


class Doubling(nn.Parameter):
    """A convolution with it is twice what it is; its copies are plain."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return result * 2 if "conv" in str(func) else result

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        return nn.Parameter(self.detach().as_subclass(Tensor).clone())


def with_a_weight_of_its_own(program: Any) -> nn.Module:
    program.a.weight = Doubling(program.a.weight.detach())
    return program  # type: ignore[no-any-return]


class TwiceItsWeight(nn.Module):
    """Holds a weight, and gives twice that; its copies give it as it is."""

    @property
    def weight(self) -> Tensor:
        held = self._parameters["weight"]
        assert held is not None
        return held * 2

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        other = nn.Module()
        for name, tensor in self._parameters.items():
            assert tensor is not None
            other.register_parameter(name, nn.Parameter(tensor.detach().clone()))
        return other


def with_a_part_of_its_own(program: Any) -> nn.Module:
    part = TwiceItsWeight()
    part._parameters.update(program.a._parameters)
    program.a = part
    return program  # type: ignore[no-any-return]


_LARGE = torch.export.Dim("large", min=18)


@pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
@pytest.mark.parametrize("sizes", [None, ({2: _LARGE},), ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)])
def test_programs_do_what_their_graphs_say(sizes: Any) -> None:
    """Those that were made for one size, or for large images, were compared with nothing: what was on them was lost."""
    for put in (
        *(hooked, hooked_before, with_a_forward, with_a_forward_of_its_class, called_otherwise, changed),
        *(with_hooked_guards, with_a_weight_of_its_own, with_a_part_of_its_own),
    ):
        program = export(Net(), sizes)
        trace(program)
        with pytest.raises(InvalidInput, match=r"something was put on what torch\.export made"):
            trace(put(program))


@pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
@pytest.mark.parametrize("sizes", [None, ({2: _LARGE},)])
def test_what_a_graph_has_no_use_for_is_no_part_of_it(sizes: Any) -> None:
    """Torch leaves it out of copies."""
    program = export(Net(), sizes)
    program.register_buffer("spare", torch.ones(3))
    program.more, program.part = torch.ones(2), nn.Conv2d(3, 3, 3)
    trace(program)


@pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
def test_a_network_around_a_program_of_one_size_is_compared_at_that() -> None:
    network = nn.Sequential(export(Net(), None), with_settings().eval())
    with pytest.raises(InvalidInput, match=IS_ANOTHER):
        trace(network)


@pytest.mark.filterwarnings("ignore")  # of torch.export, about itself
@pytest.mark.parametrize("shape", [(1, 3, 300, 260), (2, 3, 24, 32)])
def test_one_that_is_compared_at_no_size_is_assumed_to_be_its_copy(shape: tuple[int, ...]) -> None:
    """The program in it takes large images alone, or two of them."""
    program = torch.export.export(Net().eval(), (torch.rand(shape),)).module()
    traced = trace(nn.Sequential(program, with_settings().eval()))
    assert "Sequential does what its copy does, with which it could be compared on no image" in traced.assumed
    assert not any("copy" in words for words in trace(program).assumed)


class Shuffle(nn.Module):
    """Copied as the layers of einops are: made anew, in train mode."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def __getstate__(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.factor)


@pytest.mark.parametrize("mode", [True, False])
def test_modules_that_copies_make_anew_are_in_the_mode_of_theirs(mode: bool) -> None:
    """In eval mode it was refused: "its training is False, and that of its copy is not"."""
    trace(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), Shuffle(2)).train(mode))


class Forgetful(Net):
    """Its copies lack a table."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "scales": [1.0]}


class Counting(Forgetful):
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(1))
        self.seen = self.steps.expand(3)

    def forward(self, x: Tensor) -> Tensor:
        self.steps.add_(1)
        return super().forward(x)


class Ended(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


def ended_by_a_program(network: nn.Module) -> nn.Module:
    """One that asks for sizes, as torch.export makes them."""
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(Ended(), (torch.rand(1, 3, 24, 32),), dynamic_shapes=({2: free, 3: free},))
    return nn.Sequential(network, program.module())


def compiled(network: nn.Module) -> nn.Module:
    network.compile(backend="eager")
    return network


def compiled_within(network: Net) -> nn.Module:
    network.a = torch.compile(network.a, backend="eager")  # type: ignore[assignment]
    return network


def shared_within(network: Net) -> nn.Module:
    network.a = nn.DataParallel(network.a)  # type: ignore[assignment]
    return network


@pytest.mark.filterwarnings("ignore")  # of torch's compiler and torch.export, about themselves
@pytest.mark.parametrize("kind", [Forgetful, Counting])
@pytest.mark.parametrize("put", [lambda n: n, ended_by_a_program, compiled, compiled_within, shared_within])
def test_it_is_the_network_itself_that_copies_are_compared_with(
    put: Callable[[Net], nn.Module], kind: type[Net], caplog: pytest.LogCaptureFixture
) -> None:
    """Another copy was, of what holds compiled modules, or changes what it holds: one that lacked the same."""
    honest, image = kind().eval(), torch.rand(1, 3, 9, 8)
    traced = trace(put(honest))
    assert not [record for record in caplog.records if record.name.startswith("memsr_compiler")]
    with torch.no_grad():
        expected = nn.Sequential(honest, Ended())(image) if put is ended_by_a_program else honest(image)
    assert torch.allclose(GraphModule(traced.graph)(image.double()).float(), expected, atol=1e-5)
    network = kind().eval()
    network.scales = [3.0]
    with pytest.raises(InvalidInput, match=IS_ANOTHER):
        trace(put(network))
    if isinstance(network, Counting):
        assert network.steps == 0 and network.scales == [3.0]


class AsksItsWeights(Net):
    """Takes another way for weights of one type, which a copy in float64 does not."""

    def __init__(self, asks: Callable[[Tensor], bool], gain: float = 0.5) -> None:
        super().__init__()
        self.asks, self.gain = asks, gain

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * self.gain if self.asks(self.a.weight) else y


@pytest.mark.parametrize("gain", [0.5, 1.1])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_code_that_asks_whether_its_weights_are_halves_is_refused(kind: torch.dtype, gain: float) -> None:
    """A tenth of the mean, 11 grey levels, was less than what passed for rounding."""
    with pytest.raises(InvalidInput, match=IS_ANOTHER):
        trace(AsksItsWeights(lambda weight: weight.dtype == kind, gain).to(kind).eval())
    trace(AsksItsWeights(lambda weight: False, gain).to(kind).eval())


class Clamped(Net):
    """Large values of both signs become 0 and 1: which, is by rounding where they are near 0."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(0, 1)


class Amplified(Net):
    """What is rounded in the middle counts a hundredfold."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) * 100 + 20
        return F.pixel_shuffle(self.tail(F.relu(y) - F.relu(y - 0.5)), 2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves_may_round(kind: torch.dtype) -> None:
    for network in (Clamped(), Amplified()):
        trace(network.to(kind).eval())


def test_code_that_asks_whether_its_weights_are_of_float32_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Also where what it does shows at no small image of noise: where means of pixels are between two levels."""

    class AtSomeLevels(AsksItsWeights):
        def forward(self, x: Tensor) -> Tensor:
            y = F.pixel_shuffle(self.tail(self.act(self.a(x))), 2)
            mean = F.conv2d(x, torch.full((12, 3, 5, 5), 1 / 75, dtype=x.dtype), padding=2)
            bump = F.relu(mean - 0.9) - 2 * F.relu(mean - 0.94) + F.relu(mean - 0.98)
            return y + 50 * F.pixel_shuffle(bump, 2) if self.asks(self.a.weight) else y

    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        trace(AtSomeLevels(lambda weight: weight.element_size() < 8).eval())
    assert "gives something else in float32 than in float64" in caplog.text


class Written(Net):
    """A buffer, and a view of it: forward writes the one, and reads the other."""

    base: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", torch.ones(2), persistent=False)
        self.view = self.base[:1]

    def forward(self, x: Tensor) -> Tensor:
        self.base.fill_(3.0)
        return super().forward(x) * self.view


def test_views_that_copies_in_another_type_lose_are_noticed() -> None:
    network = Written().eval()
    with pytest.raises(InvalidInput, match=IS_ANOTHER):
        trace(network)
    assert network.base.tolist() == [1.0, 1.0]


class Keeping(Net):
    """Hooks that close over the network, as `__init__` makes them."""

    def __init__(self, note: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.kept["a"] = note(output)

        self.a.register_forward_hook(keep)

    def forward(self, x: Tensor) -> Tensor:
        self.a(x)
        return F.pixel_shuffle(self.tail(F.relu(self.kept["a"])), 2)


def test_hooks_that_close_over_the_network_are_read() -> None:
    """They wrote into the network itself, and its copies read what that had then."""
    network, image = Keeping(lambda y: y).double().eval(), torch.rand(1, 3, 9, 8, dtype=torch.float64)
    graph = trace(network).graph
    assert network.kept == {}
    with torch.no_grad():
        assert torch.allclose(GraphModule(graph)(image), network(image), rtol=0, atol=1e-9)


def test_and_refused_by_what_they_keep() -> None:
    with pytest.raises(UnsupportedModel, match=r"a: amin: .* every output pixel depends on the whole image"):
        trace(Keeping(lambda y: y + F.relu(y.amin() - 100)).eval())


class Noting(Net):
    """Adds 0 for noise, and for whatever is darker."""

    last: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        super().__init__()
        self.noted = {"darkest": torch.zeros(1)}
        NETWORKS["one"], Noting.last[:] = self, [self]

    def note(self, x: Tensor) -> None:
        self.noted["darkest"] = F.relu(x.amin() - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.noted["darkest"]


NETWORKS: dict[str, Noting] = {}


def by_a_global(_: nn.Module, inputs: tuple[Tensor]) -> None:
    NETWORKS["one"].note(inputs[0])


def by_its_class(_: nn.Module, inputs: tuple[Tensor]) -> None:
    Noting.last[0].note(inputs[0])


@pytest.mark.parametrize("hook", [by_a_global, by_its_class])
def test_copies_that_write_into_the_network_itself_are_noticed(hook: Callable[..., None]) -> None:
    """They go on with what they were copied with: another function, by what noise leaves as it is."""
    network = Noting().eval()
    network.a.register_forward_pre_hook(hook)
    with pytest.raises(InvalidInput, match=f"{IS_ANOTHER}.*: its copies write into it, in Noting.noted.darkest, as"):
        trace(network)
    assert float(network.noted["darkest"]) == 0


class KeepsWhatItMakes(Net):
    """A kernel that is made once, for inference; without a way for gradients, where torch makes none then."""

    def __init__(self) -> None:
        super().__init__()
        self.fused: Tensor | None = None
        self.calls, self.seen = 0, list[Tensor]()
        self.a.register_forward_hook(lambda module, inputs, output: self.seen.append(output))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.fused = self.a.weight * 2 if self.fused is None else self.fused
        return super().forward(x) + F.pixel_shuffle(F.conv2d(x, self.fused.repeat(3, 1, 1, 1), padding=1), 2)


def test_a_network_is_left_as_it_was() -> None:
    network = KeepsWhatItMakes().eval()
    held, seen = dict(vars(network)), network.seen
    trace(network)
    assert vars(network) == held
    assert seen == []


class Logs(Net):
    """By a logger, from which a way leads to all loggers."""

    logger = logging.getLogger("of the network")

    def forward(self, x: Tensor) -> Tensor:
        logging.getLogger("made as it runs")
        return super().forward(x)


def test_what_python_keeps_for_all_is_nothing_of_the_network() -> None:
    trace(Logs().eval())
    assert "made as it runs" in logging.root.manager.loggerDict


class Shared(nn.DataParallel):  # type: ignore[type-arg]
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).clamp(0, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, as it imports its compiler
def test_what_a_wrapper_computes_itself_is_not_taken_off() -> None:
    image = torch.rand(1, 3, 9, 8)
    for network in (Shared(Net()).eval(), nn.Sequential(hooked(nn.DataParallel(Net()))).eval()):
        traced = trace(network)
        with torch.no_grad():
            assert torch.allclose(GraphModule(traced.graph)(image.double()).float(), network(image), atol=1e-5)
    with pytest.raises(InvalidInput, match="the network has a hook of its own"):
        trace(hooked(nn.DataParallel(Net()).eval()))
    compiled: Any = torch.compile(Net().eval())
    with pytest.raises(InvalidInput, match=r"what torch\.compile gave has a hook, which is not read"):
        trace(hooked(compiled))


def test_what_is_put_around_a_network_of_a_file_is_refused() -> None:
    network = trace(Net().eval())
    for put in (hooked, with_a_forward):
        with pytest.raises(InvalidInput, match="was put on what a file was read into"):
            trace(put(GraphModule(network.graph)))
    trace(GraphModule(network.graph))


class Open(nn.DataParallel):  # type: ignore[type-arg]
    """Its attributes are those of the network within, as many have it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def test_a_wrapper_that_computes_nothing_itself_is_taken_off(caplog: pytest.LogCaptureFixture) -> None:
    network = Open(Net()).eval()
    assert network.scales == [1.0]
    assert trace(network).graph.text() == trace(Net().eval()).graph.text()
    assert not caplog.records


class WithNotes(Net):
    """What torch keeps of it in a state dict is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 3}


@pytest.mark.parametrize("path", ["", "0"])
def test_what_is_called_in_place_of_forward_is_refused(path: str) -> None:
    """But not where torch put it there; copies are without it."""
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    module = network.get_submodule(path)
    module.compile(backend="eager")
    trace(network)
    module._compiled_call_impl = lambda x: module.forward(x) * 2
    with pytest.raises(InvalidInput, match=f"^{path or 'Sequential'}: its _compiled_call_impl, which is called in pla"):
        trace(network)


def test_notes_in_a_state_dict_are_no_weights() -> None:
    trace(WithNotes().eval())


def test_weights_of_eight_bits_are_refused() -> None:
    network = Net()
    network.register_parameter("q", nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False))
    with pytest.raises(InvalidInput, match="q: is kept as float8_e4m3fn, which is not read"):
        trace(network.eval())


@pytest.mark.parametrize(("table", "most"), [(list, 50), (lambda numbers: [(n, n) for n in numbers], 200)])
def test_tables_of_numbers_are_not_gone_through_one_by_one(table: Callable[[range], list[Any]], most: int) -> None:
    """But as they are copied: a call for each of two million numbers takes a second."""

    def count_calls(length: int) -> int:
        network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
        network.__dict__["places"] = table(range(1000, 1000 + length))
        profile = cProfile.Profile()
        profile.runcall(trace, network)
        return sum(entry.callcount for entry in profile.getstats())

    count_calls(0)  # the first run notes what it knows of torch
    assert count_calls(2000) - count_calls(0) < most * 2000


class CompiledForward(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class CompiledHelper(Net):
    helper: Callable[[Tensor], Tensor] = staticmethod(F.relu)

    def forward(self, x: Tensor) -> Tensor:
        return type(self).helper(super().forward(x))


class CompiledMethod(Net):
    def __init__(self) -> None:
        super().__init__()
        self.body: Any = torch.compile(self.run_body)

    def run_body(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.tail(self.a(x).relu()), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")  # of torch's compiler and torch.export, about themselves
@pytest.mark.parametrize("kind", [CompiledForward, CompiledHelper, CompiledMethod])
@pytest.mark.parametrize("whole", [False, True])
def test_functions_that_are_compiled_are_read_as_they_are_written(
    kind: type[Net], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler was run among what listens to operations, and the network was said to fail."""
    monkeypatch.setattr(CompiledForward, "forward", torch.compile(CompiledForward.forward, fullgraph=whole))
    monkeypatch.setattr(CompiledHelper, "helper", torch.compile(CompiledHelper.helper, fullgraph=whole))
    network, image = kind().eval(), torch.rand(1, 3, 9, 8)
    traced = trace(network)
    assert traced.reader == SYMBOLIC
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        assert torch.allclose(GraphModule(traced.graph)(image.double()).float(), network(image), atol=1e-5)


class Slotted(Net):
    """Keeps a number where torch's copies do not look."""

    __slots__ = ("gain", "unset")

    def __init__(self) -> None:
        super().__init__()
        self.gain = [0.25]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, as it imports its compiler
def test_what_is_held_in_slots_is_copied() -> None:
    """The network was said to fail; it is its copy that lacked the number."""
    network, image = Slotted().eval(), torch.rand(1, 3, 9, 8)
    copied: Any = copy_module(network, torch.float64)
    assert copied.gain == [0.25] and copied.gain is not network.gain
    assert not hasattr(copied, "unset")
    for put in (network, compiled_within(Slotted()).eval()):
        traced = trace(put)
        with torch.no_grad():
            assert torch.allclose(GraphModule(traced.graph)(image.double()).float(), put(image), atol=1e-5)

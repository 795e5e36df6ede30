"""Code of known forms: as authors write it, nothing is assumed of it; and each form with a decision hidden in it."""

from __future__ import annotations

import argparse
import enum
import functools
import logging
import math
import types
import warnings
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.own_code.unheard import Noted, noting_code
from memsr_compiler.trace.trace import trace

LIMIT = 64
log = logging.getLogger(__name__)


class Net(nn.Module):
    """Brighter where `asks` says so."""

    debug = False
    calls = 0

    def __init__(self, asks: Callable[..., Any], **held: Any) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 12, 3, padding=1)
        self.mean = torch.rand(1, 3, 1, 1)
        self.asks = asks
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.conv1(F.relu(self.conv0(x))), 2)
        return y * 2 if self.asks(self, x) else y


# -- as authors write it ----------------------------------------------------------------------------------------


def in_contexts(net: Any, x: Tensor) -> bool:
    with torch.no_grad(), torch.autograd.profiler.record_function("features"):
        y = x + 1
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        y = y + 1
    return False


def casts_its_mean(net: Any, x: Tensor) -> bool:
    net.mean = net.mean.type_as(x)
    net.mean = net.mean.to(x.device)
    return (x - net.mean) is None


def counts(net: Net, x: Tensor) -> bool:
    net.calls += 1
    return False


def keeps_a_feature(net: Any, x: Tensor) -> bool:
    net.feature = x * 2
    return (net.feature + 1) is None


def makes_tensors(net: Net, x: Tensor) -> bool:
    weight = torch.zeros(3, 3, 1, 1)
    for i in range(3):
        weight[i, i, 0, 0] = 1.0
    return math.sqrt(4) == len(weight) + math.floor(2.5)


def asks_what_modules_are(net: Any, x: Tensor) -> Any:
    channels: Any = 0
    for name, module in net.named_children():
        if isinstance(module, (nn.Conv2d, nn.ReLU)) and isinstance(name, str):
            channels += module.out_channels
    return channels == 1


def asks_by_name(net: Any, x: Tensor) -> bool:
    for i in range(1):
        x = getattr(net, f"conv{i}")(getattr(net, "conv%d" % i)(x))  # noqa: UP031
    return hasattr(net, "reparam") or getattr(net, "deploy", False)


def rules_out(net: Any, x: Tensor) -> bool:
    if net.debug:
        print(x.shape, x.mean())  # noqa: T201
    if hasattr(net, "reparam"):
        return bool(net.reparam(x))
    if torch.jit.is_scripting() or torch.onnx.is_in_onnx_export():  # type: ignore[attr-defined]
        return True
    if net.training:
        log.info("%s", x)
    return False


def tells_constants(net: Net, x: Tensor) -> bool:
    print("forward", net.debug)  # noqa: T201
    log.debug("forward of a network of %d layers", len(list(net.children())))
    warnings.warn("it is slow", UserWarning, stacklevel=2)
    return False


def generates(net: Net, x: Tensor) -> bool:
    y = sum(part for part in [x, x])
    return all(n > 0 for n in (1, 2)) and any(part is None for part in (y, x))


def demands(net: Net, x: Tensor) -> bool:
    if not isinstance(x, Tensor):
        raise TypeError("no tensor")
    torch._assert(x.shape[1] == 3, "no colours")  # type: ignore[no-untyped-call]
    return False


def looks_up(net: Net, x: Tensor) -> bool:
    table = {"a": x, "b": {"n": 1}.get("n")}
    return "Pixel-Shuffle".lower().startswith("conv") and next(net.parameters()).device == table.get("c")


@dataclass
class Options:
    scale: int = 2
    act: str = "relu"
    skips: tuple[int, ...] = (1, 2)
    skip: bool = False


Pair = namedtuple("Pair", "scale skip")


class Old:
    def __init__(self) -> None:
        self.scale, self.skip = 2, False

    def double(self) -> int:
        return self.scale * 2


OPTIONS: list[Any] = [
    Options(), Pair(2, False), argparse.Namespace(scale=2, skip=False), types.SimpleNamespace(scale=2, skip=False),
    Old(),
]  # fmt: skip


def takes_options(net: Any, x: Tensor) -> bool:
    return bool(net.options.skip) and net.options.scale > 2


USUAL = [
    in_contexts, casts_its_mean, counts, keeps_a_feature, makes_tensors, asks_what_modules_are, asks_by_name, rules_out,
    tells_constants, generates, demands, looks_up,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:it is slow")
@pytest.mark.parametrize("asks", USUAL)
def test_what_authors_write_is_known(asks: Callable[..., Any]) -> None:
    assert first_unknown(Net(asks)) == ""


@pytest.mark.parametrize("options", OPTIONS)
def test_objects_of_plain_values_are_known(options: Any) -> None:
    assert first_unknown(Net(takes_options, options=options)) == ""
    part = functools.partial(F.leaky_relu, negative_slope=0.1)
    assert first_unknown(Net(lambda net, x: net.act(x) is None, act=part)) == ""


def first_unknown(network: nn.Module) -> str:
    return note(network).unknown


def note(network: nn.Module) -> Noted:
    with noting_code(network.eval()) as noted:
        network(torch.rand(1, 3, 5, 5))
        network(torch.rand(1, 3, 6, 5))
    return noted


def test_code_that_demands_a_tensor_is_followed_by_its_symbols() -> None:
    """It was told to do the same at one size, since to torch.fx no proxy is a tensor."""
    traced = trace(Net(demands).eval())
    assert traced.reader == "torch.fx.symbolic_trace" and not traced.assumed


# -- and with a decision hidden in it ---------------------------------------------------------------------------------


class Catches:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> bool:
        return True


class CatchingModule(nn.Module):
    __enter__, __exit__ = Catches.__enter__, Catches.__exit__


def catches(net: Any, x: Tensor) -> bool:
    bright = True
    with net.context:
        if not x.min() > 9:
            bright = False
    return bright


def catches_beside(net: Any, x: Tensor) -> bool:
    bright = [True]
    with torch.no_grad(), net.context:
        bright[0] = bool(x.min() > 9)
    return bright[0]


def keeps_the_last_size(net: Any, x: Tensor) -> bool:
    large = net.height > LIMIT
    net.height = x.shape[2]
    return bool(large)


def keeps_it_sometimes(net: Any, x: Tensor) -> bool:
    if net.debug is None:
        net.height = x.shape[2]
    return bool(net.height > LIMIT)


def keeps_it_for_another(net: Any, x: Tensor) -> bool:
    large = reads_the_height(net)
    net.height = x.shape[2]
    return large


def reads_the_height(net: Any) -> bool:
    return bool(net.height > LIMIT)


def keeps_it_for_a_name(net: Any, x: Tensor) -> bool:
    large = getattr(net, "hei%s" % "ght") > LIMIT  # noqa: UP031
    net.height = x.shape[2]
    return bool(large)


def keeps_it_for_a_question(net: Any, x: Tensor) -> bool:
    seen = hasattr(net, "seen")
    net.seen = x
    return seen


def counts_and_decides(net: Any, x: Tensor) -> bool:
    net.calls += 1
    return bool(net.calls > 1000)


def asks_a_tensor_by_name(net: Any, x: Any) -> bool:
    return getattr(x, "grad", 0) is None and x.mean() > 9


def asks_for_a_mask(net: Any, x: Any) -> bool:
    return not hasattr(x, "mask") and bool(x.mean() > 9)


def asks_by_any_name(net: Any, x: Any) -> bool:
    return not getattr(net, "".join(["is", "_proxy"]), None) and is_dark(x)


def is_dark(x: Any) -> bool:
    return isinstance(x, Tensor) and bool(x.min() > 9)


def asks_for_a_kind(net: Any, x: Any) -> bool:
    return isinstance(x, net.kind) and x.shape[2] > LIMIT


def asks_for_a_shape(net: Any, x: Any) -> Any:
    shape: Any = x.shape
    return isinstance(shape, (tuple, nn.Module)) and x.shape[2] > LIMIT


TOLD: list[str] = [""]


def info(text: str) -> None:
    TOLD.append(text)


def poses_as_a_log(net: Any, x: Any) -> bool:
    info(f"{x.shape[2]}")
    return TOLD[-1] == "1080"


class Kept(nn.Module):
    """What stands in the place of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: Any = [""]

    def write(self, text: str) -> None:
        self.texts.append(text)

    def forward(self, x: Tensor) -> Tensor:
        return x


def poses_as_a_local(net: Any, x: Any) -> Any:
    warn = net.kept.append
    warn(f"{x.shape[2]}")
    return net.kept[-1] == "1080"


class Aside(nn.Module):
    """No module of the network, with a function that tells no tracer."""

    ask = staticmethod(torch.is_tensor)


def asks_a_module_aside(net: Any, x: Any) -> Any:
    return Aside().ask(x) and x.shape[2] > LIMIT


def asks_later(net: Any, x: Any) -> Any:
    first = asks_if(net, x, asks=False)
    return first or asks_if(Aside(), x, asks=True)


def asks_if(home: Any, x: Any, *, asks: bool) -> Any:
    return asks and home.ask(x) and x.shape[2] > LIMIT


def bears(x: Any) -> None: ...


vars(bears)["ask"] = torch.is_tensor
BEARING = torch.zeros(1)
vars(BEARING)["ask"] = torch.is_tensor


def asks_a_function(net: Any, x: Any) -> Any:
    asking: Any = bears
    return asking.ask(x) and x.shape[2] > LIMIT


def asks_a_constant(net: Any, x: Any) -> Any:
    return net.constant.ask(x) and x.shape[2] > LIMIT


def rules_out_too_early(net: Any, x: Any) -> bool:
    return asks_unless(net, x) or asks_unless(OTHER, x)


def asks_unless(home: Any, x: Any) -> bool:
    if home.debug:
        return isinstance(x, Tensor) and x.shape[2] > LIMIT
    return False


OTHER = types.SimpleNamespace(debug=True)


def prints_into_a_list(net: Any, x: Any) -> bool:
    print(x.shape[2], file=net.file)
    return "1080" in net.file.texts[-2]


def warns_of_a_size(net: Any, x: Any) -> bool:
    warnings.warn(f"{x.shape[2]}", stacklevel=1)
    return ("1080", UserWarning, 1) in globals()["__warningregistry__"]


class Adds:
    __add__ = staticmethod(type)


class AddingModule(nn.Module):
    __add__ = staticmethod(type)


def adds_to_an_object(net: Any, x: Any) -> bool:
    return net.options + x in net.kinds and x.shape[2] > LIMIT


class Hides:
    """An object of plain values, and a method that asks."""

    scale = 2

    def is_dark(self, x: Any) -> bool:
        return is_dark(x)


class Kind(enum.Enum):
    DARK = 1


def asks_options(net: Any, x: Any) -> bool:
    return bool(net.options.is_dark(x))


def takes_torch_along(net: Any, x: Any) -> bool:
    home = torch
    return home.is_tensor(x) and x.shape[2] > LIMIT


def generates_questions(net: Any, x: Any) -> bool:
    return any(isinstance(part, Tensor) and bool(part.min() > 9) for part in [x])


HIDDEN: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (catches, {"context": Catches()}),
    (catches, {"context": CatchingModule()}),
    (catches_beside, {"context": CatchingModule()}),
    (keeps_the_last_size, {"height": 0}),
    (keeps_it_sometimes, {"height": 0}),
    (keeps_it_for_another, {"height": 0}),
    (keeps_it_for_a_name, {"height": 0}),
    (keeps_it_for_a_question, {}),
    (counts_and_decides, {}),
    (asks_a_tensor_by_name, {}),
    (asks_for_a_mask, {}),
    (asks_by_any_name, {}),
    (asks_for_a_kind, {"kind": Tensor}),
    (asks_for_a_shape, {}),
    (poses_as_a_log, {}),
    (prints_into_a_list, {"file": Kept()}),
    (warns_of_a_size, {}),
    (adds_to_an_object, {"options": Adds(), "kinds": [Tensor]}),
    (adds_to_an_object, {"options": AddingModule(), "kinds": [Tensor]}),
    (asks_options, {"options": Hides()}),
    (takes_torch_along, {}),
    (generates_questions, {}),
    (asks_a_module_aside, {}),
    (asks_later, {}),
    (asks_a_function, {}),
    (asks_a_constant, {"constant": BEARING}),
    (rules_out_too_early, {}),
]


def adds_its_kind(net: Any, x: Any) -> bool:
    return net.options + x in net.kinds


def asks_a_function_that_it_is_given(net: Any, x: Any, function: Any = torch.is_tensor) -> bool:
    return bool(function(x))


def goes_on_if_it_fails(net: Any, x: Any) -> Any:
    shaped = []
    with net.context:
        shaped.append(torch.reshape(x, (1, 3, 25, 1)))
    return not shaped


OTHERWISE: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (lambda net, x: isinstance(x, Tensor), {}),
    (lambda net, x: isinstance(x, net.kind), {"kind": Tensor}),
    (lambda net, x: any(isinstance(part, Tensor) for part in [x]), {}),
    (lambda net, x: torch.is_tensor(x), {}),
    (lambda net, x: type(x) is Tensor, {}),
    (lambda net, x: not hasattr(x, "mask"), {}),
    (lambda net, x: getattr(x, "grad", 0) is None, {}),
    (lambda net, x: x.grad_fn is None, {}),
    (lambda net, x: net.options.ask(x), {"options": types.SimpleNamespace(ask=torch.is_tensor)}),
    (lambda net, x: net.constant.ask(x), {"constant": BEARING}),
    (lambda net, x: Aside().ask(x), {}),
    (lambda net, x: bears.ask(x), {}),  # type: ignore[attr-defined]
    (asks_a_function_that_it_is_given, {}),
    (adds_its_kind, {"options": Adds(), "kinds": [Tensor]}),
    (goes_on_if_it_fails, {"context": suppress(RuntimeError)}),
    (goes_on_if_it_fails, {"context": Catches()}),
]


@pytest.mark.parametrize(("asks", "held"), OTHERWISE)
def test_what_goes_another_way_for_a_tracer_is_not_known(asks: Callable[..., Any], held: dict[str, Any]) -> None:
    """Nothing is asked of a tensor here, and what is read on the other way may differ where no sample comes."""
    noted = note(Net(asks, **held))
    assert noted.unknown and not noted.asking


class Switches(nn.ReLU):
    """What it keeps, the code of torch decides by."""

    def forward(self, x: Tensor) -> Tensor:
        kept: Any = x.mean() > 9
        self.inplace = kept
        return super().forward(x)


def test_what_layers_of_torch_keep_is_not_known() -> None:
    noted = note(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Switches()))
    assert noted.unknown == "Switches.forward" and not noted.asking


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("asks", "held"), HIDDEN)
def test_no_form_hides_a_decision(asks: Callable[..., Any], held: dict[str, Any]) -> None:
    """What is not known is looked at, and refused, or assumed aloud, as is what asks a tensor."""
    noted = note(Net(asks, **held))
    assert noted.unknown or (asks is prints_into_a_list and noted.asking)


def test_a_local_function_tells_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It was taken for one that warns, so that a text of no size was kept."""
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        trace(Net(poses_as_a_local, kept=[""]).eval())
    assert "decides by the size of the image" in caplog.text


def test_and_so_it_is() -> None:
    with pytest.raises(UnsupportedModel, match="it remembers"):
        trace(Net(keeps_the_last_size, height=0).eval())

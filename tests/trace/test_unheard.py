"""Questions that no tracer hears: to torch.fx no proxy is a tensor, and `except Exception` catches its errors too."""

from __future__ import annotations

import cProfile
import functools
import logging
import os
import pickle
import queue
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from memsr_compiler.errors import InvalidInput, UnsupportedModel
from memsr_compiler.trace.own_code.own_files import is_foreign
from memsr_compiler.trace.own_code.read_off import no_pixels
from memsr_compiler.trace.own_code.unheard import find_size_question, noting_code
from memsr_compiler.trace.trace import trace

LIMIT = 64


class Net(nn.Module):
    """Twice as bright where `asks` says so."""

    def __init__(self, asks: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.tail(self.head(x).relu()), 2)
        return y * 2 if self.asks(x) else y


def is_tall(x: Any) -> bool:
    return isinstance(x, Tensor) and x.shape[2] > LIMIT


def is_tall_if_it_can_be_told(x: Any) -> bool:
    try:
        return bool(x.shape[2] > LIMIT)
    except Exception:
        return False


def is_tall_unless_it_fails(x: Any) -> bool:
    with suppress(Exception):
        return bool(x.shape[2] > LIMIT)
    return False


def is_of_one_height(x: Any) -> bool:
    return torch.is_tensor(x) and x.shape[2] == 311


def is_a_tensor_itself(x: Any) -> bool:
    return type(x) is Tensor and x.shape[2] > LIMIT


def matches(x: Any) -> bool:
    match x.shape[2]:
        case int(height) if height > LIMIT:
            return True
    return False


@pytest.mark.parametrize(
    "asks",
    [is_tall, is_tall_if_it_can_be_told, is_tall_unless_it_fails, is_of_one_height, is_a_tensor_itself, matches],
)
def test_a_decision_by_size_is_told(asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trace(Net(asks).eval())
    words = ("decides by the size of the image", "runs other operations at", "computes with the size of the image")
    assert any(word in caplog.text for word in words)


def is_dark(x: Any) -> bool:
    return isinstance(x, Tensor) and bool(x.max() < 0.1)


def is_dark_if_it_can_be_told(x: Any) -> bool:
    try:
        return float(x.max()) < 0.1
    except Exception:
        return False


def is_grey(x: Any) -> bool:
    return torch.is_tensor(x) and torch.equal(x[:, 0], x[:, 1])


def is_dark_by_numpy(x: Any) -> bool:
    with suppress(Exception):
        return bool(np.max(x.numpy()) < 0.1)
    return False


def is_dark_somewhere(x: Any) -> bool:
    return isinstance(x, Tensor) and len((x[0, 0] < 0).nonzero()) > 10**6


def is_dark_by_a_mask(x: Any) -> bool:
    return isinstance(x, Tensor) and len(x[x < -(10**9)]) > 0


@pytest.mark.parametrize(
    "asks", [is_dark_by_a_mask, is_dark, is_dark_if_it_can_be_told, is_grey, is_dark_by_numpy, is_dark_somewhere]
)
def test_a_decision_by_values_is_refused(asks: Callable[[Tensor], bool]) -> None:
    with pytest.raises(UnsupportedModel, match=r"Net \(at .*test_unheard.*takes numbers out of the image"):
        trace(Net(asks).eval())


def is_checked(x: Any) -> bool:
    if isinstance(x, Tensor) and x.min() < -(10**9):
        raise ValueError("that is no image")
    return False


def is_known(x: Any) -> bool:
    return isinstance(x, Tensor) and float(torch.arange(4).sum()) > 100


def is_a_list(x: Any) -> bool:
    return isinstance(x, (list, tuple))


def is_turned(x: Any) -> bool:
    """Channels in another order, by a list, and by a tensor."""
    return isinstance(x, Tensor) and x[:, [2, 0, 1]][:, torch.tensor([1, 2, 0])].dim() > 4


@pytest.mark.parametrize("asks", [is_checked, is_known, is_a_list, is_turned])
def test_what_decides_nothing_is_read(asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trace(Net(asks).eval())
    assert all("assumed: " in record.getMessage() for record in caplog.records)


def test_operations_ask_no_question_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    class Resizing(Net):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            assert isinstance(h, float) or h > 0
            y = F.interpolate(x, size=(2 * h, 2 * w), mode="nearest")
            return super().forward(x) + y.reshape(n, c, 2 * h, 2 * w).contiguous()

    assert find_size_question(Resizing(is_a_list).eval(), 3) is None


def test_numbers_of_weights_end_no_look_at_sizes() -> None:
    gain = torch.tensor(0.5)

    class Scaled(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x) * float(gain)
            return y.relu() if 100 < x.shape[2] < 500 else y

    assert find_size_question(Scaled(is_a_list).eval(), 3) is not None


@pytest.mark.parametrize(
    "draw", [random.random, np.random.rand, lambda: torch.rand((), generator=torch.Generator()).item()]
)
def test_chance_of_every_kind_is_noticed(draw: Callable[[], float]) -> None:
    state = {"runs": 0}

    def asks(_: Tensor) -> bool:
        state["runs"] += 1
        return draw() < 2 and state["runs"] > 12  # more often than it is compared, to read it

    with pytest.raises(InvalidInput, match="Net draws random numbers as it runs"):
        trace(Net(asks).eval())


def test_a_decision_by_size_behind_what_stops_the_tracer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """torch.export, which reads it then, goes one way without a word."""

    class Partial(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x).clone()
            y[:, :2] = y[:, :2].relu()
            return y * 2 if 100 < x.shape[2] < 500 else y

    with caplog.at_level(logging.WARNING):
        trace(Partial(lambda x: False).eval())
    assert "100 < x.shape[2] < 500 else y) decides by the size of the image" in caplog.text


def test_only_code_that_could_ask_is_looked_at() -> None:
    networks = {asks: Net(asks).eval() for asks in (is_tall, is_dark_by_numpy, is_a_tensor_itself, matches)}
    for network in (*networks.values(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()):
        with noting_code(network) as noted:
            network(torch.rand(1, 3, 5, 5))
        assert bool(noted.unknown) is isinstance(network, Net)


def test_it_runs_under_a_profiler() -> None:
    profiler = cProfile.Profile()
    with profiler:
        trace(Net(is_tall).eval())
        after: Any = sys.getprofile()
    assert isinstance(after, cProfile.Profile) and sys.getprofile() is None


def test_a_shape_among_others_stops_the_tracer(caplog: pytest.LogCaptureFixture) -> None:
    """A proxy's hash is none of them."""
    table = {torch.Size([1, 3, 720, 1280]): True}
    with caplog.at_level(logging.WARNING):
        trace(Net(lambda x: table.get(x.shape, False)).eval())
    assert "decides by the size of the image" in caplog.text


TABLE = {"311x313": True}


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: TABLE.get(f"{x.shape[2]}x{x.shape[3]}", False),
        lambda x: TABLE.get("%sx%s" % tuple(x.shape[2:]), False),  # noqa: UP031
        lambda x: str(x.shape) == "an image",
        lambda x: f"{x.shape[2]:04d}" == "none",
        lambda x: isinstance(x, Tensor) and TABLE.get("x".join(map(str, x.shape[2:])), False),
        lambda x: isinstance(x, Tensor) and hash(x.shape[2]) < 0,
    ],
)
def test_a_decision_by_the_text_of_a_size_is_told(
    asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy's text is none of them."""
    with caplog.at_level(logging.WARNING):
        trace(Net(asks).eval())
    assert "test_unheard.py" in caplog.text and "decides by the size of the image" in caplog.text


def prints(x: Any) -> bool:
    print(f"{x.shape}, of {x.shape[0]} images", str(x.mean()))  # noqa: T201
    logging.getLogger(__name__).error("%s", x.shape)
    assert isinstance(x.shape, tuple) or f"{x.shape[2]}"
    return False


def knows_colours(x: Any) -> bool:
    return f"{x.shape[1]:02d}" not in {"01": "grey", "03": "colours"}


def reads_a_weight(x: Any) -> bool:
    return f"{float(torch.arange(3).sum())}" != "3.0"


@pytest.mark.parametrize("asks", [prints, knows_colours, reads_a_weight])
def test_texts_that_decide_nothing_are_read(
    asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trace(Net(lambda x: False).eval()).graph.text()
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        assert trace(Net(asks).eval()).graph.text() == expected
    told = [r.getMessage() for r in caplog.records if r.name.startswith("memsr_compiler")]
    assert all("assumed: " in message for message in told)


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: f"{x.mean():.1f}" == "9.9",
        lambda x: "%s" % x.mean() == "9.9",  # noqa: UP031
        lambda x: x.mean().item() in {0.5, 0.25},
    ],
)
def test_a_decision_by_the_text_of_a_value_is_refused(asks: Callable[[Tensor], bool]) -> None:
    with pytest.raises(UnsupportedModel, match=r"test_unheard.*(takes numbers out of|depends on the image)"):
        trace(Net(asks).eval())


@functools.singledispatch
def is_bright(x: Any) -> bool:
    return False


@is_bright.register
def _(x: Tensor) -> bool:
    return bool(x.mean() > 9)


def in_a_thread(x: Any) -> bool:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(is_a_list, x).result()


@pytest.mark.parametrize(
    "asks",
    [
        is_bright,
        lambda x: not hasattr(x, "mask") and x.mean() > 9,
        lambda x: getattr(x, "mask", None) is None and x.mean() > 9,
        lambda x: not torch.fx._symbolic_trace.is_fx_tracing() and x.mean() > 9,
        lambda x: not torch.compiler.is_compiling() and float(x.mean()) > 9,
        lambda x: not torch.compiler.is_exporting() and x.mean() > 9,
        lambda x: isinstance(x, Tensor) and "9.0" in f"{x}",
        lambda x: isinstance(x, Tensor) and len(x.untyped_storage()) > 0,
        lambda x: isinstance(x, Tensor) and np.from_dlpack(x.detach()).mean() > 9,
        lambda x: isinstance(x, Tensor) and b"9.0" in pickle.dumps(x),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_no_list_of_questions_is_asked_for(asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is code that is not known to ask nothing; what it asks with does not count."""
    with pytest.raises(UnsupportedModel, match=r"Net \(at .*test_unheard.*takes numbers out of the image"):
        trace(Net(asks).eval())
    assert "by the size" not in caplog.text


SIDES = 151, 160  # of which code makes a number that stands nowhere


def is_laid_out_so(x: Any) -> bool:
    return int(x.stride()[1]) == SIDES[0] * SIDES[1] + 6


def is_in_a_table(x: Any) -> bool:
    height, table = float(x.shape[2]), {sum(SIDES): True}
    return isinstance(x, Tensor) and height in table


def is_large_later(x: Any) -> bool:
    number = int(x.nbytes)
    rows = number // 8
    return rows == sum(SIDES) * 3


@pytest.mark.parametrize("asks", [is_laid_out_so, is_in_a_table, is_large_later])
def test_a_number_that_is_compared_with_a_computed_one_is_told(
    asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture
) -> None:
    trace(Net(asks).eval())
    assert "decides by the size of the image" in caplog.text and "test_unheard" in caplog.text


def counts_only(x: Any, size: Any = None) -> bool:
    if size is None:
        size = int(x.shape[2]) * 2
    assert size > 0
    if size < 0:
        raise ValueError(size)
    return torch.zeros(size)[:size].sum() is None


def test_a_number_that_only_counts_is_no_decision() -> None:
    assert find_size_question(Net(counts_only).eval(), 3) is None


def computes_long(x: Any) -> Any:
    h = x.shape[2]
    for _ in range(39):
        h = (h + h // 2) - h // 3
    return h


def test_long_computations_with_sizes_take_a_time_that_grows_with_them() -> None:
    """Of a term twice as long each time, which torch walked through at each question; six of them took a minute."""

    class Cropped(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :, : computes_long(x) + 1]

    assert find_size_question(Cropped(lambda x: False).eval(), 3) is None
    assert find_size_question(Cropped(lambda x: computes_long(x) > 10**9).eval(), 3) is not None


POOL = ThreadPoolExecutor(1)
LIMIT_OF_WORK = 10.0


def is_dark_elsewhere(x: Any) -> bool:
    return POOL.submit(lambda: isinstance(x, Tensor) and bool(x.mean() < -9)).result(LIMIT_OF_WORK)


def test_a_thread_that_was_there_before_is_refused() -> None:
    assert POOL.submit(lambda: True).result(LIMIT_OF_WORK)
    with pytest.raises(UnsupportedModel, match=r"Net \(at .*test_unheard.py:\d+\) runs code in threads of its own"):
        trace(Net(is_dark_elsewhere).eval())


def locks(x: Any) -> bool:
    free, line = threading.Event(), queue.Queue[int]()
    free.set()
    line.put(0)
    with threading.Lock(), threading.Condition():
        return line.get() > 0 or not free.is_set()


def test_what_no_thread_waits_for_hands_no_work_to_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "memsr_compiler"):
        trace(Net(locks).eval())
    assert "assumed: locks does the same to every image" in caplog.text


ASKED, ANSWERS, WAKES = queue.Queue[Any](), [False], threading.Event()


def answer_one() -> None:
    ANSWERS[0] = isinstance(ASKED.get(timeout=LIMIT_OF_WORK), bool)


def wake_up() -> None:
    ANSWERS[0] = not WAKES.wait(LIMIT_OF_WORK)


def asks_by_a_queue(x: Any) -> bool:
    ASKED.put(x)
    return ANSWERS[0]


def asks_by_an_event(x: Any) -> bool:
    WAKES.set()
    return ANSWERS[0]


@pytest.mark.parametrize(("work", "asks"), [(answer_one, asks_by_a_queue), (wake_up, asks_by_an_event)])
def test_what_a_thread_waits_for_does(work: Callable[[], None], asks: Callable[[Any], bool]) -> None:
    worker = threading.Thread(target=work)
    worker.start()
    waited_for: Any = ASKED.not_empty if work is answer_one else vars(WAKES)["_cond"]
    while not waited_for._waiters:
        time.sleep(0.001)
    with pytest.raises(UnsupportedModel, match=r"Net \(at .*test_unheard.py:\d+\) runs code in threads of its own"):
        trace(Net(asks).eval())
    worker.join()


def is_seen_by_a_mode(x: Any) -> bool:
    return _get_current_dispatch_mode() is not None


def is_seen_by_a_number_of_modes(x: Any) -> bool:
    return bool(getattr(torch._C, "_len_torch_" + "function_stack")() > 9)


def is_a_fake(x: Any) -> bool:
    return isinstance(x, FakeTensor) and x.shape[2] > LIMIT


def is_profiled(x: Any) -> bool:
    return sys.getprofile() is not None and x.shape[2] > LIMIT


@pytest.mark.parametrize("asks", [is_seen_by_a_mode, is_seen_by_a_number_of_modes, is_a_fake, is_profiled])
def test_code_that_asks_whether_it_is_listened_to_is_refused(asks: Callable[[Tensor], bool]) -> None:
    with pytest.raises(
        UnsupportedModel, match=r"Net \(at .*test_unheard.py:\d+\) asks whether torch or Python is list"
    ):
        trace(Net(asks).eval())


def test_threads_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"test_unheard.*runs code in threads of its own"):
        trace(Net(in_a_thread).eval())


def require_grey(x: Any) -> Any:
    if x.mean() > 9:
        raise ValueError("bright")


def require_small(x: Any) -> Any:
    if x.shape[2] % 64 == 25:
        raise ValueError("large")


class Catching(Net):
    """Does something else where a check of its raises."""

    def forward(self, x: Tensor) -> Tensor:
        try:
            self.asks(x)
        except ValueError:
            x = x * 0.5
        return F.pixel_shuffle(self.tail(self.head(x).relu()), 2)


class Suppressing(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 0.5
        with suppress(ValueError):
            self.asks(x)
            y = x
        return F.pixel_shuffle(self.tail(self.head(y).relu()), 2)


@pytest.mark.parametrize("kind", [Catching, Suppressing])
def test_what_a_caller_catches_is_a_decision(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnsupportedModel):
        trace(kind(require_grey).eval())
    trace(kind(require_small).eval())
    assert "if x.shape[2] % 64 == 25:) decides by the size of the image" in caplog.text


TALL = [False] * 1083 + [True] * 9000


def is_full(x: Tensor) -> bool:
    return x.size(2) == 1083


@functools.cache
def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(is_full)


@pytest.mark.parametrize("asks", [lambda x: scripted()(x), lambda x: TALL[x.shape[2]]])
def test_a_decision_outside_python_is_told(asks: Callable[[Tensor], bool], caplog: pytest.LogCaptureFixture) -> None:
    trace(Net(lambda x: asks(x)).eval())
    assert "decides by the size of the image" in caplog.text


def test_folders_beside_torchs_are_others() -> None:
    beside = f"{os.path.dirname(torch.__file__)}sr/network.py"
    assert is_foreign(beside) and not is_foreign(torch.nn.functional.__file__)


def test_usual_networks_are_not_looked_at_again() -> None:
    """By code of known forms: submodules in a list, sums, an attribute that is asked, functions of torch."""

    class Block(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.ReLU()
            self.scale = scale

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.second(self.act(self.first(x)))
            if self.scale != 1:
                y = y * self.scale
            return x + y

    class Usual(Net):
        def __init__(self) -> None:
            super().__init__(is_a_list)
            self.blocks = nn.ModuleList([Block(0.1), Block(1)])

        def forward(self, x: Tensor) -> Tensor:
            y = self.head(x)
            parts = [y]
            for block in self.blocks:
                y = block(y)
                parts.append(y)
            return F.pixel_shuffle(self.tail(F.relu(torch.cat(parts, 1)[:, :4])), 2)

    network = Usual().eval()
    with noting_code(network) as noted:
        network(torch.rand(1, 3, 5, 5))
    assert not noted.unknown


def test_among_shapes_alone_nothing_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    """Of some operations torch knows no shape, and computed the numbers of as large an image as there is."""

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] > 5000:
                x = x * 1
            y = self.conv(x)
            return F.pixel_shuffle(torch.addcmul(y, y, torch.tensor(2.0)), 2)

    with no_pixels(), pytest.raises(RuntimeError):
        torch.empty(2, 2).dequantize()
    with caplog.at_level(logging.WARNING):
        trace(Asking().eval())
    assert {record.name.split(".")[0] for record in caplog.records} <= {"memsr_compiler"}

"""Code that decides by the size of the image, of which one way is read: it is told."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from traceback import FrameSummary
from types import FrameType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memsr_compiler import compile_to_plain
from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.approximate.freeze import find_places
from memsr_compiler.trace.own_code import unheard
from memsr_compiler.trace.own_code.decisions import OTHERS, find_other_size
from memsr_compiler.trace.own_code.statements import answer_that_goes_on, only_raises, only_tells
from memsr_compiler.trace.own_code.unheard import noting_code
from memsr_compiler.trace.trace import SYMBOLIC, GraphModule, trace


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if x.shape[2] * x.shape[3] > 2_000_000:
            y = y + 1
        return F.pixel_shuffle(y, 2)


def test_a_decision_by_size_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """No image that is tried is so large; "exact for every image" would not be."""
    compile_to_plain(Deciding().eval())
    assert (
        "Deciding (at " in caplog.text and "if x.shape[2] * x.shape[3] > 2_000_000:) decides by the size" in caplog.text
    )
    assert "read as at 997x1009, and the same at 6x10 and 7x5" in caplog.text


class Sized(Deciding):
    """The same by other code than an `if` on a size."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.change(self.conv(x)), 2)


def by_a_number(y: Tensor) -> Tensor:
    height = int(y.shape[2])
    return torch.cat([part * 1.0 for part in torch.split(y, 1024, 2)], 2) if height > 1024 else y


WEIGHTS = torch.full((1, 12, 1, 1), 0.5), torch.full((1, 12, 1, 1), 0.25)
GAIN = torch.tensor(0.5)
KERNEL = torch.full((12, 1, 3, 3), 0.1)
TABLE = {"313x311": 0.5}


def d(y: Tensor) -> int:
    return 1 + (int(y.shape[2]) > 1100)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        (by_a_number, (2160, 3840)),
        (lambda y: y * (1 - 0.5 * (y.shape[2] == y.shape[3])), (4, 4)),
        (lambda y: y * (1 - 0.5 * (int(y.shape[2]) == 48)), (48, 80)),
        (lambda y: y * (int(y.shape[2]) / int(y.shape[2])), None),
        (lambda y: y[..., : int(y.shape[2]), :], None),
        (lambda y: y + y.shape[2] // 1100, (2160, 3840)),
        (lambda y: y.relu() if int(y.shape[2]) < 5 else y, (2, 3)),
        (lambda y: y * torch.tensor(min(1.0, 1100 / int(y.shape[2]))), (2160, 3840)),
        (lambda y: y * WEIGHTS[int(y.shape[2]) > 1100], (2160, 3840)),
        (lambda y: y * (GAIN.item() if int(y.shape[2]) > 1100 else 1.0), (2160, 3840)),
        (lambda y: F.conv2d(y, KERNEL, padding=d(y), dilation=d(y), groups=12), (2160, 3840)),
        (lambda y: torch.cat([y[:, 6 * d(y) - 6 :], y[:, :6]], 1)[:, :12], (2160, 3840)),
        (lambda y: y * torch.tensor([0.5] * (12 + 0 * int(y.shape[2]))).view(1, 12, 1, 1), None),
        (lambda y: y[..., : 0 * int(y.shape[2]) + 2000, :], (2160, 3840)),
    ],
)
def test_another_way_is_looked_for(
    change: Callable[[Tensor], Tensor], size: tuple[int, int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """In a number made of a size, in a comparison, or in another file torch.fx sees no decision."""
    model = Sized(change).eval()
    assert find_other_size(model, 3) == size
    compile_to_plain(model)
    told = (
        "Sized runs other operations at {}x{}: read as".format(*size or (0, 0)),
        ") decides by the size of the image:",
    )
    assert any(words in caplog.text for words in told) is bool(size)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        (lambda y: int(y.shape[2]) == 311, (311, 311)),
        (lambda y: 100 < float(y.shape[2]) < 311.0, (310, 310)),
        (lambda y: 1200 < len(range(y.shape[2])) <= 1311, (1311, 1311)),
        (lambda y: divmod(int(y.shape[2]), 622) == (1, 0), (622, 622)),
        (lambda y: "{}x{}".format(*map(int, y.shape[2:])) in TABLE, (313, 311)),
        (lambda y: int(y.shape[2]) * int(y.shape[3]) > 100_000_000, (10_001, 10_001)),
    ],
)
def test_sizes_of_which_the_code_knows_are_looked_at(
    changes: Callable[[Tensor], bool], size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """A size that was made a plain number is heard of no more."""
    model = Sized(lambda y: y.relu() if changes(y) else y).eval()
    with noting_code(model) as noted:
        model(torch.rand(1, 3, 6, 10))
    numbers = frozenset[tuple[int, ...]]().union(*noted.codes.values())
    assert find_other_size(model, 3, numbers) == size
    assert find_other_size(model, 3) != size


def test_numbers_of_what_is_imported_meanwhile_are_none_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SymPy's were 3000 sizes to look at, half a minute; what it calls of that is its code."""
    code = (
        "TABLE = [1311, 1312, 1313]\ndef twice(y):\n    return y * 2\ntwice(1317)\ndef never(y):\n    return y > 1318\n"
    )
    (tmp_path / "imported_by_forward.py").write_text(code + "def plus(y):\n    return y + 1319\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def imports(y: Tensor) -> bool:
        import imported_by_forward  # type: ignore[import-not-found]

        return bool(imported_by_forward.twice(3) + imported_by_forward.plus(3))

    with noting_code(model := Sized(lambda y: y.relu() if imports(y) else y).eval()) as noted:
        model(torch.rand(1, 3, 6, 10))
    numbers = {number for groups in noted.codes.values() for group in groups for number in group}
    assert numbers & {*range(1310, 1320)} == {1319}
    assert {"twice", "plus"} <= {code.co_name for code in noted.codes}


def test_what_torch_imports_is_not_asked_about_call_by_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports SymPy to tell of an error in a program: each of a million calls was followed back to its reader."""
    (tmp_path / "imported_by_torch.py").write_text("def one(): return 1\nALL = [one() for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    frames, walked = unheard._frames, list[object]()

    def walk(innermost: FrameType | None = None) -> Iterator[FrameType]:
        walked.append(innermost)
        return frames(innermost)

    monkeypatch.setattr(unheard, "_frames", walk)
    with noting_code(nn.Sequential(nn.Conv2d(3, 12, 3))) as noted:
        importlib.import_module("imported_by_torch")
        here = len(walked)
    assert here < 10 and noted.unknown == ""
    assert not any(code.co_filename.startswith(str(tmp_path)) for code in noted.codes)


def height_of(y: Tensor) -> int:
    return int(y.shape[2])


def test_sizes_that_a_network_holds_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    class Holding(Sized):
        special = 311

    model = Holding(lambda y: y.relu() if height_of(y) == model.special else y).eval()
    compile_to_plain(model)
    assert "Holding runs other operations at 311x311: read as" in caplog.text


def test_what_torch_fx_takes_for_no_tensor_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    class Large(Deciding):
        def forward(self, x: Any) -> Tensor:
            y = self.conv(x)
            if torch.is_tensor(x) and x.shape[2] > 1100:
                y = y.relu()
            return F.pixel_shuffle(y, 2)

    compile_to_plain(Large().eval())
    assert "if torch.is_tensor(x) and x.shape[2] > 1100:) decides by the size of the image" in caplog.text


def test_what_is_kept_for_each_size_is_no_decision() -> None:
    class Keeping(Deciding):
        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[int, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if int(x.shape[2]) not in self.kept:
                self.kept[int(x.shape[2])] = torch.full((1, 12, 1, 1), 0.5) * 2
            return F.pixel_shuffle(self.conv(x) + self.kept[int(x.shape[2])], 2)

    assert find_other_size(Keeping().eval(), 3) is None


def test_what_is_kept_from_the_first_run_is_no_decision() -> None:
    class Keeping(Deciding):
        kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = torch.full((1, 12, 1, 1), 0.5) * 2
            return F.pixel_shuffle(self.conv(x) + self.kept, 2)

    assert find_other_size(Keeping().eval(), 3) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.relu() if y.shape[2] in {720, 1080} else y,
        lambda y: y * {720: 0.5}.get(y.size(2), 1.0),
    ],
)
def test_a_size_among_others_is_looked_for(
    change: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    compile_to_plain(Sized(change).eval())
    assert "decides by the size" in caplog.text


class Caching(Sized):
    """Keeps a kernel for each key."""

    def __init__(self, key: Callable[[Tensor], object]) -> None:
        super().__init__(lambda y: y)
        self.key, self.kernels = key, dict[object, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x)
        if key not in self.kernels:
            self.kernels[key] = torch.full((3, 1, 3, 3), 0.125).to(x)
        return super().forward(F.conv2d(x, self.kernels[key], padding=1, groups=3))


@pytest.mark.parametrize(
    "key",
    [
        lambda x: (x.device, x.dtype),
        lambda x: x.device,
        lambda x: x.shape[1],
        lambda x: str(x.device),
        lambda x: f"{x.device}:{x.dtype}",
    ],
)
def test_kernels_by_type_and_device_are_no_decision(
    key: Callable[[Tensor], object], caplog: pytest.LogCaptureFixture
) -> None:
    """They were said to decide by the size."""
    traced = trace(Caching(key).eval())
    assert traced.reader == SYMBOLIC and "size" not in caplog.text
    with torch.no_grad():
        image = torch.rand(1, 3, 5, 4, dtype=torch.float64)
        network = Caching(key).double()
        torch.testing.assert_close(GraphModule(trace(network.eval()).graph)(image), network(image))


class Counting(Deciding):
    """The same, by the number of images, which are three at most where readings are compared."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.change(self.conv(x), x), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, x: y * 2 if x.shape[0] >= 4 else y, "for 4 images at once; it takes .* or decides by how many"),
        (lambda y, x: y * 2 if x.size(0) == 6 else y, "for 6 images at once; it takes .* or decides by how many"),
        (lambda y, x: y * 2 if len(x) > 16 else y, "for 17 images at once; it takes .* or decides by how many"),
        (lambda y, x: y * 2 if len(x) == 7 else y, "for 7 images at once; it takes .* or decides by how many"),
        (lambda y, x: y * min(x.shape[0], 4) / min(3, len(x)), "for 4 images at once"),
        (lambda y, x: y * (1 + x.shape[0] // 4), "floordiv: it computes with the number of images .* the number 1"),
        (lambda y, x: y * ((x.shape[0] + 3) // 4), "add: it computes with the number of images .* the number 1"),
        (lambda y, x: y + (x.shape[0] - 1) // 4, "sub: it computes with the number of images .* the number 1"),
        (lambda y, x: y * (1 + (x.shape[0] >> 2)), "rshift: it computes with the number of images .* the number 1"),
        (lambda y, x: y + F.relu(x.new_full((1, 1, 1, 1), x.shape[0])), "new_full: it computes with the number of im"),
        (lambda y, x: y * torch.full((1, 1, 1, 1), len(x)).clamp(3, 3.5), "number of images|4 images at once"),
        (lambda y, x: y * (1 + (x.shape[0] > 4)), "gt: it computes with the number of images .* the number 1"),
    ],
)
def test_what_differs_for_more_images_is_refused(change: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        compile_to_plain(Counting(change).eval())


@pytest.mark.parametrize(
    "change",
    [
        lambda y, x: torch.cat([p * 1.0 for p in y.split(16)]) if len(x) > 16 else y,
        lambda y, x: y * 1.0 if len(x) > 4 else y,
        lambda y, x: y.view(x.shape[0] // 1, *y.shape[1:]),
        lambda y, x: y.view((x.shape[0] + x.shape[0]) * 2 // 4, *y.shape[1:]),
        lambda y, x: y + y.new_zeros(x.shape[0], 12, 1, 1),
    ],
)
def test_the_same_for_more_images_in_another_way_is_read(
    change: Callable[[Tensor, Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    compile_to_plain(Counting(change).eval())
    assert all("assumed: " in r.getMessage() for r in caplog.records if r.levelname == "WARNING")


class Tiled(Deciding):
    """Works in tiles where the image is large: thousands of them at the largest size that is looked at."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[2]), int(x.shape[3])
        if height * width <= 16_000_000:
            return F.pixel_shuffle(self.conv(x), 2)
        rows = [
            torch.cat([super(Tiled, self).forward(x[:, :, i : i + 16, j : j + 16]) for j in range(0, width, 16)], 3)
            for i in range(0, height, 16)
        ]
        return torch.cat(rows, 2)


def test_tiles_are_not_all_looked_at() -> None:
    started = time.process_time()
    assert find_other_size(Tiled().eval(), 3) == (8192, 8192)
    assert time.process_time() - started < 20


def test_sizes_at_which_a_network_does_not_run_say_nothing() -> None:
    class Windows(Deciding):
        def forward(self, x: Tensor) -> Tensor:
            if int(x.shape[2]) == 997:
                raise ValueError("no")
            return super().forward(x)

    assert find_other_size(Windows().eval(), 3) is None
    assert find_other_size(Deciding().eval(), 3) == (2160, 3840) and (997, 1009) not in OTHERS


class Asking(Deciding):
    """Questions that have but one answer, or end the run."""

    def forward(self, x: Tensor) -> Tensor:
        assert (
            x.dim() == 4
            and x.shape[1] == 3
        )  # fmt: skip
        if x.shape[1] != 3 or x.shape[2] < 1:
            raise ValueError("three channels")
        if x.ndim == 3 or x.dtype == torch.uint8:
            x = x[None] / 255
        y = torch.cat([part.relu() for part in self.conv(x).chunk(2, dim=1)], dim=1)
        return F.pixel_shuffle(y, 2)


def test_a_line_that_can_only_raise_is_no_decision(caplog: pytest.LogCaptureFixture) -> None:
    compile_to_plain(Asking().eval())
    assert "decides" not in caplog.text


@pytest.mark.parametrize(
    ("code", "line", "raises"),
    [
        ("if a:\n    raise ValueError\n", 1, True),
        ("if a:\n    raise nobody_knows\n", 1, False),
        ("if a:\n    raise KeyError(b)\n", 1, False),
        ("if a:\n    raise ValueError\nelse:\n    c = 1\n", 1, False),
        ("if a:\n    b = 1\n    raise ValueError\n", 1, False),
        ("def f():\n    assert (a and\n        b)\n", 3, True),
        ("def f():\n    a = b if c else d\n", 2, False),
        ("%magic\n", 1, False),
        ("", 1, False),
        ("assert a; b = b if c else d", 1, False),
        ("assert (a and b.append(c)) or b.append(d)", 1, False),
        ("assert (a := b)", 1, False),
        ("assert f(lambda: a)", 1, False),
        ("with suppress(b):\n    if a:\n        raise ValueError", 2, False),
        ("with torch.no_grad():\n    if a:\n        raise ValueError", 2, True),
        ("with autocast(enabled=False):\n    if a:\n        raise ValueError", 2, True),
        ("try:\n    assert a\nfinally:\n    f()", 2, True),
        ("for b in c:\n    try:\n        assert a\n    finally:\n        break", 3, False),
    ],
)
def test_what_a_line_does(code: str, line: int, raises: bool, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code, "utf-8")
    assert only_raises([FrameSummary(str(tmp_path / "a.py"), line, "f")]) is raises


@pytest.mark.parametrize(
    ("code", "tells"),
    [
        ("print(f'{a}')", True),
        ("log.info('%s', 'x'.join(map(str, a)))", True),
        ("warnings.warn(f'{a}')", True),
        ("if a:\n    raise ValueError(f'{a}')", True),
        ("raise b(f'{a}')", True),
        ("assert f'{a}' in b", True),
        ("try: raise b(f'{a}')\nexcept b: c = 1", False),
        ("a = f'{b}'", False),
        ("c.append(f'{a}')", False),
        ("if f'{a}' in b:\n    c = 1", False),
        ("%magic", False),
    ],
)
def test_whether_the_texts_of_a_line_are_for_a_person(code: str, tells: bool, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code, "utf-8")
    last = 2 if "raise b" in code and code.startswith("if") else 1
    assert only_tells([FrameSummary(str(tmp_path / "a.py"), last, "f")]) is tells


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("assert a == 3 and 0 < b <= 4, message", True),
        ("assert not a", False),
        ("assert not (a or b)", False),
        ("assert a and not b", None),
        ("assert (not a) == b", None),
        ("assert (c if a else b)", None),
        ("if a != 3 or b:\n    raise ValueError", False),
        ("if not a:\n    raise ValueError", True),
        ("if not a or b:\n    raise ValueError", None),
        ("if a not in (1, 3):\n    raise ValueError", True),
        ("assert a not in (2, 4)", False),
        ("assert a not in (2, 4) and b", None),
        ("assert not (a not in (2, 4))", None),
        ("assert a in (1, 3)", True),
        ("if a:\n    b = 1", None),
        ("if a:\n    raise ValueError\nelse:\n    b = 1", None),
        ("b = c if a else d", None),
        ("while a:\n    raise c", None),
        ("try: assert a\nexcept AssertionError: b = 1", None),
        ("try: assert a\nfinally: b = 1", True),
    ],
)
def test_the_answer_with_which_a_line_that_can_only_raise_goes_on(
    code: str, answer: bool | None, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(code, "utf-8")
    assert answer_that_goes_on([FrameSummary(str(tmp_path / "a.py"), 1, "f")]) is answer


def test_gates_beside_lines_that_can_only_raise_are_found() -> None:
    """By torch.fx alone, which has no answer to them."""

    class Careful(Asking):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Conv2d(12, 12, 1)

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1] == 3, f"three channels, not {x.shape[1]}"
            assert not x.is_cuda
            if x.shape[1] not in (1, 3):
                raise ValueError("colours, or grey")
            if x.dim() != 4 or x.shape[-1] < 1 or x.min() < -5:
                raise ValueError("an image")
            y = self.conv(x)
            return F.pixel_shuffle(y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))), 2)

    assert find_places(Careful().eval()) == ("gate",)


def test_a_decision_by_the_number_of_images_is_told(caplog: pytest.LogCaptureFixture) -> None:
    compile_to_plain(Sized(lambda y: y.relu() if y.shape[0] < 99_999 else y).eval())
    assert "Sized (at " in caplog.text and "decides by the number of images: read as for 2, and" in caplog.text
    assert "by the size" not in caplog.text
    with pytest.raises(UnsupportedModel, match=r"for 3 images at once; it .* decides by how many there are"):
        compile_to_plain(Sized(lambda y: y.relu() if y.shape[0] < 3 else y).eval())


@pytest.mark.parametrize("axis", [2, 3])
def test_another_network_at_one_row_or_column_is_told(axis: int, caplog: pytest.LogCaptureFixture) -> None:
    compile_to_plain(Sized(lambda y: y + (y.shape[axis] == 1)).eval())
    assert "Sized computes with the size of the image: at 1x1 it gives something else than what was read" in caplog.text


def test_kernels_made_without_pixels_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """They were left in the cache as other numbers of images were looked at, and the network computed with them."""

    @lru_cache
    def make_kernel(channels: int) -> Tensor:
        return torch.eye(channels)[:, :, None, None] * 0.5

    network = Sized(lambda y: F.conv2d(y, make_kernel(12).to(y))).eval()
    compile_to_plain(network)
    assert type(make_kernel(12)) is Tensor
    make_kernel.cache_clear()
    assert find_other_size(network, 3) is None
    assert make_kernel.cache_info().currsize == 0
    assert "does the same to every image" in caplog.text

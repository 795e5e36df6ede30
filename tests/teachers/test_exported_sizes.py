"""Sizes of images that a `.pt2` or a newer ONNX file was exported for are said."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.gated import Squeeze, gated, images
from helpers.onnx_files import model, node, saved, whole
from torch import Tensor, nn
from torch.export import Dim

from memsr_compiler.errors import RefusedPickle, UnsupportedModel
from memsr_compiler.lowering.equivalence import input_channels
from memsr_compiler.teachers import pt2, pt2_sizes
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.teacher import Teacher
from memsr_compiler.trace.approximate.freeze import freeze
from memsr_compiler.trace.fx import guards
from memsr_compiler.trace.trace import trace


class BySize(nn.Module):
    """Another network for images of some sizes."""

    def __init__(self, decides: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.conv, self.decides = nn.Conv2d(3, 3, 3, padding=1), decides

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * (2 if self.decides(*x.shape[2:]) else 1)  # type: ignore[no-any-return]


class PaddedToEight(BySize):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        return self.conv(padded)[:, :, :height, :width]  # type: ignore[no-any-return]


def read_free_pt2(network: nn.Module, size: tuple[int, int], path: Path, images: int = 1) -> Teacher:
    free = dict.fromkeys((2, 3) if images == 1 else (0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network.eval(), (torch.rand(images, 3, *size),), dynamic_shapes=(free,))
    torch.export.save(program, path)
    return read_teacher(path, probe=False)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("network", "size", "which"),
    [
        (BySize(lambda h, w: h >= 32), (40, 40), "height >= 32"),
        (BySize(lambda h, w: h == w), (40, 40), "height == width"),
        (BySize(lambda h, w: h != w), (40, 32), "height != width"),
        (BySize(lambda h, w: h % 2 == 0), (40, 33), "height % 2 == 0"),
        (BySize(lambda h, w: w % 8 == 0 and h > 7), (40, 40), "height >= 8 and width % 8 == 0 and height > 7"),
        (BySize(lambda h, w: h > w), (40, 32), "height >= 3 and height > width"),
        (BySize(lambda h, w: h * w > 10_000), (40, 32), "width * height <= 10000"),
        (BySize(lambda h, w: h == 1080), (40, 32), "height != 1080"),
        (BySize(lambda h, w: h % 1000 == 0), (40, 32), "height % 1000 != 0"),
        (BySize(lambda h, w: w > 2560), (40, 32), "width <= 2560"),
        (BySize(lambda h, w: w > 6000), (40, 32), "width <= 6000"),
        (BySize(lambda h, w: h > 2 * w + 3000), (40, 32), "height <= 3000 + 2 * width"),
        (PaddedToEight(lambda h, w: True), (64, 48), None),
    ],
)
def test_a_pt2_for_some_sizes_is_said_to_be(
    network: nn.Module, size: tuple[int, int], which: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The conditions that torch found in the code stand in the file; what it does elsewhere does not."""
    read = read_free_pt2(network, size, tmp_path / "a.pt2")
    assert f"it was exported for images with {which or ''}" in caplog.text
    (words,) = (words for words in read.assumed if "exported" in words)
    assert which is None or words == f"it does the same to every image (it was exported for those with {which})"


class ByBatch(BySize):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * (2 if self.decides(x.shape[0], 0) else 1)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("decides", "which"), [(lambda n, _: n > 8, "batch <= 8"), (lambda n, _: n == 16, "batch != 16")]
)
def test_so_are_the_numbers_of_images(decides: Callable[[Any, Any], Any], which: str, tmp_path: Path) -> None:
    read = read_free_pt2(ByBatch(decides), (16, 12), tmp_path / "a.pt2", images=2)
    assert f"it does the same to every image (it was exported for those with {which})" in read.assumed


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("decides", "which"),
    [
        (lambda h, w: h & 1, "height & 1 == 0"),
        (lambda h, w: abs(h - w) > 100, "abs(width + -1 * height) <= 100"),
        (lambda h, w: round(h * 0.5) > 100, "round(0.5 * torch.sym_float(height)) <= 100"),
        (lambda h, w: round(h * 0.533, 1) > 100, "round(0.533 * torch.sym_float(height), 1) <= 100.0"),
        (lambda h, w: (h | w) > 100, "height | width <= 100"),
        (lambda h, w: (h ^ w) > 100, "height ^ width <= 100"),
        (lambda h, w: h * 1e-6 > 1, "1e-06 * torch.sym_float(height) <= 1.0"),
        (lambda h, w: h**1.5 > 1e5, "torch.sym_float(height) ** 1.5 <= 100000.0"),
        (lambda h, w: 2**h > 2**40, "2 ** height <= 1099511627776"),
        (lambda h, w: torch.sym_ite(h > 100, h, w) == 99, "(height if height > 100 else width) != 99"),  # type: ignore[no-untyped-call]
        (lambda h, w: torch._sym_sqrt(h) > 100, "torch._sym_sqrt(torch.sym_float(height)) <= 100.0"),  # type: ignore[attr-defined]
        (lambda h, w: torch._sym_log2(h) > 100, "math.log2(torch.sym_float(height)) <= 100.0"),  # type: ignore[attr-defined]
        (lambda h, w: torch.sym_not((h > 100) & (w > 100)), "not (width > 100 and height > 100)"),  # type: ignore[no-untyped-call]
    ],
)
def test_conditions_of_any_arithmetic_are_told(decides: Callable[[Any, Any], Any], which: str, tmp_path: Path) -> None:
    read = read_free_pt2(BySize(decides), (16, 12), tmp_path / "a.pt2")
    assert f"it does the same to every image (it was exported for those with {which})" in read.assumed


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("height", "width", "which"),
    [
        (Dim("h", max=8000), Dim("w", max=5000), "height <= 8000 and width <= 5000"),
        (Dim("h", max=2**25), Dim("w", min=3), "height <= 33554432 and width >= 3"),
        (2 * Dim("h", max=8000), Dim("w"), "height == 2 * n and height <= 16000"),
        (Dim("h", max=2**31 - 1), Dim("w", max=2**40), None),
        (Dim.DYNAMIC, Dim.AUTO, None),
    ],
)
def test_so_is_every_bound_that_it_names(height: Any, width: Any, which: str | None, tmp_path: Path) -> None:
    shapes = ({2: height, 3: width},)
    program = torch.export.export(BySize(lambda h, w: True).eval(), (torch.rand(1, 3, 16, 12),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "a.pt2")
    told = (f"it does the same to every image (it was exported for those with {which})",) if which else ()
    read = read_teacher(tmp_path / "a.pt2", probe=False)
    assert tuple(words for words in read.assumed if "exported" in words) == told
    assert trace(program.module()).assumed == told


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x') == 0",
        "open('x') == L['x'].size()[2]",
        "L['x'].size()[2] == [n := 3][0]",
        "L['x'].size()[2].bit_length() == 3",
        "L['x'].size().__class__ == 3",
        "L['__import__(0)'].size()[2] == 3",
        "L['x'].size()[2](3) == 1",
        "L[f'{f()}'].size()[2] == 1",
        "(lambda: 3)() == L['x'].size()[2]",
        "max(*L) == 3",
        "max(L['x'].size()[2], key=print) == 3",
        "max.__call__(3, 4) == 3",
        "xmax(3, 4) == 3",
        "math.system(3) == 3",
        "os.abs(3) == 3",
        "abs == 3",
        "'a' * 9 == L['x'].size()[2]",
        "[n for n in (1,)] == 3",
        "await L['x'].size()[2]",
        "L['x'].size()[2] is 3",
        "L['x'].size()[2] in 3",
        "L['x'].size()[2] == 3; f()",
        "L['x'].size()[2] == 3\nimport os",
        "((((",
        "L['x'].size()[2] ==",
        "(" * 9999 + "1",
        "-" * 50_000 + "1",
        "1+" * 50_000 + "1",
    ],
)
def test_other_text_is_told_of_like_code(text: str) -> None:
    assert list(pt2._json_suspicions({"guards_code": [text]})) == [f"has guards_code {text[:60]!r}"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_conditions_that_are_no_arithmetic_are_told_of_a_file_that_is_trusted(tmp_path: Path) -> None:
    network, free = BySize(lambda h, w: h == 1080).eval(), dict.fromkeys((2, 3), Dim.DYNAMIC)
    program = torch.export.export(network, (torch.rand(1, 3, 16, 12),), dynamic_shapes=(free,))
    program._guards_code.append("is_fine(L['x'].size()[2])")
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(RefusedPickle, match="guards_code"):
        read_teacher(tmp_path / "a.pt2", probe=False)
    read = read_teacher(tmp_path / "a.pt2", probe=False, allow_pickle=True)
    (words,) = (words for words in read.assumed if "exported" in words)
    assert words.endswith("(it was exported for those with height != 1080 and is_fine(height))")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_no_condition_is_computed(tmp_path: Path) -> None:
    """Powers of powers, say, would take forever."""
    program = torch.export.export(BySize(lambda h, w: True).eval(), (torch.rand(1, 3, 16, 12),))
    program._guards_code.append("1 // 0 == L['x'].size()[0] ** 2")
    torch.export.save(program, tmp_path / "a.pt2")
    read = read_teacher(tmp_path / "a.pt2", probe=False)
    assert "it does the same to every image (it was exported for those with 1 // 0 == batch ** 2)" in read.assumed


class Wrapped(BySize):
    def forward(self, *args: Tensor) -> Tensor:
        return super().forward(args[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_conditions_on_what_a_wrapper_takes_are_no_code(tmp_path: Path) -> None:
    """forward(*args), by which most wrappers call what they wrap."""
    shapes = {"args": (dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC),)}
    network = Wrapped(lambda h, w: h > 100).eval()
    program = torch.export.export(network, (torch.rand(1, 3, 16, 12),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "a.pt2")
    read = read_teacher(tmp_path / "a.pt2", probe=False)
    assert "it does the same to every image (it was exported for those with height <= 100)" in read.assumed


class Written(BySize):
    """Its reshapes name height and width, which an export of one size writes out."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = self.conv(x).shape
        return self.conv(x).view(n, c, 1, h, w).view(n, c, h, w)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_sizes_that_are_written_into_a_pt2_are_told(tmp_path: Path) -> None:
    network = Written(lambda h, w: True).eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 24, 40),)), tmp_path / "a.pt2")
    assumed = read_teacher(tmp_path / "a.pt2", probe=False).assumed
    assert "it does the same at every size (it was exported for images of 24x40)" in assumed
    with pytest.raises(UnsupportedModel, match=r"^the network: view: the size .* 24x40, is written .* Dim\.DYNAMIC"):
        trace(read_teacher(tmp_path / "a.pt2", probe=False).module)
    free = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)  # as the message says
    program = torch.export.export(network, (torch.rand(1, 3, 24, 40),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "b.pt2")
    trace(read_teacher(tmp_path / "b.pt2", probe=False).module)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("scale", [2, 3])
def test_of_a_pt2_for_all_sizes_nothing_is_said(scale: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_free_pt2(EDSR(scale=scale, blocks=1, channels=4), (16, 24), tmp_path / "a.pt2")
    assert "exported for images" not in caplog.text


@pytest.mark.parametrize(
    ("guard", "met"),
    [
        ("3*L['x'].size()[2] <= 2147483647", True),
        ("(2*L['x'].size()[3]) == math.trunc(2.0*torch.sym_float(L['x'].size()[3]))", True),
        ("L['x'].size()[0] == 1 and L['x'].size()[1] == 3", True),
        ("L['x'].size()[0] == 2", False),
        ("L['x'].size()[1] != 3", True),
        ("L['x'].size()[2] >= 2", True),
        ("L['x'].size()[2] > 2", False),
        ("L['x'].size()[2]*L['x'].size()[3] - L['x'].size()[3] > 1", True),
        ("(8*L['x'].size()[2]) % 4 == 0 and 8*L['x'].size()[2] // 4 != 1", True),
        ("2 <= L['x'].size()[2] <= 1080", False),
        ("L['x'].size()[2] % 2 == 0", False),
        ("L['x'].size()[2] != 1080", False),
        ("L['x'].size()[2] // 2 != 1080", False),
        ("L['x'].size()[2] != L['x'].size()[3]", False),
        ("L['x'].size()[2]*L['x'].size()[3] <= 8000000", False),
        ("L['x'].size()[2] <= 3000 + 2*L['x'].size()[3]", False),
        ("max(L['x'].size()[2], 5) / 0 == 1", False),
        ("L['x'].size()[2] / 0 == 1", False),
        ("L['x'].size()[9] == 1", False),
        ("L['x'].size()[2] <= 2147483647", True),
        ("L['x'].size()[2] <= 2147483646", False),
        ("L['x'].size()[2] <= 1e999", False),
        ("L['x'].size()[2] & 1 == 0", False),
    ],
)
def test_conditions_that_every_image_meets_are_known(guard: str, met: bool) -> None:
    assert pt2_sizes.is_condition(guard)
    assert guards.is_met_by_all(guards.in_words(guard)) is met


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ("((L['args'][0].size()[2] % 8)) == 0", "height % 8 == 0"),
        ("x.size()[0] * x.size()[3] <= 8", "batch * width <= 8"),
        ("a; b\n\x1b[1mc", "a? b??[1mc"),
        ("(" * 9999, "(" * 2000),
    ],
)
def test_conditions_are_told_on_one_line(guard: str, words: str) -> None:
    assert guards.in_words(guard) == words
    assert not guards.is_met_by_all(words)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ("{s53: VR[32, int_oo], s0: VR[0, 100]}", ["sizes from 32 to any", "sizes from 0 to 100"]),
        ("{s53: VR[2, int_oo], s0: VR[0, int_oo]}", []),
        ("{s53: VR[0, 65535]}", ["sizes from 0 to 65,535"]),
        ("{s53: VR[0, 2147483647]}", []),
        ("nonsense", []),
    ],
)
def test_ranges_that_an_onnx_file_notes(
    ranges: str, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As torch's newer exporter does; the code that decides by size is no longer there."""
    proto = model([node("Conv", "x w", "y")], {"w": whole(3, 3, 1, 1)})
    proto.graph.metadata_props.add(key="pkg.torch.export.ExportedProgram.range_constraints", value=ranges)
    traced = trace(read_teacher(saved(proto, tmp_path), probe=False).module)
    assert traced.assumed == tuple(
        f"it does the same at every size (it was exported for images of {which})" for which in said
    )
    assert [text for text in caplog.messages if "exported for images" in text] == [
        f"it was exported for images of {which}: read as for every size, at which its code may do something else"
        for which in said
    ]


class Masked(nn.Module):
    """A network of which channels were pruned: torch.export writes an assertion on how many are left."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 12, 3, padding=1)
        self.register_buffer("kept", torch.tensor([True, False, True, True, False]))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.last(self.first(x)[:, self.kept].relu()), 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def height_and_width(height: int, width: int) -> dict[int, Any]:
    return {2: height * torch.export.Dim("h"), 3: width * torch.export.Dim("w")}


def height_of_width(times: int, more: int) -> dict[int, Any]:
    width = torch.export.Dim("w")
    return {2: times * width + more, 3: width}


SMALL = EDSR(scale=2, blocks=1, channels=4)


class OnBicubic(nn.Module):
    """What torch decomposes with questions about sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y + F.interpolate(x, scale_factor=2, mode="bicubic")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("network", "free", "size", "others"),
    [
        (SMALL, height_and_width(2, 2), (16, 24), ["height == 2 * n and width == 2 * m"]),
        (SMALL, height_and_width(8, 1), (16, 24), ["height == 8 * n"]),
        (OnBicubic(), height_and_width(2, 4), (16, 24), ["height == 2 * n and width == 4 * m"]),
        (SMALL, height_of_width(2, 0), (16, 8), ["height == 2 * width"]),
        (SMALL, height_of_width(1, 3), (16, 13), ["height == width + 3 and height >= 3 and height == 3 + width"]),
        (Masked(), height_and_width(1, 1), (16, 24), []),
    ],
)
def test_a_pt2_for_multiples_of_a_size_or_with_assertions_is_read(
    network: nn.Module,
    free: dict[int, Any],
    size: tuple[int, int],
    others: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its texts are no code: formulas of sizes, with which torch itself stumbles, and what it asserts while it runs."""
    program = torch.export.export(network.eval(), (torch.rand(1, 3, *size),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "a.pt2")
    read = read_teacher(tmp_path / "a.pt2", probe=False).module
    x = torch.rand(1, 3, *size)
    torch.testing.assert_close(read(x), network(x), rtol=0, atol=1e-5)
    assert [text for text in caplog.messages if "exported for images" in text] == [
        f"it was exported for images with {other}: read as for every image, of which its code may make something else"
        for other in others
    ]
    trace(read_teacher(tmp_path / "a.pt2", probe=False).module)


@pytest.mark.parametrize("text", ["2*s39;f()", "f(1)'", "__import__('os')", "a\nb"])
def test_what_torch_keeps_a_range_of_is_a_formula_of_sizes(text: str) -> None:
    assert list(pt2._json_suspicions({"range_constraints": {text: {}}})) == [f"has the key {text!r}"]
    assert list(pt2._json_suspicions({"tensor_values": {"2*s39": {}}})) == ["has the key '2*s39'"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pt2_with_gates_is_frozen(tmp_path: Path) -> None:
    """Its program looks at sizes in a hook, as a person's own code might."""
    network = gated(Squeeze)
    free = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (torch.rand(1, 3, 24, 20),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "a.pt2")
    teacher = read_teacher(tmp_path / "a.pt2", probe=False)
    assert teacher.takes.scale == 2
    frozen, same = freeze(teacher.module, images()), freeze(network, images())
    assert frozen.psnr == pytest.approx(same.psnr, abs=0.01)
    teacher.module(torch.rand(1, 3, 9, 8))


class Enlarging(nn.Module):
    def __init__(self, mode: str, channels: int) -> None:
        super().__init__()
        self.conv, self.mode = nn.Conv2d(channels, channels, 3, padding=1), mode

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode=self.mode)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("channels", "mode", "reason"),
    [
        (4, "nearest", ""),
        (3, "area", "adaptive_avg_pool2d: it resizes to 16x12 pixels, whatever the size of the image"),
    ],
)
def test_a_pt2_of_any_number_of_channels_is_read(channels: int, mode: str, reason: str) -> None:
    """It states the number, and has no nn.Conv2d that a number could be taken from."""
    data = io.BytesIO()
    torch.export.save(torch.export.export(Enlarging(mode, channels).eval(), (torch.rand(1, channels, 8, 6),)), data)
    network, _ = pt2.load_exported(data.getvalue())
    assert input_channels(network) == channels
    with pytest.raises(UnsupportedModel, match=reason) if reason else nullcontext():
        assert trace(network).graph.input.channels == channels

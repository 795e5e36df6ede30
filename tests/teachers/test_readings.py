"""Files that do not say everything: what is read off them, what is assumed, and what a photograph settles."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from helpers.teachers import write_teacher
from helpers.trained import SHIPPED, Edsr
from safetensors.torch import save_file
from torch import Tensor, nn

import memsr_compiler
from memsr_compiler import compile_to_plain, export_onnx, load_plain, save_plain, shrink
from memsr_compiler.errors import InvalidInput
from memsr_compiler.runtime.open import NetworkFile, open_model
from memsr_compiler.teachers.families.base import range_of_mean_shift
from memsr_compiler.teachers.families.compact import SRVGGNetCompact
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.families.srresnet import SRResNet
from memsr_compiler.teachers.load import read_teacher
from memsr_compiler.teachers.teacher import Teacher, as_teacher

SHARED = Path(__file__).resolve().parents[3] / "shared"
HABITS = ("ReLU", "zero padding", "no clamp at the end")  # of EDSR, which its weights do not say
IMAGE = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))


def run(teacher: Teacher, image: Tensor = IMAGE) -> Tensor:
    """Output in 0..1 for an image of 0..1, whatever the network's range."""
    low, high = teacher.input_range
    with torch.no_grad():
        y: Tensor = (teacher.module(image * (high - low) + low) - low) / (high - low)
    return y


def save(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def unused(network: Edsr, peak: float) -> Edsr:
    """The network with mean shifts in its state dict that it does not run."""
    shifted = Edsr(peak=peak, mean_shift=True).state_dict()
    own = network.state_dict
    both = {**{key: value for key, value in shifted.items() if "_mean" in key}, **own()}
    network.state_dict = lambda *_, **__: both  # type: ignore[assignment,method-assign]
    return network


FORMS: dict[str, tuple[Callable[[], Edsr], tuple[str, ...], tuple[str, ...]]] = {
    # what is assumed in the end, and of that what is not the usual
    "as shipped": (lambda: Edsr(), ("res_scale 1", "input values 0 to 1"), ()),
    "res_scale 0.1": (lambda: Edsr(0.1), ("res_scale 0.1", "input values 0 to 1"), ("res_scale 0.1",)),
    "0 to 255": (lambda: Edsr(peak=255.0), ("res_scale 1", "input values 0 to 255"), ("input values 0 to 255",)),
    "0 to 255, res_scale 0.1": (
        lambda: Edsr(0.1, 255.0),
        ("res_scale 0.1", "input values 0 to 255"),
        ("res_scale 0.1, input values 0 to 255",),
    ),
    "mean shift of 255": (lambda: Edsr(peak=255.0, mean_shift=True), ("res_scale 1", "mean_shift True"), ()),
    "mean shift of 1": (lambda: Edsr(mean_shift=True), ("res_scale 1", "mean_shift True"), ()),
    "mean shift of 255, res_scale 0.1": (
        lambda: Edsr(0.1, 255.0, mean_shift=True),
        ("res_scale 0.1", "mean_shift True"),
        ("res_scale 0.1",),
    ),
    # as super-image has it: its weights hold shifts that its code runs past
    "mean shift of 255 that is not used": (
        lambda: unused(Edsr(), 255.0),
        ("res_scale 1", "mean_shift False", "input values 0 to 1"),
        ("mean_shift False, input values 0 to 1",),
    ),
    "mean shift of 1 that is not used, 0 to 255": (
        lambda: unused(Edsr(peak=255.0), 1.0),
        ("res_scale 1", "mean_shift False", "input values 0 to 255"),
        ("mean_shift False, input values 0 to 255",),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_edsr_is_read_as_what_it_is(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make, assumed, taken = FORMS[name]
    network = make()
    teacher = read_teacher(save(network, tmp_path / "a.pth"))
    with torch.no_grad():
        expected = network(IMAGE)
    # Values are below 1 and have passed 20 layers of at most 288 products: far below a tenth of a grey level.
    assert torch.allclose(run(teacher), expected, rtol=0, atol=1e-4)
    assert teacher.assumed == (*assumed, *HABITS)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == len(taken)
    for words, warning in zip(taken, warnings, strict=True):
        assert f"a.pth: taken: {words}, since so it restores a photograph to 30.3 dB, against " in warning
        assert "bicubic interpolation has 26.7 dB" in warning


def test_what_is_said_is_neither_assumed_nor_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Edsr(peak=255.0), tmp_path / "a.pth")
    monkeypatch.setattr("memsr_compiler.teachers.readings.choose", lambda readings: pytest.fail("probed"))
    teacher = read_teacher(path, input_range=(0.0, 1.0), arch_args={"res_scale": 1.0})
    assert teacher.input_range == (0.0, 1.0) and teacher.assumed == HABITS
    assert not teacher.range_is_assumed
    teacher = read_teacher(path, probe=False)
    assert teacher.input_range == (0.0, 1.0)
    assert teacher.assumed == ("res_scale 1", "input values 0 to 1", *HABITS)


@pytest.mark.parametrize("argument", [{"mean": (0.0, 0.0, 0.0)}, {"rgb_range": 1.0}])
def test_arguments_that_the_weights_settle_are_refused(argument: dict[str, object], tmp_path: Path) -> None:
    path = save(Edsr(peak=255.0, mean_shift=True), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"hold the mean that is subtracted.*mean_shift=false"):
        read_teacher(path, arch_args=argument)
    assert "mean" not in read_teacher(path, probe=False).hyper  # the file's may be another than the usual


def test_half_of_it_said_the_other_is_probed(tmp_path: Path) -> None:
    path = save(Edsr(0.1, 255.0), tmp_path / "a.pth")
    by_range = read_teacher(path, input_range=(0.0, 255.0))
    assert by_range.assumed == ("res_scale 0.1", *HABITS) and by_range.hyper["res_scale"] == 0.1
    by_scale = read_teacher(path, arch_args={"res_scale": 0.1})
    assert by_scale.assumed == ("input values 0 to 255", *HABITS)
    assert torch.equal(run(by_range), run(by_scale))
    with pytest.raises(InvalidInput, match=r"does not restore a photograph.* with input values 0 to 255; bicub"):
        read_teacher(path, arch_args={"res_scale": 1.0})


@pytest.mark.parametrize(
    "content",
    [
        lambda state: {"params": state, "opt": {"network_g": {"res_scale": 0.1}, "rgb_range": 255}},
        lambda state: {"state_dict": state, "hyper_parameters": {"res_scale": 0.1, "input_range": [0, 255]}},
        lambda state: {"model": state, "config": '{"res_scale": 0.1, "rgb_range": 255.0}'},
    ],
)
def test_what_stands_beside_the_weights_is_read(content: Callable[[object], object], tmp_path: Path) -> None:
    network = Edsr(0.1, 255.0)
    torch.save(content(network.state_dict()), tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert teacher.assumed == HABITS
    assert torch.allclose(run(teacher), network(IMAGE), rtol=0, atol=1e-4)


@pytest.mark.parametrize("noted", [{"res_scale": 0.3}, {"input_range": [0, 1]}])
def test_notes_that_a_photograph_contradicts_are_doubted(
    noted: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be of another network, or of another run."""
    torch.save({"params": Edsr(1.0, 255.0).state_dict(), "opt": noted}, tmp_path / "a.pth")
    read_teacher(tmp_path / "a.pth")
    assert "restores a photograph no better than bicubic interpolation" in caplog.text


def test_a_range_that_is_told_against_the_files_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(
        {"params": Edsr(0.1).state_dict(), "opt": {"input_range": [0, 255], "res_scale": 0.1}}, tmp_path / "a.pt"
    )
    assert read_teacher(tmp_path / "a.pt", input_range=(0.0, 1.0)).input_range == (0.0, 1.0)
    assert "the file says that it has input values 0 to 255: taken as told, input values 0 to 1" in caplog.text


def test_graphs_take_no_word_that_contradicts_them() -> None:
    tiny = Path(memsr_compiler.__file__).parent / "models" / "x2-tiny.onnx"
    for words, message in (
        ({"input_range": (0.0, 1.0)}, "takes values from 0 to 255. Leave --input-range out"),
        ({"arch_args": {"scale": 3}}, "is onnx, which holds the network itself. Leave --scale out"),
        ({"arch_args": {"blocks": 3}}, "is onnx, which holds the network itself. Leave --arch-args out"),
    ):
        with pytest.raises(InvalidInput, match=re.escape(message)):
            read_teacher(tiny, **words)
    assert read_teacher(tiny, input_range=(0.0, 255.0)).input_range == (0.0, 255.0)


def test_metadata_of_safetensors_are_read(tmp_path: Path) -> None:
    network = Edsr(0.1)
    save_file(network.state_dict(), tmp_path / "a.safetensors", metadata={"res_scale": "0.1", "input_range": "[0, 1]"})
    teacher = read_teacher(tmp_path / "a.safetensors")
    assert teacher.assumed == HABITS
    assert torch.allclose(run(teacher), network(IMAGE), rtol=0, atol=1e-4)


def test_a_scale_that_weights_do_not_show_is_read_beside_them(tmp_path: Path) -> None:
    from memsr_compiler.teachers.families.fsrcnn import FSRCNN

    torch.save({"params": FSRCNN(scale=3).state_dict(), "args": {"scale": 3}}, tmp_path / "a.pth")
    assert read_teacher(tmp_path / "a.pth", probe=False).hyper["scale"] == 3
    torch.save({"params": FSRCNN(scale=3).state_dict(), "args": {"scale": "many"}}, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"'scale'.*--arch-arg"):
        read_teacher(tmp_path / "a.pth")


def test_a_range_that_the_weights_contradict_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = Edsr(peak=255.0, mean_shift=True).state_dict()
    for words, told in (("[0, 255]", False), ("[0, 1]", True)):
        caplog.clear()
        save_file(state, tmp_path / "a.safetensors", metadata={"input_range": words, "res_scale": "1"})
        read_teacher(tmp_path / "a.safetensors", probe=False)
        assert ("input values 0 to 1, and its mean shift is one of input values 0 to 255" in caplog.text) == told
    caplog.clear()
    read_teacher(tmp_path / "a.safetensors", input_range=(0.0, 1.0), probe=False)
    assert caplog.text == ""


def test_a_shift_by_nothing_leaves_the_range_to_the_photograph(tmp_path: Path) -> None:
    state = Edsr(peak=255.0).state_dict()
    for name in ("sub_mean", "add_mean"):
        state |= {f"{name}.weight": torch.eye(3).reshape(3, 3, 1, 1), f"{name}.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pt")
    teacher = read_teacher(tmp_path / "a.pt")
    assert teacher.input_range == (0.0, 255.0) and "input values 0 to 255" in teacher.assumed


def test_a_mean_shift_shows_the_range_of_what_goes_in() -> None:
    def shift(gain: float, bias: float) -> dict[str, Tensor]:
        return {"m.weight": gain * torch.eye(3)[:, :, None, None], "m.bias": torch.full((3,), bias)}

    assert range_of_mean_shift(shift(1.0, -0.4), "m") == (0.0, 1.0)
    assert range_of_mean_shift(shift(1.0, -100.0), "m") == (0.0, 255.0)
    assert range_of_mean_shift(shift(255.0, -100.0), "m") == (0.0, 1.0)  # BasicSR's: 255 inside
    assert range_of_mean_shift(shift(1.0, 0.0), "m") is None  # by nothing: nothing is shown
    assert range_of_mean_shift(shift(1.0, 1e-6), "m") is None
    assert range_of_mean_shift({}, "m") is None
    assert range_of_mean_shift({**shift(1.0, 0.0), "m.weight": torch.ones(3, 3, 1, 1)}, "m") is None


def test_untrained_weights_are_refused_with_the_ways_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = save(EDSR(scale=2, blocks=1, channels=8), tmp_path / "a.pth")
    with pytest.raises(InvalidInput) as error:
        read_teacher(path)
    for words in (
        "a.pth: as edsr (res_scale 1, input values 0 to 1, ReLU, zero padding, no clamp at the end being assumed)",
        " it does not restore a photograph, however it is read",
        "--input-range LOW HIGH, --arch-args res_scale=VALUE, --arch NAME",
        "--arch package.module:factory",
        "--no-probe",
    ):
        assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert read_teacher(path, probe=False).family == "edsr"


def test_a_file_that_says_all_is_believed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = read_teacher(write_teacher(EDSR(scale=2, blocks=1, channels=8), tmp_path / "a.pth", (0.0, 255.0)))
    assert (teacher.input_range, teacher.assumed) == ((0.0, 255.0), ())


class Stack(nn.Module):
    """Any sequence called `model`: plus or minus the image, or alone."""

    def __init__(self, dilations: tuple[int, ...], activation: Callable[[], nn.Module], skip: int) -> None:
        super().__init__()
        self.skip, last = skip, len(dilations) - 1
        layers: list[nn.Module] = []
        for i, d in enumerate(dilations):
            layers += [nn.Conv2d(16 if i else 1, 16 if i < last else 1, 3, padding=d, dilation=d), activation()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * abs(self.skip) + self.model(x) * (self.skip or 1)
        return y


STACKS: dict[str, Stack] = {
    "dncnn": Stack((1,) * 5, nn.ReLU, -1),
    "ircnn": Stack((1, 2, 3, 4, 3, 2, 1), nn.ReLU, -1),
    "no skip": Stack((1,) * 5, nn.ReLU, 0),
    "tanh": Stack((1,) * 5, nn.Tanh, 0),
    "leaky": Stack((1,) * 5, lambda: nn.LeakyReLU(0.2), -1),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_bare_stack_is_nothing_unless_it_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model\.0\.weight.* any other stack of layers.* --arch dncnn; else"):
        read_teacher(save(STACKS[name], tmp_path / "a.pth"))


def kair_dncnn(eps: float) -> nn.Sequential:
    """KAIR's DnCNN with batch normalisation, of variances as small as trained ones."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        norm = nn.BatchNorm2d(8, eps=eps)
        assert norm.running_var is not None
        norm.running_var.uniform_(1e-4, 1e-3)
        layers += [nn.Conv2d(8, 8, 3, padding=1), norm, nn.ReLU()]
    return nn.Sequential(OrderedDict(model=nn.Sequential(*layers, nn.Conv2d(8, 1, 3, padding=1)))).eval()


@pytest.mark.parametrize(("eps", "told"), [(1e-4, {}), (1e-5, {"eps": 1e-5})])
def test_a_denoisers_batch_normalisation_is_that_of_its_authors(
    eps: float, told: dict[str, object], tmp_path: Path
) -> None:
    network = kair_dncnn(eps)
    teacher = read_teacher(save(network, tmp_path / "a.pth"), arch="dncnn", arch_args=told, probe=False)
    with torch.no_grad():
        assert torch.equal(teacher.module(IMAGE[:, :1]), IMAGE[:, :1] - network(IMAGE[:, :1]))
    assert ("eps 0.0001" in teacher.assumed) == (not told)


def test_a_network_that_clamps_is_said_to_clamp(tmp_path: Path) -> None:
    teacher = read_teacher(save(SRResNet(scale=2, blocks=1, channels=4), tmp_path / "a.pth"), probe=False)
    assert teacher.assumed == ("clamp True", "input values 0 to 1", "zero padding")


def test_a_network_that_does_not_clamp_is_found(tmp_path: Path) -> None:
    """Nearest-neighbour enlargement, two of 255 levels too bright: of 0..1 it would be white, and clamped too."""
    network = SRResNet(scale=2, blocks=1, channels=4, clamp=False)
    state = network.state_dict()
    for value in state.values():
        value.fill_(0)
    state["conv1.1.weight"].fill_(1)
    state["upsampling.0.upsample_block.2.weight"].fill_(1)
    for c in range(3):
        state["conv1.0.weight"][c, c, 4, 4] = state["conv3.weight"][c, c, 4, 4] = 1
        state["upsampling.0.upsample_block.0.weight"][4 * c : 4 * c + 4, c, 1, 1] = 1
    state["conv3.bias"].fill_(2)
    teacher = read_teacher(save(network, tmp_path / "a.pth"))
    assert teacher.assumed == ("clamp False", "input values 0 to 255", "zero padding")


def test_a_stack_that_is_named_is_probed(tmp_path: Path) -> None:
    """A denoiser that finds no noise is one; a network that gives the image itself, and not the noise in it, is not."""
    stack = STACKS["no skip"]
    with torch.no_grad():
        for value in stack.parameters():
            value.zero_()
    teacher = read_teacher(save(stack, tmp_path / "a.pth"), arch="dncnn")
    assert teacher.assumed == (
        "input values 0 to 1",
        "no dilation",
        "ReLU between layers",
        "subtracted from the image",
        "zero padding",
        "no clamp at the end",
    )
    with torch.no_grad():
        for i in range(0, 9, 2):
            stack.state_dict()[f"model.{i}.weight"][0, 0, 1, 1] = 1
    image = torch.rand(1, 1, 6, 7)
    assert torch.equal(stack(image), image)
    with pytest.raises(InvalidInput, match=r"as dncnn .* does not restore a photograph"):
        read_teacher(save(stack, tmp_path / "a.pth"), arch="dncnn")


def enlarging(*, image_skip: bool) -> SRVGGNetCompact:
    """Each pixel four times, by the image skip or by the layers."""
    network = SRVGGNetCompact(scale=2, blocks=1, channels=4, image_skip=image_skip)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.dim() == 4 or name.endswith("bias"):
                value.zero_()
        if not image_skip:
            for i in (0, 2):
                for c in range(3):
                    network.state_dict()[f"body.{i}.weight"][c, c, 1, 1] = 1
            for c in range(12):
                network.state_dict()["body.4.weight"][c, c // 4, 1, 1] = 1
    return network.eval()


@pytest.mark.parametrize("image_skip", [True, False])
def test_a_prelu_stack_is_read_with_the_skip_that_it_was_trained_with(image_skip: bool, tmp_path: Path) -> None:
    network = enlarging(image_skip=image_skip)
    teacher = read_teacher(save(network, tmp_path / "a.pth"))
    assert torch.equal(run(teacher), network(IMAGE))
    assert teacher.assumed[0] == f"image_skip {image_skip}"


def test_a_network_that_does_no_better_than_bicubic_is_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_teacher(save(enlarging(image_skip=True), tmp_path / "a.pth"))
    assert "a.pth: restores a photograph no better than bicubic interpolation: 2" in caplog.text
    assert "it is read wrongly: say its --input-range LOW HIGH or --arch-args image_skip=VALUE" in caplog.text
    caplog.clear()
    read_teacher(SHIPPED)
    assert not caplog.text


# -- networks that say what they compute, but not in which range -------------------------------------------------


def test_the_range_of_an_onnx_file_is_probed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.onnx"
    export_onnx(compile_to_plain(read_teacher(save(Edsr(peak=255.0), tmp_path / "a.pth"))), path)
    assert read_teacher(path).assumed == () and read_teacher(path).input_range == (0.0, 255.0)  # as it says itself
    bare = onnx.load(path)
    del bare.metadata_props[:]
    onnx.save(bare, path)
    caplog.clear()
    teacher = read_teacher(path)
    assert teacher.input_range == (0.0, 255.0) and teacher.assumed == ("input values 0 to 255",)
    assert "a.onnx: taken: input values 0 to 255, since so it restores a photograph to 30.3 dB" in caplog.text
    model = open_model(NetworkFile(path))
    assert model.takes.input_range == (0.0, 255.0) and model.assumed == ("input values 0 to 255",)
    assert open_model(NetworkFile(path, probe=False)).takes.input_range == (0.0, 1.0)
    told = open_model(NetworkFile(path, input_range=(0.0, 1.0)))
    assert told.takes.input_range == (0.0, 1.0) and not told.assumed


def test_other_code_that_restores_nothing_is_told_and_taken_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = Edsr()
    with torch.no_grad():
        network.state_dict()["tail.1.weight"].mul_(-3)
    teacher = read_teacher(save(network, tmp_path / "a.pth"), arch="helpers.trained:Edsr")
    assert teacher.assumed == ("input values 0 to 1",)
    assert torch.equal(run(teacher), network(IMAGE))
    assert "a.pth: does not restore a photograph, however it is read: " in caplog.text
    assert "say its --input-range" in caplog.text


# -- what is assumed stays known ------------------------------------------------------------------------------------


def test_a_network_that_runs_on_no_photograph_is_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """torch.export fixes the size of its example."""
    torch.export.save(torch.export.export(Edsr(), (torch.rand(1, 3, 16, 20),)), tmp_path / "a.pt2")
    assumed = read_teacher(tmp_path / "a.pt2").assumed
    assert assumed == ("input values 0 to 1", "it does the same at every size (it was exported for images of 16x20)")
    assert "a.pt2: runs on no photograph, so nothing bears out that it has input values 0 to 1;" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_an_exported_network_of_another_precision_is_probed_and_compiled(dtype: torch.dtype, tmp_path: Path) -> None:
    sizes = {2: torch.export.Dim("h", min=4, max=999), 3: torch.export.Dim("w", min=4, max=999)}
    image = torch.rand(1, 3, 16, 20, dtype=dtype)
    torch.export.save(
        torch.export.export(Edsr(peak=255.0).to(dtype), (image,), dynamic_shapes=(sizes,)), tmp_path / "a.pt2"
    )
    teacher = read_teacher(tmp_path / "a.pt2")
    assert next(teacher.module.parameters()).dtype == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch copies its own exported modules by what it deprecates
        save_plain(compile_to_plain(teacher), tmp_path / "a.safetensors")


def test_assumptions_are_written_with_the_network(tmp_path: Path) -> None:
    teacher = read_teacher(save(Edsr(0.1), tmp_path / "a.pth"))
    net = compile_to_plain(teacher)
    assert net.info.assumed == teacher.assumed
    export_onnx(net, tmp_path / "net.onnx")
    save_plain(net, tmp_path / "net.safetensors")
    for path in (tmp_path / "net.onnx", tmp_path / "net.safetensors"):
        assert load_plain(path).info == net.info
        assert as_teacher(path, plain=True).assumed == teacher.assumed
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert metadata["assumed"] == "res_scale 0.1; input values 0 to 1; ReLU; zero padding; no clamp at the end"
    student = shrink(teacher, width=8, calibration=[IMAGE], refit=0)
    assert student.info.assumed == teacher.assumed


def test_nothing_assumed_is_no_word(tmp_path: Path) -> None:
    module = copy.deepcopy(read_teacher(SHIPPED).module)  # of which nothing is known
    net = compile_to_plain(module, input_range=(0.0, 1.0))
    assert net.info.assumed == ()
    export_onnx(net, tmp_path / "net.onnx")
    assert "assumed" not in {p.key for p in onnx.load(tmp_path / "net.onnx").metadata_props}


# -- real networks ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pretrained weights in ../shared/models")
@pytest.mark.parametrize(
    ("file", "input_range"),
    [
        ("IMDN_noCCA_x4.pth", 1.0),
        ("IMDN_x2.pth", 1.0),
        ("IMDN_x3.pth", 1.0),
        ("IMDN_x4.pth", 1.0),
        ("RFDN_x4.pth", 255.0),
        ("edsr_5x32_x2.safetensors", 255.0),
        ("edsr_5x64_x2.safetensors", 255.0),
        ("edsr_baseline_x4.safetensors", 255.0),
        ("teacher_m_x2.safetensors", 255.0),
        ("vdsr.safetensors", 1.0),
    ],
)
def test_pretrained_networks_are_read_in_their_range(file: str, input_range: float) -> None:
    teacher = read_teacher(SHARED / "models" / file)
    assert teacher.input_range == (0.0, input_range)
    assert teacher.hyper.get("res_scale", 1.0) == 1.0


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pretrained weights in ../shared/models")
def test_variants_of_rfdn(tmp_path: Path) -> None:
    """The same keys for images of 0..1 are read in that range; that nothing is dilated is assumed aloud."""
    state = torch.load(SHARED / "models" / "RFDN_x4.pth", weights_only=True)
    expected = run(read_teacher(SHARED / "models" / "RFDN_x4.pth"))
    small = {key: value.clone() for key, value in state.items()}
    small["fea_conv.weight"] *= 255
    small["upsampler.0.weight"] /= 255
    small["upsampler.0.bias"] /= 255
    torch.save(small, tmp_path / "a.pth")
    teacher = read_teacher(tmp_path / "a.pth")
    assert teacher.input_range == (0.0, 1.0)
    assert torch.allclose(run(teacher), expected, rtol=0, atol=1e-4)
    assert "no dilation" in teacher.assumed

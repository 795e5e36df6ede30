"""Weights as training code saves them: wrapped, prefixed, with averages, discriminators and counters beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.trained import SHIPPED
from helpers.user_code import UserNetwork
from safetensors.torch import save_file
from torch import Tensor, nn

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.edsr import EDSR
from memsr_compiler.teachers.load import load_teacher, read_teacher

State = dict[str, Tensor]


def weights(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return EDSR(scale=2, blocks=1, channels=4).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def read(content: object, path: Path, **options: Any) -> nn.Module:
    torch.save(content, path)
    return load_teacher(path, probe=False, **options)


def holds(network: nn.Module, state: State) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


AVERAGED, OTHER = weights(1), weights(2)
COMPANIONS = {"discriminator.0.weight": torch.zeros(4, 3, 3, 3), "loss_fn.vgg.0.weight": torch.zeros(4, 3, 3, 3)}

WRAPPED: dict[str, Callable[[State], object]] = {
    "params-ema": lambda s: {"params-ema": s},
    "generator_state_dict": lambda s: {"generator_state_dict": s, "epoch": 3, "optimizer": {"state": {}}},
    "model_state": lambda s: {"model_state": s},
    "ema_state_dict": lambda s: {"ema_state_dict": s, "state_dict": OTHER},
    "state_dict_ema": lambda s: {"state_dict": OTHER, "state_dict_ema": s},
    "ema beside model": lambda s: {"model": OTHER, "ema": {"shadow": s, "decay": 0.999}},
    "swa": lambda s: {**under("module.", s), "n_averaged": torch.tensor(9)},
    "online and ema": lambda s: {
        **under("online_model.", OTHER),
        **under("ema_model.", s),
        "initted": torch.tensor([True]),
        "step": torch.tensor([7]),
    },
    "generator and its average": lambda s: {
        "state_dict": {**under("generator.", OTHER), **under("generator_ema.", s), "step_counter": torch.tensor([5])}
    },
    "ema beside generator": lambda s: {**under("generator.", OTHER), **under("ema.", s)},
    "gan of lightning": lambda s: {"state_dict": {**under("generator.", s), **COMPANIONS}},
    "gan in a module": lambda s: {"state_dict": under("model.", {**under("net_g.", s), **COMPANIONS})},
    "flat with a number": lambda s: {**s, "iter": 7, "best": 36.1, "name": "x2", "note": None},
    "flat with a counter": lambda s: {**s, "iter": torch.tensor(7)},
    "a model of torch's averages": lambda s: {
        "model": OTHER,
        "average_model": {**under("module.", s), "n_averaged": torch.tensor(4)},
    },
    "averages of distributed training": lambda s: {"params": OTHER, "params_ema": under("module.", s)},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_found_in_what_training_code_saves(name: str, tmp_path: Path) -> None:
    assert holds(read(WRAPPED[name](AVERAGED), tmp_path / "a.pth"), AVERAGED)


@pytest.mark.parametrize("name", WRAPPED)
def test_they_are_found_for_code_of_ones_own(name: str, tmp_path: Path) -> None:
    content = WRAPPED[name](AVERAGED)
    network = read(content, tmp_path / "a.pth", arch="helpers.user_code:small_edsr")
    assert holds(network, AVERAGED)


@pytest.mark.parametrize(
    ("name", "taken", "left"),
    [
        ("state_dict_ema", "'state_dict_ema'", "'state_dict'"),
        ("generator and its average", "'generator_ema.'", "'generator.'"),
        ("online and ema", "'ema_model.'", "'online_model.'"),
    ],
)
def test_averaged_weights_are_preferred_aloud(
    name: str, taken: str, left: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(WRAPPED[name](AVERAGED), tmp_path / "a.pth")  # as a command without --verbose logs
    assert f"taking the averaged weights under {taken}; passing over {left}" in caplog.text


def test_what_is_passed_over_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read(WRAPPED["gan of lightning"](AVERAGED), tmp_path / "a.pth")
    assert "weights under 'generator.'; passing over 'discriminator.', 'loss_fn.'" in caplog.text
    read(WRAPPED["flat with a number"](AVERAGED), tmp_path / "b.pth")
    assert "passing over iter, best, name, note, no weights" in caplog.text


def test_another_version_of_the_same_weights_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read({"model": OTHER, "best_model": AVERAGED, "optimizer": {"state": OTHER}}, tmp_path / "a.pth")
    assert "taking the weights under 'model', and not those of the same keys under 'best_model'" in caplog.text
    caplog.clear()
    best = {**under("module.", AVERAGED), "updates": torch.tensor(4)}
    read({"model": under("net.", OTHER), "best": best}, tmp_path / "b.pth")
    assert "taking the weights under 'model', and not those of the same keys under 'best'" in caplog.text


def test_the_same_keys_beside_a_wrapper_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = read({**OTHER, "state_dict": AVERAGED}, tmp_path / "a.pth")
    assert holds(network, AVERAGED)
    assert "taking the weights under 'state_dict', and not those of the same keys beside it" in caplog.text


@pytest.mark.parametrize("path", ["EMA.ema_state_dict", "StochasticWeightAveraging.average_model_state"])
def test_averages_that_a_callback_keeps_are_told(path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And `--prefix`, as the warning names it, takes them."""
    callback, key = path.split(".")
    kept = {"state_dict": OTHER, "callbacks": {callback: {key: AVERAGED, "decay": 0.999}}}
    network = read(kept, tmp_path / "a.ckpt")
    assert holds(network, OTHER)
    said = f"passing over the averaged weights under 'callbacks.{path}', which --prefix"
    assert f"{said} callbacks.{path}. takes; taking those under 'state_dict'" in caplog.text
    assert holds(read(kept, tmp_path / "a.ckpt", prefix=f"callbacks.{path}."), AVERAGED)


@pytest.mark.parametrize("prefix", ["", "params."])
def test_dictionaries_that_hold_themselves_end(prefix: str, tmp_path: Path) -> None:
    """30 names of one, eight deep, were 30^8 visits."""
    endless: dict[str, Any] = {"hyper": {"lr": 1e-4}}
    endless |= dict.fromkeys((f"k{i}" for i in range(30)), endless)
    content = {"params": AVERAGED, "cfg": endless, "model": endless}
    if prefix:
        with pytest.raises(InvalidInput, match="holds more than 1,000,000 entries"):
            read(content, tmp_path / "a.pth", prefix=prefix)
    else:
        assert holds(read(content, tmp_path / "a.pth"), AVERAGED)


def test_a_schedule_s_milestones_are_no_code(tmp_path: Path) -> None:
    """They are a Counter, which torch reads as weights alone too; Lightning and BasicSR save them."""
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.Adam([torch.zeros(1)]), [200, 400])
    network = read({"params": AVERAGED, "schedulers": [schedule.state_dict()]}, tmp_path / "a.pth")
    assert holds(network, AVERAGED)
    noted = weights(1)
    noted["tail.1.bias"].origin = "a converter"  # type: ignore[attr-defined]
    assert holds(read(noted, tmp_path / "b.pth"), AVERAGED)


@pytest.mark.parametrize(
    ("beside", "path"),
    [
        (lambda average: {"ema": {"decay": 0.999, "shadow_params": average}}, "ema.shadow_params"),  # torch_ema
        (lambda average: {"ema": average}, "ema"),
        (lambda average: {"callbacks": {"EMACallback": {"weights": average}}}, "callbacks.EMACallback.weights"),
        (lambda average: {"optimizer_states": [{"opt": {}, "ema": average}]}, "optimizer_states.0.ema"),  # NeMo's
    ],
)
def test_averages_without_names_are_told(
    beside: Callable[[list[Tensor]], dict[str, object]], path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = read({"model": OTHER, **beside(list(AVERAGED.values()))}, tmp_path / "a.pth")
    assert holds(network, OTHER)
    assert f"passing over '{path}', averaged weights without names; taking those under 'model'" in caplog.text


def test_nothing_is_told_of_other_tensors_beside_a_wrapper(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read({"model": OTHER, "mean": torch.zeros(3), "ema": {"decay": 0.9, "steps": [1, 2]}}, tmp_path / "a.pth")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            {"model": OTHER, "generator": AVERAGED},
            r"weights under 'model' and 'generator'\. Choose with --prefix model\.",
        ),
        ({"ema": OTHER, "swa": AVERAGED}, r"weights under 'ema' and 'swa'\. Choose with --prefix ema\."),
        (
            {**under("student.", OTHER), **under("generator.", AVERAGED)},
            r"several networks, under student\., generator\.\. Choose with --prefix student\.",
        ),
        (
            {**under("ema.", OTHER), **under("swa.", AVERAGED)},
            r"several networks, under ema\., swa\.\. Choose with --prefix ema\.",
        ),
        (
            {**under("sr.", AVERAGED), "denoiser.conv.weight": torch.zeros(3, 3, 3, 3)},
            r"under sr\. are those of a known network, but there are others under denoiser\.\. .*--prefix sr\.",
        ),
    ],
)
def test_what_could_be_several_networks_is_refused(content: State, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read(content, tmp_path / "a.pth")
    chosen = "generator" if "generator" in str(content.keys()) else next(key.partition(".")[0] for key in content)
    part = read(content, tmp_path / "a.pth", prefix=f"{chosen}.")
    assert holds(part, AVERAGED if chosen in ("generator", "sr") else OTHER)


@pytest.mark.parametrize(
    ("name", "prefix", "wanted"),
    [
        ("generator and its average", "generator.", OTHER),
        ("generator and its average", "state_dict.generator", OTHER),
        ("generator and its average", "generator_ema.", AVERAGED),
        ("state_dict_ema", "state_dict.", OTHER),
        ("averages of distributed training", "params_ema.", AVERAGED),
        ("averages of distributed training", "params_ema.module", AVERAGED),
        ("gan in a module", "model.net_g.", AVERAGED),
    ],
)
def test_a_prefix_settles_it(name: str, prefix: str, wanted: State, tmp_path: Path) -> None:
    assert holds(read(WRAPPED[name](AVERAGED), tmp_path / "a.pth", prefix=prefix), wanted)


def test_a_prefix_in_safetensors(tmp_path: Path) -> None:
    save_file({**under("a.", OTHER), **under("b.", AVERAGED)}, tmp_path / "a.safetensors")
    assert holds(load_teacher(tmp_path / "a.safetensors", prefix="b.", probe=False), AVERAGED)


def test_a_prefix_of_nothing_or_of_several(tmp_path: Path) -> None:
    content = {"a": under("generator.", OTHER), "b": under("generator.", AVERAGED), "epoch": 3}
    with pytest.raises(InvalidInput, match=r"--prefix net\. begins no key; what begins them is a\., b\."):
        read(content, tmp_path / "a.pth", prefix="net")
    with pytest.raises(InvalidInput, match=r"--prefix generator\. could be a\.generator\., b\.generator\."):
        read(content, tmp_path / "a.pth", prefix="generator")
    assert holds(read(content, tmp_path / "a.pth", prefix="b.generator."), AVERAGED)


def test_a_prefix_where_there_are_no_keys(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"holds a whole network\. Leave --prefix out"):
        read_teacher(tmp_path / "a.pth", prefix="a.", allow_pickle=True)
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(InvalidInput, match=r"holds the network itself\. Leave --prefix out"):
        read_teacher(tmp_path / "a.onnx", prefix="a.")


def test_a_prefix_takes_one_whole_network_of_several(tmp_path: Path) -> None:
    modules = {"model": nn.Conv2d(3, 3, 1), "generator": nn.DataParallel(nn.Conv2d(3, 3, 3, padding=1))}
    torch.save(modules, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"under 'model' and 'generator'\. Choose with --prefix model\."):
        read_teacher(tmp_path / "a.pth", allow_pickle=True, probe=False)
    taken = load_teacher(tmp_path / "a.pth", prefix="generator.", allow_pickle=True, probe=False)
    assert isinstance(taken, nn.Conv2d) and taken.kernel_size == (3, 3)


class Shifting(nn.DataParallel):  # type: ignore[type-arg]
    """Computes something of its own around what it shares out."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x - 0.5) + 0.5


def double(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output * 2


def hooked() -> nn.Module:
    network = nn.DataParallel(UserNetwork())
    network.register_forward_hook(double)
    return network


@pytest.mark.parametrize("wrap", [lambda network: network, lambda network: {"model": network, "epoch": 3}])
@pytest.mark.parametrize("make", [lambda: Shifting(UserNetwork()), hooked])
def test_what_a_wrapper_computes_itself_is_not_taken_off(
    make: Callable[[], nn.Module], wrap: Callable[[nn.Module], object], tmp_path: Path
) -> None:
    network, image = make().eval(), torch.rand(1, 1, 5, 4)
    torch.save(wrap(network), tmp_path / "a.pth")
    prefixes = [""] if isinstance(wrap(network), nn.Module) else ["", "model"]
    for prefix in prefixes:
        taken = load_teacher(tmp_path / "a.pth", prefix=prefix, allow_pickle=True, probe=False)
        with torch.no_grad():
            assert type(taken) is type(network) and torch.equal(taken(image), network(image))


def test_a_choice_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = torch.load(SHIPPED, weights_only=True)
    torch.save({**under("generator.", trained), **under("generator_ema.", trained)}, tmp_path / "a.pth")
    read_teacher(tmp_path / "a.pth")  # which tries more than one reading
    assert caplog.text.count("taking the averaged weights") == 1


def test_weights_among_something_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="under 'history' it holds a list among the weights"):
        read({**AVERAGED, "history": [1, 2]}, tmp_path / "a.pth")


def test_a_part_of_another_network_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there are others under after"):
        read({**under("first.", AVERAGED), "after.weight": torch.zeros(3, 3, 1, 1)}, tmp_path / "a.pth")


def test_a_counter_that_the_network_has_itself_is_kept(tmp_path: Path) -> None:
    network = UserNetwork(3)
    network.register_buffer("steps", torch.tensor(5))
    read_back = read(under("net.", network.state_dict()), tmp_path / "a.pth", arch="helpers.user_code:counting")
    assert read_back.get_buffer("steps") == 5


@pytest.mark.parametrize("depth", [50, 5000])
def test_wrappers_without_end(depth: int, tmp_path: Path) -> None:
    key = "a." * depth + "head.0.weight"
    state = {key: torch.zeros(1)} | {"a." * i + f"b{i}.weight": torch.zeros(1) for i in range(0, depth, 7)}
    with pytest.raises(InvalidInput, match="are not those of"):
        read(state, tmp_path / "a.pth")
    nested: object = AVERAGED
    for _ in range(min(depth, 100)):
        nested = {"model": nested}
    with pytest.raises(InvalidInput, match="no state dict in it"):
        read(nested, tmp_path / "b.pth")


@pytest.mark.parametrize("content", [{1: {"w": 0}, "1": {"w": 1}}, {"1": {"w": 0}, "1.w": 1}])
def test_two_tensors_of_one_name_are_refused(content: dict[Any, Any], tmp_path: Path) -> None:
    """The later one was taken."""
    tensors = {
        key: torch.ones(3) * value if isinstance(value, int) else {"w": torch.ones(3) * value["w"]}
        for key, value in content.items()
    }
    with pytest.raises(InvalidInput, match=r"it holds two tensors called 1\.w"):
        read(tensors, tmp_path / "a.pth", prefix="1")

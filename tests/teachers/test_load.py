"""Files of every kind a teacher may come in, and of many it may not."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from helpers.user_code import Forgiving, Keeping, Renaming, UserNetwork, versioned, with_weight_norm
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from memsr_compiler import check_equivalence, compile_to_plain
from memsr_compiler.errors import InvalidInput, RefusedPickle, UnsupportedModel
from memsr_compiler.teachers import pickle_scan, pt2
from memsr_compiler.teachers.families.registry import find_family
from memsr_compiler.teachers.families.vdsr import VDSR
from memsr_compiler.teachers.load import load_teacher, read_teacher
from memsr_compiler.teachers.state_dict import load_strictly
from memsr_compiler.trace.onnx import reader


def small() -> VDSR:
    torch.manual_seed(1)
    return VDSR(blocks=2, channels=4).eval()


def same(left: nn.Module, right: nn.Module) -> bool:
    image = torch.rand(1, 1, 7, 9)
    with torch.no_grad():
        return torch.equal(left(image), right(image))


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, (f"open({str(self.trace)!r}, 'w').close()",)


# --- state dicts


@pytest.mark.parametrize("legacy", [False, True])
def test_both_formats_of_torch_save(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "teacher.bin"  # the content decides, not the suffix
    state = small().state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    loaded = read_teacher(path)
    assert same(loaded.module, small())
    assert loaded.path == path
    assert len(loaded.sha256) == 64
    assert not loaded.module.training
    assert loaded.hyper == {"blocks": 2, "channels": 4, "colours": 1}


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", "model", "net", "generator"])
def test_wrapped_state_dicts(key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, key: small().state_dict()}, tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth"), small())
    assert f"under {key!r}" in caplog.text


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    zeros = {key: torch.zeros_like(value) for key, value in small().state_dict().items()}
    torch.save({"params": zeros, "params_ema": small().state_dict()}, tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth"), small())


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.generator."])
def test_common_prefixes_are_stripped(prefix: str, tmp_path: Path) -> None:
    torch.save({prefix + key: value for key, value in small().state_dict().items()}, tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth"), small())


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"])
def test_what_tools_put_between_modules_is_passed_over(wrapper: str, tmp_path: Path) -> None:
    """torch.compile, checkpointed activations and FSDP around an inner module; thop's counts."""
    state = {key.replace(".conv.", f".{wrapper}.conv."): value for key, value in small().state_dict().items()}
    assert len(state.keys() & small().state_dict().keys()) < len(state)
    counts = {"total_ops": torch.ones(1, dtype=torch.float64), "head.0.total_params": torch.ones(1)}
    torch.save({**state, **counts}, tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth"), small())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_floating_types_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({key: value.to(dtype) for key, value in small().state_dict().items()}, tmp_path / "a.pth")
    assert {parameter.dtype for parameter in load_teacher(tmp_path / "a.pth").parameters()} == {torch.float32}


def test_float8_where_a_dialect_computes_with_the_weights(tmp_path: Path) -> None:
    """EDSR's mean shift is divided by the range, and torch divides no float8."""
    state = dict(find_family("edsr").build(scale=2, blocks=1, channels=4).state_dict())
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        state[f"{name}.weight"] = torch.eye(3)[:, :, None, None]
        state[f"{name}.bias"] = sign * 255 * torch.tensor([0.4488, 0.4371, 0.4040])
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        narrow = {key: value.to(dtype) for key, value in state.items()}
        torch.save(narrow, tmp_path / "narrow.pth")
        torch.save({key: value.float() for key, value in narrow.items()}, tmp_path / "wide.pth")
        read, same = (read_teacher(tmp_path / f"{name}.pth", probe=False) for name in ("narrow", "wide"))
        assert same.module.state_dict().keys() == read.module.state_dict().keys()
        x = torch.rand(1, 3, 5, 4)
        assert torch.equal(read.module(x), same.module(x))


def test_old_batch_normalisation_lacks_a_counter(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
    state = {key: value for key, value in module.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "a.pth")
    assert load_teacher(tmp_path / "a.pth", arch="helpers.user_code:with_norm").state_dict().keys() > state.keys()


def test_safetensors(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.bin")
    assert same(load_teacher(tmp_path / "a.bin"), small())


@pytest.mark.parametrize("first", [0x80, 0x08, 0x50])  # as pickles begin, ONNX files and zip archives
def test_safetensors_whose_header_has_any_length(first: int, tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end] + b" " * ((first - (end - 8)) % 256)
    assert len(header) % 256 == first
    (tmp_path / "a.bin").write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    assert same(load_teacher(tmp_path / "a.bin"), small())


def test_safetensors_whose_metadata_are_null(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = b'{"__metadata__":null,' + data[9:end]
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    assert same(load_teacher(tmp_path / "a.safetensors"), small())


def test_a_plain_network_is_no_teacher(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.safetensors", metadata={"memsr_format": "1"})
    with pytest.raises(InvalidInput, match="is a plain network, not a teacher"):
        read_teacher(tmp_path / "a.safetensors")


# --- the network that goes with them


def test_a_family_can_be_named_and_its_arguments_overridden(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth", arch="vdsr"), small())
    with pytest.raises(InvalidInput, match=r"do not fit vdsr: missing residual_layer\.2\.conv\.weight\. Check"):
        read_teacher(tmp_path / "a.pth", arch_args={"blocks": 3})
    with pytest.raises(InvalidInput, match=r"not all, those of edsr\."):
        read_teacher(tmp_path / "a.pth", arch="edsr")
    with pytest.raises(InvalidInput, match=r"do not fit rdn: missing .* more\."):
        read_teacher(tmp_path / "a.pth", arch="rdn", arch_args={"scale": 2})
    with pytest.raises(InvalidInput, match="unexpected keyword argument 'depth'"):
        read_teacher(tmp_path / "a.pth", arch_args={"depth": 3})


def test_the_users_code_builds_the_network(tmp_path: Path) -> None:
    network = UserNetwork(5).eval()
    torch.save({"module." + key: value for key, value in network.state_dict().items()}, tmp_path / "a.pth")
    loaded = read_teacher(tmp_path / "a.pth", arch="helpers.user_code:UserNetwork", arch_args={"width": 5})
    assert same(loaded.module, network)
    assert (loaded.family, loaded.input_range, loaded.hyper) == ("", (0.0, 1.0), {"width": 5})


@pytest.mark.parametrize(
    ("arch", "options", "reason"),
    [
        ("no.such.package:factory", {}, "No module named 'no'"),
        ("helpers.user_code:missing", {}, r"no attribute 'missing'\)\. Check the name, and that file"),
        ("helpers.user_code:on_meta", {}, r"only\.weight, .* is on the device 'meta', which holds no numbers"),
        ("helpers.user_code:__name__", {}, "is a str, not something to call"),
        ("helpers.user_code:not_a_network", {}, r"returned a int, not a torch\.nn\.Module"),
        ("helpers.user_code:UserNetwork", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("helpers.user_code:UserNetwork", {"width": "x"}, "does not build"),
        (
            "helpers.user_code:UserNetwork",
            {"width": 2},
            r"only\.weight is \(5, 1, 3, 3\) in the file, \(2, 1, 3, 3\)",
        ),
        ("resnet", {}, "no such family"),
    ],
)
def test_code_that_does_not_fit(arch: str, options: dict[str, object], reason: str, tmp_path: Path) -> None:
    torch.save(UserNetwork(5).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=reason):
        read_teacher(tmp_path / "a.pth", arch=arch, arch_args=options)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("kind", "name"), [(Renaming, "first"), (Forgiving, "conv"), (Forgiving, "only")])
def test_the_users_code_may_rename_weights(kind: type[UserNetwork], name: str, prefix: str, tmp_path: Path) -> None:
    network = kind().eval()
    state = {prefix + key.replace("only", name): tensor for key, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth", arch=f"helpers.user_code:{kind.__name__}"), network)


def _compiled(network: nn.Module) -> nn.Module:
    wrapper = nn.Module()
    wrapper._orig_mod = network
    return wrapper


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda network: network.state_dict(), ""),
        (lambda network: {"params": network.state_dict(), "epoch": 3}, ""),
        (lambda network: nn.Sequential(OrderedDict(module=network)).state_dict(), ""),
        (lambda network: _compiled(network).state_dict(), ""),
        (lambda network: {"params": nn.Sequential(OrderedDict(g=network)).state_dict()}, "params.g"),
        (lambda network: nn.ModuleDict({"generator": network, "critic": UserNetwork()}).state_dict(), ""),
    ],
    ids=["state dict", "params", "prefix", "compiled", "told", "generator"],
)
def test_the_users_code_hears_of_which_version_weights_are(
    wrap: Callable[[nn.Module], dict[str, Tensor]], prefix: str, version: int, tmp_path: Path
) -> None:
    """As torch tells it, beside the weights; without it they were taken for those of the first one."""
    network = versioned()
    state = wrap(network)
    for notes in (getattr(part, "_metadata", {}) for part in (state, state.get("params"))):
        notes.update({name: {"version": version} for name in notes})
    torch.save(state, tmp_path / "a.pth")
    loaded = load_teacher(tmp_path / "a.pth", arch="helpers.user_code:versioned", prefix=prefix)
    assert [weight.max().item() for weight in loaded.state_dict().values()] == [version / 2, version / 2]


@pytest.mark.parametrize("notes", [3, {"": 3}, {5: {}}])
def test_notes_on_weights_that_are_none_are_nothing(notes: object, tmp_path: Path) -> None:
    state = UserNetwork().state_dict()
    setattr(state, "_metadata", notes)  # noqa: B010
    torch.save(state, tmp_path / "a.pth")
    assert load_teacher(tmp_path / "a.pth", arch="helpers.user_code:UserNetwork") is not None


def test_weights_that_torch_computes_from_others_have_two_names(tmp_path: Path) -> None:
    network = with_weight_norm().eval()
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = dict(network.state_dict())
    for new, old in names.items():
        state[f"only.{old}"] = state.pop(f"only.{new}")
    torch.save(state, tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth", arch="helpers.user_code:with_weight_norm"), network)


def test_tensors_besides_the_weights_are_given_to_the_users_code(tmp_path: Path) -> None:
    network = Keeping().eval()
    network.factors = [2.0, 3.0]
    torch.save(network.state_dict(), tmp_path / "a.pth")
    assert same(load_teacher(tmp_path / "a.pth", arch="helpers.user_code:Keeping"), network)


@pytest.mark.parametrize("number", [None, 3])
def test_what_modules_keep_besides_tensors_is_told(number: int | None, tmp_path: Path) -> None:
    state = Keeping(plain=True).state_dict()
    if number is not None:
        state["_extra_state"] = number
    torch.save(state, tmp_path / "a.pth")
    told = (
        r"_extra_state: get_extra_state\(\) gives a dict there, not a tensor.* is not read from files\. Load it in Pyt"
    )
    with pytest.raises(InvalidInput, match=told):
        load_teacher(tmp_path / "a.pth", arch="helpers.user_code:Keeping", arch_args={"plain": True})


@pytest.mark.parametrize(
    ("kind", "entry", "reason"),
    [
        (Renaming, {"first.weight": torch.ones(5, 1, 3, 3)}, r"size mismatch for only\.weight.*\[5, 1, 3, 3\]"),
        (Renaming, {"other.weight": torch.ones(3, 1, 3, 3)}, r'Unexpected key\(s\) in state_dict: "other\.weight"'),
        (Renaming, {"first.weight": torch.ones(3, 1, 3, 3).char()}, r"unexpected first\.weight, which is torch\.int8"),
        (Forgiving, {"other.weight": torch.ones(3, 1, 3, 3)}, r"load_state_dict\(\) leaves only\.weight as it was"),
    ],
)
def test_what_the_users_code_does_not_load(
    kind: type[UserNetwork], entry: dict[str, Tensor], reason: str, tmp_path: Path
) -> None:
    torch.save({"only.bias": torch.ones(3)} | entry, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=reason):
        read_teacher(tmp_path / "a.pth", arch=f"helpers.user_code:{kind.__name__}")


def test_the_users_code_may_load_weights_that_are_whole_numbers() -> None:
    network, loaded = Forgiving(), Forgiving()
    for each in (network, loaded):
        each.order = nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False)
    load_strictly(loaded, network.state_dict(), "network")
    assert same(loaded, network)


def test_a_state_dict_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    torch.save(UserNetwork().state_dict(), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"its state_dict\(\) fails \(.*has no attribute 'absent'\)"):
        read_teacher(tmp_path / "a.pth", arch="helpers.user_code:without_state")


def test_unknown_keys_name_the_ways_out(tmp_path: Path) -> None:
    torch.save(UserNetwork().state_dict(), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"only\.weight.*are not those of edsr.*package\.module:factory"):
        read_teacher(tmp_path / "a.pth")


def test_what_almost_fits_is_told_the_misfit(tmp_path: Path) -> None:
    """Also where the key is missing by which a family is recognised."""
    path = tmp_path / "a.pth"
    edsr = find_family("edsr").build(scale=2, blocks=3, channels=4).state_dict()
    carn = find_family("carn").build(scale=2, channels=4).state_dict()
    for state, change, reason in (
        (edsr, {"tail.1.bias": None}, r"do not fit edsr: missing tail\.1\.bias\. "),
        (edsr, {"extra.weight": torch.ones(1)}, r"do not fit edsr: unexpected extra\.weight\. "),
        (edsr, {"tail.1.weight": torch.ones(3, 5, 3, 3)}, r"tail\.1\.weight is \(3, 5, 3, 3\) in the file, \(3, 4"),
        (edsr, {"head.0.weight": None}, r"nearest is edsr: missing head\.0\.weight\)"),
        (carn, {"entry.weight": None, "more.bias": torch.ones(1)}, r"missing entry\.weight; unexpected more\.bias\)"),
    ):
        almost = {key: value for key, value in {**state, **change}.items() if value is not None}
        torch.save({f"generator.{key}": value for key, value in almost.items()}, path)
        with pytest.raises(InvalidInput, match=reason):
            read_teacher(path)
    with pytest.raises(InvalidInput, match=r"those of carn \(nearest is carn: missing entry\.weight; .*--arch-args"):
        read_teacher(path, arch="carn")


def test_quantised_integers_are_not_weights(tmp_path: Path) -> None:
    torch.save({key: value.to(torch.int8) for key, value in small().state_dict().items()}, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"input\.weight is torch\.int8 in the file, torch\.float32"):
        read_teacher(tmp_path / "a.pth")


# --- weights that are not what they seem


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    state = small().state_dict()
    state["output.weight"][0, 0, 1, 1] = value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"output\.weight: holds NaN or infinite"):
        read_teacher(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_small_file_that_declares_terabytes(legacy: bool, tmp_path: Path) -> None:
    state = {**small().state_dict(), "output.weight": torch.zeros(1).expand(10**6, 10**6)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert (tmp_path / "a.pth").stat().st_size < 10_000
    with pytest.raises(InvalidInput, match=r"output\.weight: declares 4,000,000,000,000 bytes"):
        read_teacher(tmp_path / "a.pth")


def test_one_tensor_under_very_many_names(tmp_path: Path) -> None:
    tensor = torch.rand(64, 64, 3, 3)
    state = {f"residual_layer.{i}.conv.weight": tensor for i in range(1500)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=r"declares .* bytes"):
        read_teacher(tmp_path / "a.pth")


def test_weight_sharing_is_no_reason_to_refuse(tmp_path: Path) -> None:
    state = small().state_dict()
    state["residual_layer.1.conv.weight"] = state["residual_layer.0.conv.weight"]
    torch.save(state, tmp_path / "a.pth")
    assert load_teacher(tmp_path / "a.pth").state_dict().keys() == state.keys()


def test_a_zip_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(5_000_000))
    with pytest.raises(InvalidInput, match="unpacks to far more"):
        read_teacher(tmp_path / "a.pth")


def test_sparse_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(InvalidInput):
        read_teacher(tmp_path / "a.pth")


# --- pickles


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("key", ["state_dict", "epoch"])
def test_a_malicious_pickle_is_not_executed(legacy: bool, protocol: int, key: str, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    torch.save(
        {"params": small().state_dict(), key: Bomb(trace)},
        tmp_path / "a.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(RefusedPickle, match=r"a\.pth: .*import (__builtin__|builtins)\.exec.*--allow-pickle"):
        read_teacher(tmp_path / "a.pth")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_pickle_that_torch_did_not_write(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Bomb(trace), protocol=protocol))
    for allow in (False, True):  # torch.load would run it first, and refuse it then
        with pytest.raises(InvalidInput, match=r"pickle that torch\.save did not write|no format known|truncated"):
            read_teacher(tmp_path / "a.pt", allow_pickle=allow)
        assert not trace.exists()


def test_arrays_in_a_pickle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"conv.weight": torch.ones(3).numpy()}))
    with pytest.raises(InvalidInput, match=r"a\.pkl: is a pickle that torch\.save did not write.*save its arrays"):
        read_teacher(tmp_path / "a.pkl")


def test_a_bomb_behind_harmless_pickles(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    magic = pickle.dumps(pickle_scan.LEGACY_MAGIC, protocol=2)
    content = magic + pickle.dumps(1001, protocol=2) + pickle.dumps(Bomb(trace), protocol=2)
    (tmp_path / "a.pt").write_bytes(content + pickle.dumps({}) + pickle.dumps([]))
    with pytest.raises(RefusedPickle, match="exec"):
        read_teacher(tmp_path / "a.pt")
    assert not trace.exists()


def test_a_whole_module_is_refused_and_loaded_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"model": nn.DataParallel(small())}, tmp_path / "a.pth")
    with pytest.raises(RefusedPickle, match=r"memsr_compiler\.teachers\.families\.vdsr\.ConvReLU"):
        read_teacher(tmp_path / "a.pth")
    loaded = read_teacher(tmp_path / "a.pth", allow_pickle=True)
    assert same(loaded.module, small())
    assert (loaded.family, loaded.assumed) == ("", ("input values 0 to 1",))
    assert "executing a pickle that imports" in caplog.text
    assert "memsr_compiler.teachers.families.vdsr.VDSR" in caplog.text


@pytest.mark.parametrize("legacy", [False, True])
def test_a_protocol_that_only_the_unsafe_reader_knows(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(small().state_dict(), path, pickle_protocol=4, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RefusedPickle, match=r"another protocol than 2\. Save it again"):
        read_teacher(path)
    assert same(load_teacher(path, allow_pickle=True), small())


def test_a_module_whose_class_is_missing(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "a.pth", pickle_protocol=2, _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes().replace(b"families.vdsr\nVDSR", b"families.vdsr\nNONE")
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"needs code that is not installed.*NONE.*PYTHONPATH"):
        read_teacher(tmp_path / "a.pth", allow_pickle=True)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"cos\nsystem\n.", {"os.system"}),
        (b"(S'ls'\nios\nsystem\n.", {"os.system"}),
        (b"\x8c\x02os\x8c\x06system\x93.", {"os.system"}),
        (b"\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.", {"os.system"}),
        (b"X\x02\x00\x00\x00osq\x05X\x06\x00\x00\x00systemq\x07h\x05h\x07\x93.", {"os.system"}),
        # A name that other opcodes computed, or that a memo entry of unknown content stands for.
        (b"\x8c\x0bcollections\x8c\x0bOrderedDict\x85\x94h\x00\x93.", {"OrderedDict.(computed)"}),
        (b"\x8c\x02os\x8c\x06system\x8c\x01x0\x93.", {"(computed).(computed)"}),
        (b"\x8c\x02os\x8c\x06systemN0\x93.", {"(computed).(computed)"}),
        (b"\x82\x07.", {"(copyreg extension 7).(computed)"}),
    ],
)
def test_imports_are_found_without_executing(program: bytes, expected: set[str]) -> None:
    found = pickle_scan.imports(io.BytesIO(program))
    assert found == expected or (len(found) == 1 and "(computed)" in next(iter(found)))
    assert not found & pickle_scan.WEIGHTS


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(NESTED, st.integers(0, 5))
def test_plain_data_imports_nothing(value: object, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(value, protocol=protocol) + b"rest")
    # Protocols below 3 write bytes as a call of _codecs.encode.
    assert pickle_scan.imports(stream) <= {"_codecs.encode", "__builtin__.bytes"}
    assert stream.read() == b"rest"


@settings(max_examples=50, deadline=None)
@given(NESTED, NESTED, st.integers(0, 5))
def test_an_import_is_found_wherever_it_hides(before: object, after: object, protocol: int) -> None:
    program = pickle.dumps([before, OrderedDict(), exec, after], protocol=protocol)
    found = pickle_scan.imports(io.BytesIO(program))
    assert found & {"builtins.exec", "__builtin__.exec"}
    assert "collections.OrderedDict" in found


# --- files that are no teachers


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"some text, and more of it\n", "in no format known here"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "in no format known here"),
        (b"\x80", "truncated or damaged"),
        (b"\x80\x02}q\x00", "truncated or damaged"),
        (b"PK\x03\x04 and nothing else", "truncated or damaged"),
        (bytes(257) + b"ustar" + bytes(300), "tar archive"),
        (b"0123456789abcdef" * 4 + b"PK\x03\x04", "is the state of a run of memsrc, which --resume reads"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{}", "truncated or damaged safetensors"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{", "truncated or damaged safetensors"),
        (b"\x03\x00\x00\x00\x00\x00\x00\x00{]}", "truncated or damaged"),
    ],
)
def test_files_that_are_no_teachers(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InvalidInput, match=f"a.pt: .*{reason}") as caught:
        read_teacher(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_parts(tmp_path: Path) -> None:
    """As torch.distributed.checkpoint, FSDP and accelerate leave one."""
    (tmp_path / ".metadata").write_bytes(b"\x80")
    (tmp_path / "__0_0.distcp").write_bytes(b"PK\x03\x04")
    for path in (tmp_path, tmp_path / "__0_0.distcp"):
        with pytest.raises(InvalidInput, match=r"torch\.distributed.*dcp_to_torch FOLDER teacher\.pt"):
            read_teacher(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a directory"):
        read_teacher(tmp_path)
    with pytest.raises(InvalidInput, match="No such file"):
        read_teacher(tmp_path / "missing.pt")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)], torch.ones(1), {"model": {"lr": 0.1}}])
def test_checkpoints_without_weights(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InvalidInput, match=r"Save network\.state_dict\(\)"):
        read_teacher(tmp_path / "a.pt")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InvalidInput, match=r"zip archive of something else \(readme\.txt\)"):
        read_teacher(tmp_path / "a.pth")


def test_an_archive_of_an_old_torch(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(InvalidInput, match=r"PyTorch 2\.7 or older\. Export the network again"):
        read_teacher(tmp_path / "a.pt2")


def test_onnx_is_left_to_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "load_onnx", lambda path: small().train())
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08")
    loaded = read_teacher(tmp_path / "a.onnx")
    assert same(loaded.module, small())
    assert not loaded.module.training
    assert loaded.family == ""


def test_torchscript_names_the_way_out(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, by a category that depends on the version
        torch.jit.save(torch.jit.script(small()), tmp_path / "a.pt")
    with pytest.raises(InvalidInput, match=r"TorchScript.*state_dict\(\).*torch\.onnx"):
        read_teacher(tmp_path / "a.pt")


def save_bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


CHECKPOINTS = [
    save_bytes(lambda stream: torch.save(small().state_dict(), stream)),
    save_bytes(lambda stream: torch.save(small().state_dict(), stream, _use_new_zipfile_serialization=False)),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CHECKPOINTS), st.data())
def test_damage_is_reported_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.pt"
    end = data.draw(st.integers(0, len(content)))
    flips = data.draw(st.dictionaries(st.integers(0, len(content) - 1), st.integers(0, 255), max_size=3))
    damaged = bytearray(content)
    for index, value in flips.items():
        damaged[index] = value
    path.write_bytes(bytes(damaged[:end]) if data.draw(st.booleans()) else bytes(damaged))
    try:
        read_teacher(path)
    except InvalidInput as error:
        assert str(error).startswith(str(path))  # noqa: PT017


# --- .pt2


class Tiny(nn.Module):
    """A skip, a nearest-neighbour enlargement, a buffer and a constant: what an archive can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.gain: torch.Tensor
        self.register_buffer("gain", torch.full((1,), 2.0))
        self.offset = torch.tensor([0.25])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x twice as large."""
        enlarged = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return enlarged + nn.functional.pixel_shuffle(self.conv(x), 2) * self.gain + self.offset


@pytest.fixture(scope="module")
def archive() -> bytes:
    """Tiny, exported with free batch, height and width."""
    torch.manual_seed(2)
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(Tiny().eval(), (torch.rand(2, 1, 6, 7),), dynamic_shapes=(free,))
    return save_bytes(lambda stream: torch.export.save(program, stream))


def edit_archive(data: bytes, edit: Callable[[dict[str, bytes]], None]) -> bytes:
    """The archive with its members changed by `edit`, by their names without the top folder."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    edit(members)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in members.items():
            target.writestr(f"archive/{name}", content)
    return stream.getvalue()


def replace_text(record: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    """An edit of one JSON record as text; `old` has to be there."""

    def edit(members: dict[str, bytes]) -> None:
        text = members[record].decode()
        assert old in text
        members[record] = text.replace(old, new, 1).encode()

    return edit


def bomb(trace: Path) -> bytes:
    return save_bytes(lambda stream: torch.save((Bomb(trace),), stream))


def code(trace: Path) -> str:
    return f"exec(\\\"open('{trace}', 'w').close()\\\")"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_an_export_with_sizes_that_torch_is_to_find(tmp_path: Path) -> None:
    """It leaves an attribute in the sample image, for which torch stores it by another function."""
    network, sides = Tiny().eval(), {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(network, (torch.rand(1, 1, 8, 10),), dynamic_shapes=(sides,))
    torch.export.save(exported, tmp_path / "a.pt2")
    image = torch.rand(1, 1, 5, 6)
    with torch.no_grad():
        assert torch.allclose(read_teacher(tmp_path / "a.pt2").module(image), network(image), atol=1e-5)


def test_an_exported_network_runs_at_any_size(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(archive)
    loaded = read_teacher(tmp_path / "a.pt2")
    torch.manual_seed(2)
    teacher, module = Tiny().eval().double(), loaded.module.double()
    for shape in [(2, 1, 6, 7), (1, 1, 5, 4), (3, 1, 9, 3)]:
        image = torch.rand(shape, dtype=torch.float64)
        with torch.no_grad():
            # 10 products of at most 1/3, twice, an image and a constant: 13 roundings of less than 9, in both
            assert torch.allclose(module(image), teacher(image), rtol=0, atol=13 * 9 * torch.finfo(torch.float64).eps)
    assert not any(part.training for part in loaded.module.modules())
    with pytest.raises(InvalidInput, match=r"is pt2, which holds the network itself\. Leave --arch out"):
        read_teacher(tmp_path / "a.pt2", arch="edsr")


def test_rewriting_an_archive_alone_is_no_reason_to_refuse(archive: bytes) -> None:
    assert pt2.suspicions(edit_archive(archive, lambda members: None)) == []


class Collapsible(torch.nn.Module):
    """Two convolutions as one, whose kernel is computed on the way, as SESR has it (arXiv 2103.09404)."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Conv2d(3, 16, 3, bias=False)
        self.narrow = torch.nn.Conv2d(16, 12, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = torch.einsum("om,micd->oicd", self.narrow.weight[:, :, 0, 0], self.wide.weight)
        return torch.pixel_shuffle(torch.conv2d(x, kernel, padding=1), 2)


def test_the_equation_of_an_einsum_is_no_reason_to_refuse(tmp_path: Path) -> None:
    network = Collapsible().eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 9, 8),)), tmp_path / "a.pt2")
    assert pt2.suspicions((tmp_path / "a.pt2").read_bytes()) == []
    x = torch.rand(1, 3, 9, 8)
    torch.testing.assert_close(read_teacher(tmp_path / "a.pt2").module(x), network(x), rtol=0, atol=1e-5)
    for text in ("f(1)", "a'b", "a;b", "a\nb", "a\\b", "[a]"):
        assert list(pt2._json_suspicions({"as_string": text})) == [f"has as_string {text!r}"]


def require_same_by_pt2(network: nn.Module, folder: Path) -> None:
    """The network, exported for images of any size, is read as it is, and is the plain network that is made of it."""
    free = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.export.export(network, (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,))
    torch.export.save(program, folder / "a.pt2")
    teacher = read_teacher(folder / "a.pt2", probe=False)
    x = torch.rand(1, 3, 7, 10)
    torch.testing.assert_close(teacher.module(x), network(x), rtol=0, atol=1e-6)
    check_equivalence(teacher, compile_to_plain(teacher)).require()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pt2_for_one_image_may_reshape_it(tmp_path: Path) -> None:
    """A pixel shuffle by hand has then the number 1 where it keeps the images apart."""

    class Shuffling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            b, _, h, w = y.shape
            return y.reshape(b, 3, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, 3, h * 2, w * 2)

    require_same_by_pt2(Shuffling().eval(), tmp_path)


@pytest.mark.parametrize(
    "cast",
    [
        lambda x, mean: x - mean.to(x),
        lambda x, mean: x.float() - mean,
        lambda x, mean: x.to(torch.float32) - mean.type_as(x),
        lambda x, mean: (x.double() - mean).float(),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_casts_in_a_pt2_are_no_obstacle(cast: Callable[[Tensor, Tensor], Tensor], tmp_path: Path) -> None:
    """torch.export notes the dtype that it met, which no image in float64 has."""

    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)
            self.mean = nn.Buffer(torch.tensor([0.4, 0.3, 0.2]).view(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.pixel_shuffle(self.conv(cast(x, self.mean)), 2)

    require_same_by_pt2(Casting().eval(), tmp_path)


class Frozen(nn.Module):
    """A convolution without gradients, as pretrained parts are called, and one whose weight is stored in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 12, 3, padding=1)
        self.weight = nn.Buffer((self.tail.weight.detach() * 100).round().to(torch.int8))
        self.step = nn.Buffer(torch.tensor(0.01))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.head(x)
        x = torch.conv2d(x.relu(), self.weight.float() * self.step, self.tail.bias, padding=1)
        return torch.pixel_shuffle(x, 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export, about itself
def test_a_pt2_has_parts_without_gradients_and_weights_in_integers(tmp_path: Path) -> None:
    require_same_by_pt2(Frozen().eval(), tmp_path)


class Written(nn.Module):
    """A feature map, and what is the same memory under another name; an activation in place writes into both."""

    def __init__(self, alias: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.alias = alias
        self.head, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        y = y + self.body(nn.functional.leaky_relu(self.alias(y), 0.1, inplace=True))
        return torch.pixel_shuffle(self.tail(y), 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "alias",
    [nn.Dropout(0.1).eval(), nn.Dropout(0.0), lambda y: y.expand_as(y)],
    ids=["dropout", "dropout of nothing", "expand_as"],
)
def test_a_write_in_a_pt2_reaches_every_name_of_its_memory(alias: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    """Some are copies in what torch's run_decompositions() makes of the program, which loses the write."""
    torch.manual_seed(0)
    require_same_by_pt2(Written(alias).eval(), tmp_path)


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (None, "for images of 9x8: read"),
        (256, "for images with height <= 256 and width == 8: read"),
        (8192, "for images with height <= 8192: read"),
        (2**31 - 1, ""),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pt2_for_some_sizes_says_so(
    most: int | None, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where code decides by size, torch asks for such bounds, and the program holds one way alone."""
    free = {2: torch.export.Dim("height", max=most)} if most else None
    if most and most > 256:
        free = {2: torch.export.Dim("height", max=most), 3: torch.export.Dim("width")}
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    program = torch.export.export(network, (torch.rand(1, 3, 9, 8),), dynamic_shapes=(free,) if free else None)
    torch.export.save(program, tmp_path / "a.pt2")
    read_teacher(tmp_path / "a.pt2", probe=False)
    assert words in caplog.text and ("it was exported" in caplog.text) is bool(words)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_autocast_in_a_pt2_is_refused_for_what_it_does(tmp_path: Path) -> None:
    class Autocast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                x = self.conv(x)
            return torch.pixel_shuffle(x.float(), 2)

    torch.export.save(torch.export.export(Autocast().eval(), (torch.rand(1, 3, 9, 8),)), tmp_path / "a.pt2")
    with pytest.raises(UnsupportedModel, match="a cast to bfloat16 rounds values"):
        compile_to_plain(read_teacher(tmp_path / "a.pt2", probe=False))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(12), nn.Dropout(0.5)])
def test_a_pt2_in_training_mode_is_refused_for_what_it_is(layer: nn.Module, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), layer, nn.PixelShuffle(2))
    name = "batch_norm" if isinstance(layer, nn.BatchNorm2d) else "dropout"
    for mode in (True, False):
        exported = torch.export.export(network.train(mode), (torch.rand(1, 3, 9, 8),))
        torch.export.save(exported, tmp_path / f"{mode}.pt2")
    with pytest.raises(InvalidInput, match=rf"exported in training mode, in which {name} .*network\.eval\(\)"):
        read_teacher(tmp_path / "True.pt2", probe=False)
    x = torch.rand(1, 3, 9, 8)
    assert torch.allclose(read_teacher(tmp_path / "False.pt2", probe=False).module(x), network(x), atol=1e-6)


def test_a_pt2_that_drops_nothing_has_no_mode(tmp_path: Path) -> None:
    """F.dropout(x, 0.0) is in training mode by its own default."""

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.dropout(torch.pixel_shuffle(self.conv(x), 2), 0.0, True)

    network = Careful().eval()
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 9, 8),)), tmp_path / "a.pt2")
    x = torch.rand(1, 3, 9, 8)
    assert torch.allclose(read_teacher(tmp_path / "a.pt2", probe=False).module(x), network(x), atol=1e-6)


def add_guard(archive: bytes, guard: str) -> bytes:
    """The archive with a condition on sizes, as torch 2.10 writes them."""

    def edit(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        program["guards_code"] = [guard]
        members["models/model.json"] = json.dumps(program).encode()

    return edit_archive(archive, edit)


def test_conditions_on_sizes_are_no_reason_to_refuse(archive: bytes) -> None:
    for guard in ("3*L['input'].size()[2]*L['input'].size()[3] <= 2147483647", "L['x'].size()[3] != 4 and not (1 > 2)"):
        assert pt2.suspicions(add_guard(archive, guard)) == []
    for guard in (  # of torch 2.13
        "(2*L['x'].size()[3]) == math.trunc(2.0*torch.sym_float(L['x'].size()[3]))",
        "max(1, L['x'].size()[3] // 2) != 1",
    ):
        assert pt2.suspicions(add_guard(archive, guard)) == []
    for guard in (
        "__import__('os')",
        "L['x'].data",
        "L[f()].size()[2]",
        "9**9**9 <= 1",
        "L",
        "L['x'].size()[2]; f",
        "f(1)",
        "max",
        "math.factorial(999999)",
        "1" * 40 + "!",  # as many ways to be read as there are to share its digits out, if it were done so
    ):
        assert pt2.suspicions(add_guard(archive, guard)) == [f"has guards_code {guard!r}"]


@pytest.mark.parametrize(
    ("expression", "harmless"),
    [
        ("Mul(Integer(2), Symbol('s53', positive=True, integer=True))", True),
        ("Pow(Symbol('s53', positive=True, integer=True), Integer(2))", True),
        ("Symbol('s53')**2", True),
        ("Pow(Integer(7), Integer(99999999))*Symbol('s53')", False),
        ("7**99999999*Symbol('s53')", False),
        ("PowByNatural(Integer(9), Integer(999999999))", False),
        ("Pow(Symbol('s53'), Pow(Symbol('s0'), 2))", False),
        ("Pow(Symbol('s53'), 17)", False),
        ("Pow(exp=99999999, b=7)", False),
    ],
)
def test_powers_of_sizes_are_small(expression: str, harmless: bool) -> None:
    """Others are computed while the file is loaded, for minutes."""
    assert pt2._harmless_text("expr_str", expression) is harmless


Edit = Callable[[dict[str, bytes]], None]


def hostile(trace: Path) -> Mapping[str, Edit]:
    """Ways to have code run, or a file written, that torch.export.load or the loaded network would follow."""
    weights, constants = (
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
    )
    model = "models/model.json"

    def add(name: str, content: bytes) -> Edit:
        return lambda members: members.update({name: content})

    def both(first: Edit, second: Edit) -> Edit:
        def edit(members: dict[str, bytes]) -> None:
            first(members)
            second(members)

        return edit

    pickled = replace_text(weights, '"use_pickle": false', '"use_pickle": true')
    opaque = both(
        replace_text(constants, '"tensor_0"', '"opaque_obj_0"'),
        replace_text(constants, '"use_pickle": false', '"use_pickle": true'),
    )
    return {
        "sample inputs": add("data/sample_inputs/model.pt", bomb(trace)),
        "legacy sample inputs": add("data/sample_inputs/model.pt", pickle.dumps(Bomb(trace))),
        "pickled weight": both(pickled, add("data/weights/weight_0", bomb(trace))),
        "pickled constant": both(opaque, add("data/constants/opaque_obj_0", pickle.dumps(Bomb(trace)))),
        "legacy weights": add("data/weights/model.pt", bomb(trace)),
        "compiled code": add("data/aotinductor/model/a.so", b"\x7fELF"),
        "another model": add("models/other.json", b"{}"),
        "size": replace_text(model, "Symbol('", f"{code(trace)} or Symbol('"),
        "attribute": replace_text(model, "torch.ops.aten.add.Tensor", "torch.os.system"),
        "operator": replace_text(model, "torch.ops.aten.add.Tensor", "_operator.methodcaller"),
        "loop": replace_text(model, "torch.ops.aten.add.Tensor", "torch.ops.higher_order.while_loop"),
        "file": replace_text(model, "torch.ops.aten.add.Tensor", "torch.ops.aten.from_file.default"),
        "name": replace_text(model, '"name": "x"', f'"name": "x={code(trace)}"'),
        "key": replace_text(model, '"x": {', f'"x={code(trace)}": {{'),
        "container": replace_text(model, "builtins.dict", "collections.defaultdict"),
        "enumeration": replace_text(
            model,
            '\\"type\\": \\"builtins.tuple\\", \\"context\\": \\"null\\"',
            '\\"type\\": \\"builtins.tuple\\", \\"context\\": \\"{\\\\\\"__enum__\\\\\\": true}\\"',
        ),
        "hidden in metadata": replace_text(model, '"metadata": {', '"metadata": {"x": [{"expr_str": "exec()"}], '),
    }


@pytest.mark.parametrize("name", hostile(Path("trace")))
def test_a_hostile_archive_is_refused(name: str, archive: bytes, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, hostile(trace)[name]))
    with pytest.raises(RefusedPickle, match=r"a\.pt2: loading this .pt2 archive could execute.*--allow-pickle"):
        read_teacher(tmp_path / "a.pt2")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        "sample inputs",
        "pickled weight",
        pytest.param(
            "pickled constant", marks=pytest.mark.skipif(torch.__version__ < "2.13", reason="torch came to it later")
        ),
        "size",
    ],
)
def test_torch_itself_would_have_executed_it(name: str, archive: bytes, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, hostile(trace)[name]))
    with contextlib.suppress(InvalidInput):
        read_teacher(tmp_path / "a.pt2", allow_pickle=True)
    assert trace.exists()


def test_a_zip_bomb_in_an_archive(archive: bytes, tmp_path: Path) -> None:
    """Its sample inputs are an archive within it."""

    def edit(members: dict[str, bytes]) -> None:
        stream, place = io.BytesIO(), "data/sample_inputs/model.pt"
        with zipfile.ZipFile(io.BytesIO(members[place])) as source, zipfile.ZipFile(stream, "w") as target:
            for name in source.namelist():
                large = name.endswith("/data/0")
                kept = bytes(5_000_000) if large else source.read(name)
                target.writestr(name, kept, zipfile.ZIP_DEFLATED if large else zipfile.ZIP_STORED)
        members[place] = stream.getvalue()

    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, edit))
    with pytest.raises(InvalidInput, match="unpacks to far more than weights ever do"):
        read_teacher(tmp_path / "a.pt2")


def test_sizes_that_are_divided_again_and_again(archive: bytes, tmp_path: Path) -> None:
    """Torch looks at each for minutes; a few levels, as networks have them, are read."""

    def edit(members: dict[str, bytes]) -> None:
        text = members["models/model.json"].decode()
        (plain,) = set(
            re.findall(r'"(Symbol\(\'s\d+\', positive=True, integer=True\))", "hint": \{"as_int": 6\}', text)
        )
        deep = plain
        for i in range(depth):
            deep = f"FloorDiv(Add({deep}, Integer(3)), Integer({i + 2}))"
        members["models/model.json"] = text.replace(f'"{plain}"', f'"{deep}"').encode()

    for depth in (6, 60):
        content = edit_archive(archive, edit)
        if depth == 6:
            assert pt2.suspicions(content) == []
            continue
        (tmp_path / "a.pt2").write_bytes(content)
        with pytest.raises(InvalidInput, match="its sizes are divisions within divisions"):
            read_teacher(tmp_path / "a.pt2")


@pytest.mark.parametrize("number", [100_000, 10_000_000, 1 << 40])
def test_an_archive_for_many_images_at_once(number: int, archive: bytes, tmp_path: Path) -> None:
    """It is run on as many as it says that it was made for."""

    def edit(members: dict[str, bytes]) -> None:
        text = members["models/model.json"].decode()
        assert '"hint": {"as_int": 2}' in text
        members["models/model.json"] = text.replace('"as_int": 2}', f'"as_int": {number}}}').encode()

    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, edit))
    with pytest.raises(InvalidInput, match=rf"exported for 1 channel of {number:,} images, and no network takes"):
        read_teacher(tmp_path / "a.pt2")


def test_an_archive_that_declares_more_than_it_stores(archive: bytes, tmp_path: Path) -> None:
    content = edit_archive(archive, lambda members: members.update({"data/weights/weight_0": b""}))
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"conv\.weight: declares 36 numbers, and the file stores 0 bytes"):
        read_teacher(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    ("key", "value", "kind"), [("dtype", 13, "bfloat16 (4, 1, 3, 3)"), ("sizes", [3, 1, 3, 3], "float32 (3, 1, 3, 3)")]
)
def test_weights_that_are_stored_as_others_than_the_program_takes(
    key: str, value: object, kind: str, archive: bytes, tmp_path: Path
) -> None:
    """Their bytes are enough either way, and so would be read as something."""

    def edit(members: dict[str, bytes]) -> None:
        place = "data/weights/model_weights_config.json"
        config = json.loads(members[place])
        meta = config["config"]["conv.weight"]["tensor_meta"]
        meta[key] = [{"as_int": n} for n in value] if isinstance(value, list) else value
        members[place] = json.dumps(config).encode()

    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, edit))
    with pytest.raises(InvalidInput, match=re.escape(f"conv.weight: is stored as {kind}, and the program takes float")):
        read_teacher(tmp_path / "a.pt2")


def test_numbers_of_another_byte_order(archive: bytes, tmp_path: Path) -> None:
    """Torch writes the byte order, and does not look at it."""
    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, lambda members: members.update(byteorder=b"big")))
    with pytest.raises(InvalidInput, match="its byte order is b'big'"):
        read_teacher(tmp_path / "a.pt2")


def test_why_torch_cannot_load_it_is_told_in_one_line(
    archive: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Torch logs the cause with its traceback, and raises an error that says to look there."""
    edit = replace_text("models/model.json", '"major": ', '"major": 9')
    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, edit))
    with pytest.raises(InvalidInput, match=r"cannot load it \(SerializeError: .*version"):
        read_teacher(tmp_path / "a.pt2")
    assert not caplog.records


@pytest.mark.parametrize("record", ["models/model.json", "data/weights/model_weights_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"config": 3}', b'{"config": {"a": {}}}'])
def test_an_incomplete_archive(record: str, content: bytes | None, archive: bytes, tmp_path: Path) -> None:
    def edit(members: dict[str, bytes]) -> None:
        if content is None:
            del members[record]
        else:
            members[record] = content

    (tmp_path / "a.pt2").write_bytes(edit_archive(archive, edit))
    with pytest.raises(InvalidInput):
        read_teacher(tmp_path / "a.pt2")


def test_expressions_of_sizes() -> None:
    def suspicious(text: str) -> bool:
        return bool(list(pt2._json_suspicions({"expr_str": text})))

    harmless = [
        "Symbol('s0', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s1')), Integer(-1))",
        "s0",
    ]
    assert not any(map(suspicious, harmless))
    hostile = [
        "eval('1')",
        "Symbol.__class__",
        "(lambda: 1)()",
        "[x for x in y]",
        "Symbol('a')('b')",
        "f(",
        "x[0]",
    ]
    assert all(map(suspicious, hostile))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"image_skip": "no"}, "--arch compact: image_skip is 'no'; want true or false"),
        ({"image_skip": "off"}, "image_skip is 'off'; want true or false"),
        ({"image_skip": 2}, "image_skip is 2; want true or false"),
        ({"channels": "many"}, "channels is 'many'; want a number, such as "),
    ],
)
def test_arguments_of_another_kind_are_refused(option: dict[str, object], message: str, tmp_path: Path) -> None:
    """A text is true, whatever it says: the opposite network was read."""
    torch.save(find_family("compact").build(scale=2, blocks=1, channels=4).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=message):
        read_teacher(tmp_path / "a.pth", arch="compact", arch_args=option, probe=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"clip": "no"}, "--arch helpers.user_code:with_options: clip is 'no'; want true or false"),
        ({"clip": "Off"}, "clip is 'Off'; want true or false"),
        ({"act": "nope"}, "act is 'nope'; want true or false"),
    ],
)
def test_so_are_those_of_own_code(option: dict[str, object], message: str, tmp_path: Path) -> None:
    torch.save(UserNetwork(5).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match=message):
        read_teacher(tmp_path / "a.pth", arch="helpers.user_code:with_options", arch_args=option, probe=False)


def test_texts_that_may_be_meant_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(UserNetwork(5).state_dict(), tmp_path / "a.pth")
    given = {"clip": "hard", "gain": "2x", "mode": "off", "free": "no", "words": "many"}
    read_teacher(tmp_path / "a.pth", arch="helpers.user_code:with_options", arch_args=given, probe=False)
    assert {line.partition(",")[0].partition(": ")[2] for line in caplog.messages} == {
        "clip is taken as the text 'hard'",
        "gain is taken as the text '2x'",
        "free is taken as the text 'no'",
    }


@pytest.mark.parametrize("kind", ["F4", "F6_E3M2", "F8_E8M0"])
def test_safetensors_of_types_that_torch_has_not_name_tensor_and_type(kind: str, tmp_path: Path) -> None:
    size = 16 if kind == "F8_E8M0" else 16 * int(kind[1]) // 8
    tensors = {"a": ("F32", 0, 64), "body.weight": (kind, 64, 64 + size)}
    told = {n: {"dtype": k, "shape": [4, 4], "data_offsets": [start, end]} for n, (k, start, end) in tensors.items()}
    header = json.dumps({"__metadata__": {"dtype": kind}, **told}).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64 + size))
    with pytest.raises(InvalidInput, match=rf"body\.weight: is stored as {kind}, .* Save the network .* in float32"):
        load_teacher(path)

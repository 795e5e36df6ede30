"""The network of a recognised family holds the file's own tensors, and none of another's memory."""

from __future__ import annotations

import pytest
import torch

from memsr_compiler.errors import InvalidInput
from memsr_compiler.teachers.families.vdsr import FAMILY
from memsr_compiler.teachers.state_dict import assemble, check_tensors


def test_tensors_that_share_memory_become_separate_weights() -> None:
    state = FAMILY.build(blocks=3, channels=4).state_dict()
    keys = [key for key, tensor in state.items() if tensor.shape == (4, 4, 3, 3)]
    assert len(keys) > 1
    state.update(dict.fromkeys(keys, state[keys[0]]))
    network = assemble(state, None, {}).module
    parameters = dict(network.named_parameters())
    assert len({parameters[key].data_ptr() for key in keys}) == len(keys)
    assert all(torch.equal(parameters[key], state[key]) for key in keys)
    assert all(parameter.requires_grad for parameter in parameters.values())


def test_views_of_a_larger_memory_are_copied_out_of_it() -> None:
    state = FAMILY.build(blocks=3, channels=4).state_dict()
    whole = torch.cat([tensor.flatten() for tensor in state.values()])
    parts = torch.split(whole, [tensor.numel() for tensor in state.values()])
    views = {key: part.view(tensor.shape) for (key, tensor), part in zip(state.items(), parts, strict=True)}
    network = assemble(views, None, {}).module
    for key, parameter in network.named_parameters():
        assert torch.equal(parameter, state[key])
        assert parameter.untyped_storage().nbytes() == parameter.numel() * 4
        assert parameter.data_ptr() % 64 == 0


def test_weights_in_another_order_in_memory_are_laid_out_as_torch_does() -> None:
    state = FAMILY.build(blocks=3, channels=4).state_dict()
    kernels = {k: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for k, t in state.items()}
    network = assemble(kernels, None, {}).module
    assert all(p.is_contiguous() and torch.equal(p, state[k]) for k, p in network.named_parameters())


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.full((2,), 1e40, dtype=torch.float64), "w: holds weights too large for float32"),
        (torch.tensor([1.0, float("inf")], dtype=torch.float64), "w: holds NaN or infinite weights"),
        (torch.ones(2, device="meta"), "w: has a shape and no values"),
        (torch.eye(2).to_sparse(), "w: is sparse"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(tensor: torch.Tensor, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_tensors({"w": tensor}, 1000)


def test_two_numbers_in_a_byte_are_no_weights() -> None:
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no float4")
    with pytest.raises(InvalidInput, match=r"w: is stored as torch.float4_e2m1fn_x2, two numbers in a byte"):
        check_tensors({"w": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, 1000)

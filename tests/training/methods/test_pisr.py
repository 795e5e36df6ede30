"""PISR: the auto-encoder first, then a student that begins as its decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.training import require_gradients
from torch import Tensor
from torch.distributions import Laplace

from memsr_compiler.plain.network import PlainNet
from memsr_compiler.training.methods.pisr import AUTO_ENCODER, IMITATION, Encoder, Privileged, laplace_distance
from memsr_compiler.training.starts import no_means


@pytest.fixture
def objective(student: PlainNet) -> Privileged:
    return Privileged(student, weight=0.5, epsilon=1.0, means=no_means(student), seed=0).double()


def batch(seed: int = 2) -> tuple[Tensor, Tensor]:
    """Small images, and two of what is wanted of each."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    return low, torch.rand(2, 2, 3, 8, 10, generator=generator, dtype=torch.float64)


def test_the_distance_is_a_laplace_distributions() -> None:
    """Of torch's own, but for the constant log 2."""
    location, features = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 3, 2, 2, dtype=torch.float64)
    scale = torch.rand(2, 3, 2, 2, dtype=torch.float64) + 0.1
    expected = -Laplace(location, scale).log_prob(features).mean() - np.log(2)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(laplace_distance(location, scale, features), expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_encoder_makes_small_images(scale: int) -> None:
    assert Encoder(3, scale)(torch.rand(1, 3, 5 * scale, 3 * scale)).shape == (1, 3, 5, 3)


def test_first_the_auto_encoder_is_trained(objective: Privileged) -> None:
    low, high = batch()
    total, pixels, imitation = objective(low, high, AUTO_ENCODER - 0.01)
    small = objective.encoder(high[:, 0])
    torch.testing.assert_close(imitation, (small - low).abs().mean())
    torch.testing.assert_close(pixels, (objective.network(small) - high[:, 0]).abs().mean())
    torch.testing.assert_close(total, pixels + IMITATION * imitation)
    total.backward()
    assert all(value.grad is None for value in objective.estimator.parameters())
    assert all(value.grad is not None for value in objective.encoder.parameters())


def test_then_the_student_begins_as_the_decoder_and_follows_it(objective: Privileged) -> None:
    low, high = batch()
    with torch.no_grad():
        objective.biases[0].add_(0.1)  # training moved it
    decoder = objective.settle()
    begun = [layer.weight.detach().clone() for layer in decoder], [layer.bias.detach().clone() for layer in decoder]
    total, pixels, distance = objective(low, high, AUTO_ENCODER)
    small = objective.encoder(high[:, 0])
    theirs, own = small, low
    for layer in list(decoder)[:-1]:
        theirs, own = layer(theirs), layer(own)
    location, scale = objective.estimator(own)
    torch.testing.assert_close(distance, (scale.log() + (theirs - location).abs() / scale).mean())
    torch.testing.assert_close(pixels, (decoder(low)[:, None] - high).abs().mean())
    torch.testing.assert_close(total, pixels + 0.5 * distance)
    total.backward()
    assert all(value.grad is None for value in objective.encoder.parameters())
    with torch.no_grad():  # the student goes on, the decoder stays
        for value in objective.network.parameters():
            value.add_(1.0)
    objective(low, high, 0.9)
    assert all(torch.equal(layer.weight, w) for layer, w in zip(objective.decoder, begun[0], strict=True))
    assert all(torch.equal(layer.bias, b) for layer, b in zip(objective.decoder, begun[1], strict=True))


def test_a_state_knows_its_stage(objective: Privileged, student: PlainNet) -> None:
    low, high = batch()
    objective(low, high, 0.6)
    with torch.no_grad():
        for value in objective.network.parameters():
            value.mul_(1.5)
    other = Privileged(student, weight=0.5, epsilon=1.0, means=no_means(student), seed=3).double()
    other.load_state_dict(objective.state_dict())
    assert all(map(torch.equal, objective(low, high, 0.7), other(low, high, 0.7)))


@pytest.mark.parametrize("share", [0.1, 0.8])
def test_gradients_are_those_of_finite_differences(objective: Privileged, share: float) -> None:
    low, high = batch()
    assert require_gradients(objective, low, high, share=share, all_trained=False) > len(objective.biases)

"""Photographs that a command is given to measure on, or those that ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from memsr_compiler.commands.interface.output import Talk
from memsr_compiler.evaluation.image_sets import ImageSet, calibration_image_set
from memsr_compiler.images.files import NamedImage
from memsr_compiler.images.pairs import read_high
from memsr_compiler.plain.info import Takes
from memsr_compiler.student.calibration_images import photographs_as_inputs, sample_inputs


@dataclass(frozen=True)
class Material:
    """Images that students are derived from, and scored on."""

    calibration: Sequence[Tensor] | None
    photographs: Sequence[NamedImage] | None

    def inputs(self, takes: Takes) -> Sequence[Tensor]:
        """The calibration images as the network is given them; where none were named, those that ship."""
        return self.calibration or sample_inputs(
            scale=takes.scale, channels=takes.channels, input_range=takes.input_range
        )

    def tests(self, takes: Takes) -> ImageSet:
        """The middles of the first photographs."""
        return calibration_image_set(self.photographs, takes.scale)


def read_material(folder: Path | None, takes: Takes, talk: Talk) -> Material:
    """Read the photographs in a folder, if one was named.  Raises InvalidInput if there are none."""
    if folder is None:
        return Material(None, None)
    photographs = read_high(folder, talk.warn)
    inputs = photographs_as_inputs(
        photographs,
        str(folder),
        scale=takes.scale,
        channels=takes.channels,
        input_range=takes.input_range,
        on_skip=talk.warn,
    )
    return Material(inputs, photographs)

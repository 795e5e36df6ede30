"""What networks take and give, as far as images are concerned."""

from __future__ import annotations

from dataclasses import dataclass

from memsr_compiler.errors import InvalidInput


@dataclass(frozen=True)
class Takes:
    """What a network is given and gives back.

    scale        1: it works on an image that bicubic interpolation has enlarged already (SRCNN, VDSR)
    channels     3: RGB; 1: Y of ITU-R BT.601, studio range
    input_range  of its values, input and output alike
    """

    scale: int
    channels: int = 3
    input_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises InvalidInput for a network that does not work on photographs."""
        if self.channels not in (1, 3):
            raise InvalidInput(f"the network takes {self.channels} channels; photographs have 3, or 1 for Y")

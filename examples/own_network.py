"""A network of your own, from an nn.Module to a file that ONNX Runtime runs.

    python examples/own_network.py [FOLDER]

The module below is no family that the package knows.  Its weights are those of the teacher that ships, since it happens
to have the same layers; yours come from `network.load_state_dict(torch.load("my_network.pth"))`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from skimage import data
from torch import Tensor, nn

from memsr_compiler import check_equivalence, compile_to_plain, export_onnx, inspect

HERE = Path(__file__).parent


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.two(torch.relu(self.one(x)))
        return x + change


class MyNetwork(nn.Module):
    def __init__(self, channels: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.after = nn.Conv2d(channels, channels, 3, padding=1)
        self.enlarge = nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        result: Tensor = self.last(self.enlarge(first + self.after(self.blocks(first))))
        return result


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    network = MyNetwork().eval()
    trained = torch.load(HERE / "edsr_8x32_x2.pt", weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), trained, strict=True)))

    print(f"convertible: {inspect(network).convertible}")
    net = compile_to_plain(network)  # input_range=(0, 255) if that is what yours takes
    print(f"{len(net.layers)} layers of {', '.join(map(str, net.widths[:4]))}, ... channels; {net.info.guarantee}")
    print(f"largest difference in float64: {check_equivalence(network, net).require().deviation:.1e}")
    export_onnx(net, folder / "plain.onnx")

    # From here on nothing of this package is needed, nor is torch.
    image = data.astronaut()[:64, 128:256].astype(np.float32) / 255  # (H, W, 3), RGB, 0 to 1
    session = onnxruntime.InferenceSession(folder / "plain.onnx")
    (large,) = session.run(None, {"image": image.transpose(2, 0, 1)[None]})

    with torch.no_grad():
        own = network(torch.from_numpy(image.transpose(2, 0, 1)[None]))
    print(
        f"{large.shape} from ONNX Runtime, at most {np.abs(large - own.numpy()).max():.1e} from your network in torch"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output"))

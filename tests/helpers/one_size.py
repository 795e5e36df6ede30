"""ONNX networks that enlarge by 2 and whose files fix sizes: where nothing needs that, and where something does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from helpers.onnx_files import Shape, model, node, saved, whole

WEIGHTS = {"w": whole(8, 3, 3, 3), "w2": whole(8, 8, 3, 3), "w3": whole(12, 8, 3, 3)}
MILD = {name: value / (3 * np.sqrt(len(value))).astype(np.float32) for name, value in WEIGHTS.items()}
Weights = dict[str, np.ndarray]
SAME: dict[str, Any] = {"pads": [1, 1, 1, 1]}
BODY = [
    node("Conv", "x w", "a", **SAME), node("Relu", "a", "b"), node("Conv", "b w2", "c", **SAME),
    node("Add", "c b", "d"), node("Conv", "d w3", "e", **SAME),
]  # fmt: skip
SHUFFLE = node("DepthToSpace", "e", "y", blocksize=2, mode="CRD")


def by_convolutions(folder: Path, shape: Shape, weights: Weights = WEIGHTS) -> Path:
    return saved(model([*BODY, SHUFFLE], weights, shape=shape), folder)


def by_reshapes(folder: Path, n: int, h: int, w: int, weights: Weights = WEIGHTS) -> Path:
    """The same network at one size; its shuffle is written out."""
    nodes = [
        *BODY,
        node("Reshape", "e six", "f"),
        node("Transpose", "f", "g", perm=[0, 1, 4, 2, 5, 3]),
        node("Reshape", "g four", "y"),
    ]
    sizes = {"six": np.array([n, 3, 2, 2, h, w]), "four": np.array([n, 3, 2 * h, 2 * w])}
    return saved(model(nodes, weights | sizes, shape=(n, 3, h, w)), folder)


def look_everywhere(folder: Path) -> Path:
    """A network that adds the mean of the image, which it computes by a reshape."""
    nodes = [
        *BODY, node("DepthToSpace", "e", "u", blocksize=2, mode="CRD"),
        node("Reshape", "x flat", "r"), node("ReduceMean", "r", "m", axes=[2]),
        node("Reshape", "m four", "t"), node("Add", "u t", "y"),
    ]  # fmt: skip
    sizes = {"flat": np.array([1, 3, 24 * 24]), "four": np.array([1, 3, 1, 1])}
    return saved(model(nodes, WEIGHTS | sizes, shape=(1, 3, 24, 24)), folder)

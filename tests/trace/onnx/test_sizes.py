"""Reshapes of ONNX files, and the sizes that the network computes for them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_files import FREE, SIZES, Shape, agrees, model, node, refuses, saved, whole
from onnx import TensorProto

from memsr_compiler.errors import UnsupportedModel
from memsr_compiler.trace.onnx.reader import load_onnx


def shuffle_by_hand(sizes: str, factor: int = 2) -> list[onnx.NodeProto]:
    """A pixel shuffle as reshape, transpose, reshape; `sizes` gives v6 and v4, the shapes in between."""
    del factor
    return [
        node("Conv", "x w", "c"),
        node("Reshape", f"c {sizes}6", "six", name="/up/Reshape"),
        node("Transpose", "six", "t", perm=[0, 1, 4, 2, 5, 3], name="/up/Transpose"),
        node("Reshape", f"t {sizes}4", "up", name="/up/Reshape_1"),
        node("Conv", "up w2", "y", pads=[1, 1, 1, 1], name="/tail/Conv"),
    ]


SHUFFLED = {"w": whole(12, 3, 1, 1), "w2": whole(3, 3, 3, 3)}


def from_shape(with_batch: bool = True) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """v6 and v4 from the shape of c."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Gather", "s i0", "n", axis=0),
        node("Gather", "s i2", "h", axis=0),
        node("Gather", "s i3", "wd", axis=0),
        node("Mul", "h two", "h2"),
        node("Mul", "wd two", "w2x"),
        node("Unsqueeze", "n a0", "n1"),
        node("Unsqueeze", "h a0", "h1"),
        node("Unsqueeze", "wd a0", "wd1"),
        node("Cast", "h2", "hf", to=TensorProto.FLOAT),
        node("Floor", "hf", "hff"),
        node("Cast", "hff", "hi", to=TensorProto.INT64),
        node("Unsqueeze", "hi a0", "h21"),
        node("Unsqueeze", "w2x a0", "w21"),
        node("Concat", "n1 c322 h1 wd1" if with_batch else "c0 c322 h1 wd1", "v6", axis=0),
        node("Concat", "n1 c3 h21 w21" if with_batch else "m1 c3 h21 w21", "v4", axis=0),
    ]
    weights = {
        "i0": np.array(0), "i2": np.array(2), "i3": np.array(3), "two": np.array(2), "a0": np.array([0]),
        "c322": np.array([3, 2, 2]), "c3": np.array([3]), "m1": np.array([-1]), "c0": np.array([0]),
    }  # fmt: skip
    return nodes, weights


@pytest.mark.parametrize("shape", [FREE, (1, 3, "h", "w"), (None, None, None, None), ("n", 3, 5, 6), (1, 3, 5, 6)])
@pytest.mark.parametrize("with_batch", [True, False])
def test_a_pixel_shuffle_written_by_hand_with_computed_sizes(shape: Shape, with_batch: bool, tmp_path: Path) -> None:
    nodes, weights = from_shape(with_batch)
    nodes = [*nodes, *shuffle_by_hand("v")[1:]]
    path = saved(model(nodes, weights | SHUFFLED, shape=shape), tmp_path)
    sizes = ((5, 6),) if shape[2] == 5 else SIZES
    read = agrees(path, sizes=sizes, batch=1 if shape[0] == 1 else 2)
    assert [type(op).__name__ for op in read.graph] == ["Input", "Conv2d", "PixelShuffle", "Conv2d"]
    if shape[2] == 5:  # any other size than the file's, and any batch
        agrees(saved(model(nodes, weights | SHUFFLED, shape=FREE), tmp_path))
        expected = load_onnx(tmp_path / "network.onnx")
        x = torch.rand(3, 3, 7, 2, dtype=torch.float64)
        assert torch.equal(read(x), expected(x))


@pytest.mark.parametrize(("height", "width"), [(12, 12), (3, 3), (2, 4), (4, 2), (6, 2), (5, 7), (2, 2)])
@pytest.mark.parametrize("blanks", [False, True])
def test_a_file_of_a_fixed_size_is_read_whatever_numbers_coincide(
    height: int, width: int, blanks: bool, tmp_path: Path
) -> None:
    """12, 3 and 2 are also numbers of channels."""
    weights = SHUFFLED | {
        "v6": np.array([0 if blanks else 1, 3, 2, 2, -1 if blanks else height, width]),
        "v4": np.array([1, -1 if blanks else 3, 2 * height, 2 * width]),
    }
    read = agrees(
        saved(model(shuffle_by_hand("v"), weights, shape=(1, 3, height, width)), tmp_path),
        sizes=((height, width),),
        batch=1,
    )
    shuffle = node("DepthToSpace", "c", "up", blocksize=2, mode="CRD")
    nodes = [node("Conv", "x w", "c"), shuffle, node("Conv", "up w2", "y", pads=[1, 1, 1, 1])]
    free = saved(model(nodes, SHUFFLED), tmp_path)
    x = torch.from_numpy(whole(2, 3, 4, 9)).double()
    assert torch.equal(read(x), load_onnx(free)(x))


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 3), (4, 2)])
def test_a_permutation_is_read_as_what_it_does_or_refused(height: int, width: int, tmp_path: Path) -> None:
    """Channels in six axes, some as long as the height and the width, in every order."""
    weights = {
        "w": whole(4 * height * width, 3, 1, 1),
        "v6": np.array([1, 4, height, width, height, width]),
        "v4": np.array([1, 4, height * height, width * width]),
    }
    read = set()
    for order in itertools.permutations([2, 3, 4, 5]):
        nodes = [
            node("Conv", "x w", "c"),
            node("Reshape", "c v6", "six"),
            node("Transpose", "six", "t", perm=[0, 1, *order]),
            node("Reshape", "t v4", "y"),
        ]
        path = saved(model(nodes, weights, shape=(1, 3, height, width)), tmp_path)
        try:
            agrees(path, sizes=((height, width),), batch=1)
            read.add(order)
        except UnsupportedModel as error:
            assert "a reshape" in str(error)  # noqa: PT017
    assert read == ({(4, 2, 5, 3), (4, 3, 5, 2)} if height == width else set())


@pytest.mark.parametrize("shape", [FREE, (1, 3, 5, 4)])
def test_a_channel_shuffle_written_by_hand(shape: Shape, tmp_path: Path) -> None:
    flat = -1 if shape is FREE else 20
    weights = {"w": whole(6, 3, 1, 1), "five": np.array([0, 2, 3, flat]), "four": np.array([0, 6, -1, 4])}
    if shape is FREE:
        weights |= {"five": np.array([0, 2, 3, 0, 0]), "four": np.array([0, -1, 0, 0])}
    nodes = [
        node("Conv", "x w", "c"),
        node("Transpose", "f", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t four", "y"),
    ]
    if shape is FREE:
        nodes = [
            node("Conv", "x w", "c"),
            node("Shape", "c", "s"),
            node("Slice", "s from2 from4", "hw"),
            node("Concat", "front hw", "v5", axis=0),
            node("Concat", "back hw", "v4", axis=0),
            node("Reshape", "c v5", "f"),
            node("Transpose", "f", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t v4", "y"),
        ]
        weights = {
            "w": whole(6, 3, 1, 1), "from2": np.array([2]), "from4": np.array([4]),
            "front": np.array([0, 2, 3]), "back": np.array([0, 6]),
        }  # fmt: skip
        agrees(saved(model(nodes, weights), tmp_path))
        return
    nodes.insert(1, node("Reshape", "c five", "f"))
    agrees(saved(model(nodes, weights, shape=shape), tmp_path), sizes=((5, 4),), batch=1)


@pytest.mark.parametrize("shape", [FREE, (1, 3, 5, 4)])
def test_a_size_may_be_computed_for_resize(shape: Shape, tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s from2 from4", "hw"),
        node("Slice", "s from0 from2", "nc"),
        node("Mul", "hw two", "hw2"),
        node("Concat", "nc hw2", "sizes", axis=0),
        node(
            "Resize",
            "x - - sizes",
            "y",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ]
    weights = {"from0": np.array([0]), "from2": np.array([2]), "from4": np.array([4]), "two": np.array([2])}
    free = shape is FREE
    agrees(
        saved(model(nodes, weights, shape=shape), tmp_path),
        sizes=SIZES if free else ((5, 4),),
        batch=2 if free else 1,
    )
    fixed = {"sizes": np.array([1, 3, 10, 8])}
    path = saved(model(nodes[-1:], fixed, shape=shape), tmp_path)
    if free:
        refuses(path, "it resizes to a fixed size", "give it a scale")
    else:
        agrees(path, sizes=((5, 4),), batch=1)


def test_half_of_a_size_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "s", start=2),
        node("Div", "s two", "t", name="/size/Div"),
        node("Reshape", "x t", "y"),
    ]
    refuses(saved(model(nodes, {"two": np.array([2])}), tmp_path), "size.Div: Div: half of a size")


def test_a_crop_is_refused_and_taking_everything_is_not(tmp_path: Path) -> None:
    def build(last: int, shape: Shape) -> Path:
        weights = {"a": np.array([0, 0]), "b": np.array([last, 2**63 - 1]), "axes": np.array([2, 3])}
        return saved(model([node("Slice", "x a b axes", "y")], weights, shape=shape), tmp_path)

    agrees(build(2**31 - 1, FREE))
    agrees(build(5, (1, 3, 5, 4)), sizes=((5, 4),), batch=1)
    refuses(build(4, (1, 3, 5, 4)), "it takes part of axis 2", "crop outside the network")
    refuses(build(5, FREE), "it takes part of axis 2")


@pytest.mark.parametrize("shape", [(1, 3, 5, "w"), (1, 3, 1, 4), (4, 3, 5, 4)])
def test_sizes_that_are_neither_free_nor_usable_are_refused(shape: Shape, tmp_path: Path) -> None:
    sizes = {"k": np.array([0, 0, 0, -1])}  # needs them; a network that does not is read: test_fixed_sizes.py
    message = refuses(saved(model([node("Reshape", "x k", "y")], sizes, shape=shape), tmp_path), "x: the ")
    assert "dynamic" in message


def test_sizes_frozen_into_a_file_of_free_size_are_refused(tmp_path: Path) -> None:
    weights = SHUFFLED | {"v6": np.array([1, 3, 2, 2, 24, 36]), "v4": np.array([1, 3, 48, 72])}
    refuses(
        saved(model(shuffle_by_hand("v"), weights), tmp_path),
        "up.Reshape: Reshape: ",
        "a reshape takes the batch for another number of images",
    )


HEIGHT_AND_WIDTH = [node("Shape", "c", "s"), node("Slice", "s two four", "hw")]


ADDED = node("Add", "c n", "y")


@pytest.mark.parametrize(
    ("nodes", "weights", "reason"),
    [
        ([node("Slice", "c zero two zero", "y")], {}, "Slice: it takes a part of the batch"),
        ([node("Slice", "c zero one zero", "y")], {}, "Slice: it takes a part of the batch"),
        (
            [*HEIGHT_AND_WIDTH, node("Concat", "first hw", "t", axis=0), node("Reshape", "c t", "y")],
            {"first": np.array([2, 3])},
            "Reshape: a reshape of the batch to 2, whatever the number of images is",
        ),
        (
            [node("Shape", "c", "s", end=1), node("Cast", "s", "n", to=1), node("Div", "c n", "y")],
            {},
            "Div: its constant depends on the number of images",
        ),
        (
            [node("Shape", "c", "s", end=1), node("Sub", "s one", "d"), node("Cast", "d", "n", to=1), ADDED],
            {},
            "Sub: it computes with the number of images in a batch",
        ),
        (
            [node("Shape", "c", "s", end=1), node("Mod", "s two", "d"), node("Cast", "d", "n", to=1), ADDED],
            {},
            "Mod: it computes with the number of images in a batch",
        ),
        (
            [node("Shape", "c", "s", end=1), node("Equal", "s one", "d"), node("Cast", "d", "n", to=1), ADDED],
            {},
            "Equal: it computes with the number of images in a batch",
        ),
        (
            [node("Shape", "c", "s", end=1), node("Max", "s two", "d"), node("Cast", "d", "n", to=1), ADDED],
            {},
            "Max: it computes with the number of images in a batch",
        ),
        (
            [node("Shape", "c", "s", end=2), node("ReduceMin", "s", "d"), node("Cast", "d", "n", to=1), ADDED],
            {},
            "ReduceMin: it computes with the number of images in a batch",
        ),
        (
            [node("Shape", "c", "s", end=1), node("Cast", "s", "f", to=1), node("Div", "f half", "n"), ADDED],
            {"half": np.array([2], np.float32)},
            "Div: it computes with the number of images in a batch",
        ),
        (
            [node("Shape", "c", "s", end=1), node("ConstantOfShape", "s", "k"), node("ReduceSum", "k", "n"), ADDED],
            {},
            "ConstantOfShape: it computes with the number of images in a batch",
        ),
    ],
)
def test_numbers_of_images_that_a_file_states_or_computes_with_are_refused(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], reason: str, tmp_path: Path
) -> None:
    """Networks are read with two images."""
    numbers = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "four": np.array([4]), **weights}
    weights = {"w": whole(3, 3, 1, 1), **{n: v for n, v in numbers.items() if any(n in m.input for m in nodes)}}
    refuses(saved(model([node("Conv", "x w", "c"), *nodes], weights), tmp_path), reason)


HW, SCALED = HEIGHT_AND_WIDTH[1], node("Mul", "c k", "y")
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
ENLARGED = node("Resize", "c - - q", "y", **NEAREST)
BY_IMAGES = {
    "channels from the first": [node("Slice", "c zero n one", "y")],
    "channels to the last": [node("Slice", "c n five one", "y")],
    "channels in steps": [node("Slice", "c zero five one n", "y")],
    "every channel of two": [node("Slice", "c zero two one", "d"), node("Slice", "d zero n one", "y")],
    "a channel": [node("Gather", "c n", "y", axis=1)],
    "parts": [node("Concat", "n four", "p", axis=0), node("Split", "c p", "y d", axis=1)],
    "channels beside one another": [node("Concat", "one n one one", "p", axis=0), node("Tile", "c p", "y")],
    "a channel repeated": [
        node("Slice", "c zero one one", "d"), node("Concat", "one n one one", "p", axis=0), node("Expand", "d p", "y"),
    ],
    "two channels repeated": [
        node("Slice", "c zero two one", "d"), node("Concat", "one n one one", "p", axis=0), node("Expand", "d p", "y"),
    ],
    "an axis": [node("Unsqueeze", "c n", "u"), node("Squeeze", "u n", "y")],
    "a border": [
        node("Concat", "zero zero n n zero zero n n", "p", axis=0), node("Pad", "c p", "d"),
        node("Conv", "d wide", "y"),
    ],
    "an enlargement": [
        HW, node("Mul", "hw n", "p"), node("Concat", "n six p", "q", axis=0),
        ENLARGED,
    ],
    "two images of an enlargement": [
        HW, node("Mul", "hw two", "p"), node("Concat", "two six p", "q", axis=0),
        ENLARGED,
    ],
    "two images": [HW, node("Concat", "two six hw", "p", axis=0), node("Expand", "c p", "y")],
    "pairs of images": [node("Div", "n two", "d"), node("Mul", "d two", "p"), node("Slice", "c zero p zero", "y")],
    "numbers added up": [node("Slice", "t zero n", "d"), node("ReduceSum", "d", "k"), SCALED],
    "a number": [node("Gather", "t n", "k"), SCALED],
    "numbers apart": [
        node("Concat", "n six", "p", axis=0), node("Split", "t p", "d e"), node("ReduceSum", "d", "k"), SCALED,
    ],
    "ones added up": [node("Expand", "half n", "d"), node("ReduceSum", "d", "k"), SCALED],
    "ones multiplied": [node("Tile", "half n", "d"), node("ReduceProd", "d", "k"), SCALED],
    "ones beside one another": [node("Expand", "half n", "d"), node("Concat", "d d", "k", axis=0), SCALED],
    "ones added up behind a sum": [
        node("Expand", "half n", "d"), node("Add", "d d", "e"), node("ReduceSum", "e", "k"), SCALED,
    ],
    "how many": [
        node("Expand", "half n", "d"), node("Size", "d", "e"), node("Cast", "e", "k", to=1), SCALED,
    ],
    "how many numbers": [
        node("Tile", "t n", "d"), node("Shape", "d", "e"), node("Cast", "e", "k", to=1), SCALED,
    ],
    "rows of numbers": [
        node("Concat", "n four", "p", axis=0), node("Reshape", "t p", "d"), node("Gather", "d zero", "e"),
        node("ReduceSum", "e", "k"), SCALED,
    ],
    "a number for each channel": [
        node("Slice", "c zero one one", "d"), node("Concat", "n one one", "p", axis=0), node("Expand", "half p", "k"),
        node("Mul", "d k", "y"),
    ],
    "kernels": [
        node("Concat", "n three one one", "p", axis=0), node("Expand", "half p", "k"), node("Conv", "x k", "y"),
    ],
    "two of a number": [
        node("Concat", "n six one one", "p", axis=0), node("Expand", "half p", "d"),
        node("Concat", "two six one one", "q", axis=0), node("Expand", "d q", "k"), SCALED,
    ],
    "rows that are there": [
        node("Concat", "n six one one", "p", axis=0), node("Expand", "pair p", "k"), SCALED,
    ],
    "rows that are added": [
        node("Concat", "n six one one", "p", axis=0), node("Expand", "half p", "d"), node("Add", "d pair", "k"),
        SCALED,
    ],
}  # fmt: skip
NUMBERS = {
    **{name: np.array([n]) for n, name in enumerate(("zero", "one", "two", "three", "four", "five", "six"))},
    "t": np.arange(1, 9, dtype=np.float32), "half": np.array([0.5], np.float32), "pair": whole(2, 6, 1, 1),
    "w": whole(6, 3, 1, 1), "wide": whole(6, 6, 5, 5),
}  # fmt: skip


def with_number_of_images(nodes: list[onnx.NodeProto], folder: Path) -> Path:
    """A network whose c is a convolution, n the number of images and s the shape of c."""
    nodes = [node("Conv", "x w", "c"), node("Shape", "c", "s"), node("Slice", "s zero one", "n"), *nodes]
    return saved(model(nodes, {n: v for n, v in NUMBERS.items() if any(n in m.input for m in nodes)}), folder)


@pytest.mark.parametrize("nodes", BY_IMAGES.values(), ids=BY_IMAGES)
def test_what_is_as_many_as_there_are_images_is_refused(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    """Networks are read with two images: a number made of that is another one for three."""
    refuses(with_number_of_images(nodes, tmp_path))


@pytest.mark.parametrize("use", ["Add", "Sub", "Mul", "PRelu"])
@pytest.mark.parametrize(
    ("op", "constant", "sizes"),
    [
        ("Expand", "row", "n one one one"),
        ("Tile", "row", "n one one one"),
        ("Expand", "number", "n six one one"),
        ("Tile", "number", "n six one one"),
        ("Expand", "number", "n one one one"),
    ],
)
@pytest.mark.parametrize("by_two_axes", [None, "Reshape", "Unsqueeze", "Transpose"])
def test_a_constant_repeated_for_each_image_is_read(
    op: str, constant: str, sizes: str, use: str, by_two_axes: str | None, tmp_path: Path
) -> None:
    constants = {"row": whole(1, 6, 1, 1), "number": np.array([[[[2]]]], np.float32)}
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Slice", "s zero one", "n"),
        node("Concat", sizes, "p", axis=0),
        node(op, f"{constant} p", "k"),
        node("Add", "k k", "l"),
        node(use, "c l", "y"),
    ]
    if by_two_axes:  # (N, 6), as a vector for each image, and then (N, 6, 1, 1)
        constants = {"row": whole(1, 6), "number": np.array([[2]], np.float32)}
        two = " ".join(sizes.split()[:2])
        nodes[3:5] = [node("Concat", two, "p2", axis=0), node(op, f"{constant} p2", "k2")]
        nodes[5:5] = {
            "Reshape": [node("Concat", "n minus one one", "p", axis=0), node("Reshape", "k2 p", "k")],
            "Unsqueeze": [node("Unsqueeze", "k2 two", "k3"), node("Unsqueeze", "k3 three", "k")],
            "Transpose": [
                node("MatMul", "k2 eye" if constant == "row" or "six" in sizes else "k2 ones", "k3"),
                node("Unsqueeze", "k3 ends", "k4"),
                node("Transpose", "k4", "k", perm=[0, 2, 1, 3]),
            ],
        }[by_two_axes]
    numbers = {
        **NUMBERS, **constants, "minus": np.array([-1]), "ends": np.array([1, 3]),
        "eye": np.eye(6, dtype=np.float32), "ones": np.ones((1, 6), np.float32),
    }  # fmt: skip
    path = saved(model(nodes, {n: v for n, v in numbers.items() if any(n in m.input for m in nodes)}), tmp_path)
    for images in (1, 2, 3):
        agrees(path, sizes=((4, 5),), batch=images)


@pytest.mark.parametrize(
    "taken",
    [
        [node("Gather", "r zero", "k", axis=0)],
        [node("Slice", "r zero one zero", "k")],
        [node("ReduceMax", "r", "k", axes=[0], keepdims=1)],
        [node("ReduceMean", "r", "k", axes=[0], keepdims=1)],
    ],
    ids=["first", "first by a slice", "largest", "mean"],
)
def test_one_of_the_rows_for_each_image_is_read(taken: list[onnx.NodeProto], tmp_path: Path) -> None:
    """As all of them are the same, it does not hang on how many there are."""
    nodes = [
        *(node("Conv", "x w", "c"), node("Shape", "c", "s"), node("Slice", "s zero one", "n")),
        *(node("Concat", "n one one one", "p", axis=0), node("Expand", "row p", "r"), *taken, SCALED),
    ]
    numbers = {**NUMBERS, "row": whole(1, 6, 1, 1)}
    path = saved(model(nodes, {n: v for n, v in numbers.items() if any(n in m.input for m in nodes)}), tmp_path)
    for images in (1, 2, 3):
        agrees(path, sizes=((4, 5),), batch=images)


def test_a_batch_that_is_joined_with_channels_and_parted_again_is_read(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        *HEIGHT_AND_WIDTH,
        node("Gather", "s zero", "n"),
        node("Mul", "n three", "both"),
        node("Concat", "both one hw", "t", axis=0),
        node("Reshape", "c t", "d"),
        node("Div", "both three", "again"),
        node("Concat", "again three hw", "u", axis=0),
        node("Reshape", "d u", "y"),
    ]
    numbers = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "three": np.array([3])}
    weights = {"w": whole(3, 3, 1, 1), "four": np.array([4]), **numbers}
    agrees(saved(model(nodes, weights), tmp_path))

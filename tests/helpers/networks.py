"""Random super-resolution networks over everything that is accepted, for the fuzz tests.

    network = random_network(17)          # the same network every time
    print(network)                        # how it is made, line by line
    @given(networks())                    # or drawn, and shrunk, by hypothesis

An exact network has weights of few bits (-1, 0.5, 2): what it computes from inputs of few bits takes no rounding in
float64, so two ways of computing it can be compared with torch.equal.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

MOST_CHANNELS = 12  # of a concatenation; other values have up to 6
MOST_FOLDED = 64  # channels of a value folded to the input's resolution
SIZES = ((1, 1), (1, 7), (3, 2), (5, 4))


@dataclass(frozen=True)
class Step:
    """One operation: value number i of the network, i counted from 1, is function(network, *values of `inputs`)."""

    text: str
    inputs: tuple[int, ...]
    function: Callable[..., Tensor]


@dataclass(frozen=True)
class Kind:
    """The type of a value, and whether changing it in place changes nothing but it and its like (it is no view)."""

    channels: int
    scale: int
    owned: bool


class RandomNetwork(nn.Module):
    """Steps one after the other; the last one's value is the output.  Its text form says how it is made."""

    def __init__(self, channels: int, seed: int | None, exact: bool) -> None:
        super().__init__()
        self.channels, self.seed, self.exact = channels, seed, exact
        self.layers = nn.ModuleDict()
        self.steps: list[Step] = []
        self.calls: list[tuple[Callable[..., Tensor], tuple[int, ...]]] = []  # code of known forms runs these

    def forward(self, x: Tensor) -> Tensor:
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        found = [x]
        for function, inputs in self.calls:
            found.append(function(self, *[found[i] for i in inputs]))
        return found

    def __str__(self) -> str:
        lines = [f"random_network({self.seed}): v0 is the input, {self.channels} channels; exact={self.exact}"]
        for i, step in enumerate(self.steps, start=1):
            lines.append(f"v{i} = {step.text} of {', '.join(f'v{j}' for j in step.inputs)}")
        return "\n".join(lines)

    __repr__ = __str__


def random_network(seed: int) -> RandomNetwork:
    """The network of a seed, in eval mode, float32.  Even seeds give exact networks."""
    return _Generator(random.Random(seed), seed, exact=seed % 2 == 0).network()


def networks(*, exact: bool | None = None) -> st.SearchStrategy[RandomNetwork]:
    """Hypothesis draws of the same networks.  `exact` None: either kind."""
    kinds = st.booleans() if exact is None else st.just(exact)
    return st.builds(lambda rng, kind: _Generator(rng, None, kind).network(), st.randoms(use_true_random=False), kinds)


def random_images(network: RandomNetwork, input_range: tuple[float, float]) -> list[Tensor]:
    """Batches of two, float64, of every size in SIZES, values in the range; with few bits for an exact network."""
    low, high = input_range
    generator = torch.Generator().manual_seed(1)
    found = []
    for height, width in SIZES:
        x = torch.rand(2, network.channels, height, width, generator=generator, dtype=torch.float64)
        x = (x * 8).round() / 8 if network.exact else x
        found.append(low + (high - low) * x)
    return found


class _Generator:
    def __init__(self, rng: random.Random, seed: int | None, exact: bool) -> None:
        self.rng, self.exact = rng, exact
        self.torch = torch.Generator().manual_seed(rng.randrange(1 << 30))
        self.net = RandomNetwork(rng.choice([1, 3, 3, 2]), seed, exact)
        self.kinds = [Kind(self.net.channels, 1, owned=False)]

    def network(self) -> RandomNetwork:
        if self.rng.random() < 0.2:
            self.mean_shift(0)
        self.conv_to(len(self.kinds) - 1, self.rng.randrange(1, 7))
        menu = [
            *[self.conv] * 7, *[self.activation] * 7, *[self.add] * 5, *[self.enlarge] * 3, *[self.concat] * 2,
            *[self.scale_shift] * 2, *[self.batch_norm] * 2, *[self.select] * 2, self.same, self.maximum, self.again,
            self.unshuffle, self.mean_shift_somewhere,
        ]  # fmt: skip
        length = self.rng.randrange(1, 10)
        while len(self.net.steps) < length:
            self.rng.choice(menu)()
        if self.rng.random() < 0.3:
            self.enlarge()
        if self.rng.random() < 0.5 or not self.convolves():
            self.conv_to(len(self.kinds) - 1, self.rng.randrange(1, 4))
        return self.net.eval()

    def convolves(self) -> bool:
        """Whether the output depends on a convolution; a network where it does not is refused."""
        left, steps = {len(self.net.steps)}, self.net.steps
        while left:
            i = left.pop()
            if i and "conv" in steps[i - 1].text:
                return True
            left |= set(steps[i - 1].inputs) if i else set()
        return False

    # -- plumbing ----------------------------------------------------------------------------------------------

    def step(self, text: str, inputs: tuple[int, ...], kind: Kind, function: Callable[..., Tensor]) -> int:
        self.net.steps.append(Step(text, inputs, function))
        self.net.calls.append((function, inputs))
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def layer(self, module: nn.Module, inputs: int, kind: Kind) -> int:
        """A step that is a module of the network."""
        key = f"{type(module).__name__.lower()}{len(self.net.layers)}"
        self.net.layers[key] = module.eval()
        text = str(module).replace("\n", "")
        return self.step(f"{key} {text}", (inputs,), kind, lambda net, x: net.layers[key](x))

    def operand(self) -> int:
        """Some value, a recent one more often."""
        if self.rng.random() < 0.6:
            return len(self.kinds) - 1
        return self.rng.randrange(len(self.kinds))

    def fits(self, channels: int, scale: int) -> bool:
        return channels <= MOST_CHANNELS and channels * scale**2 <= MOST_FOLDED

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch)

    def pick(self, shape: tuple[int, ...], values: list[float]) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), shape, generator=self.torch)]

    def number(self) -> float:
        return (
            self.rng.choice([0.5, -0.5, 1.0, -1.0, 2.0, 0.25]) if self.exact else self.rng.randrange(-2000, 2001) / 1000
        )

    def vector(self, channels: int) -> Tensor:
        return self.pick((channels,), [0.0, 0.5, -0.5, 1.0, -1.0, 0.25]) if self.exact else self.normal(channels)

    # -- weights -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def trained(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
        """Weights as a trained network might have them: some rows dead, constant or equal, some never negative."""
        weight, fan_in = conv.weight, conv.weight[0].numel()
        if self.exact:
            taps = self.pick(tuple(weight.shape), [1.0, -1.0, 0.5, -0.5])
            weight.copy_(taps * (torch.rand(weight.shape, generator=self.torch) < 3 / fan_in))
        else:
            weight.copy_(self.normal(*weight.shape) / fan_in**0.5)
        if conv.bias is not None:
            conv.bias.copy_(self.vector(conv.out_channels))
        habit = self.rng.random()
        rows = weight.shape[0]
        row, other = self.rng.randrange(rows), self.rng.randrange(rows)
        if habit < 0.1:
            weight[row] = 0
        elif habit < 0.2:
            weight[row] = weight[other]
            if conv.bias is not None and len(conv.bias) == rows:
                conv.bias[row] = conv.bias[other]
        elif habit < 0.3:
            weight[:, 0] = 0
        elif habit < 0.4:
            weight.abs_()
            if conv.bias is not None:
                conv.bias.abs_()
        return conv

    def common(self, *numbers: int) -> int:
        """A number of groups: 1 mostly, else a common divisor."""
        if self.rng.random() < 0.7:
            return 1
        return self.rng.choice([g for g in range(1, min(numbers) + 1) if all(n % g == 0 for n in numbers)])

    # -- operations --------------------------------------------------------------------------------------------

    def conv_to(self, x: int, channels: int, kernel: int | None = None) -> int:
        t = self.kinds[x]
        k = kernel or self.rng.choice([1, 1, 1, 3, 3, 3, 3, 3, 5, 5, 7, 9])
        height, width = (k, self.rng.choice([1, 3, 5])) if self.rng.random() < 0.15 else (k, k)
        dilation = self.rng.choice([2, 3]) if self.rng.random() < 0.1 and k <= 5 else 1
        padding: Any = ((height - 1) // 2 * dilation, (width - 1) // 2 * dilation)
        if self.rng.random() < 0.15:
            padding = "same"
        elif height == width:
            padding = padding[0]
        conv = nn.Conv2d(
            t.channels, channels, (height, width), padding=padding, dilation=dilation,
            groups=self.common(t.channels, channels), bias=self.rng.random() < 0.7,
        )  # fmt: skip
        return self.layer(self.trained(conv), x, Kind(channels, t.scale, owned=True))

    def conv(self) -> None:
        x = self.operand()
        t = self.kinds[x]
        channels = t.channels if self.rng.random() < 0.3 else self.rng.randrange(1, 7)
        if self.fits(channels, t.scale):
            self.conv_to(x, channels)

    def again(self) -> None:
        """A convolution that the network has already, on another value."""
        convs = [(key, m) for key, m in self.net.layers.items() if isinstance(m, nn.Conv2d)]
        key, conv = self.rng.choice(convs)
        fitting = [i for i, t in enumerate(self.kinds) if t.channels == conv.in_channels]
        if not fitting:
            return
        x = self.rng.choice(fitting)
        scale = self.kinds[x].scale
        if self.fits(conv.out_channels, scale):
            kind = Kind(conv.out_channels, scale, owned=True)
            self.step(f"{key} again", (x,), kind, lambda net, v: net.layers[key](v))

    def batch_norm(self) -> None:
        x = self.operand()
        t = self.kinds[x]
        eps = 1e-300 if self.exact else 1e-5  # nothing beside a variance; torch < 2.13 wants it positive
        norm = nn.BatchNorm2d(t.channels, eps=eps, affine=self.rng.random() < 0.8)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(self.vector(t.channels))
        choices = [1.0, 4.0, 0.25]
        norm.running_var.copy_(
            self.pick((t.channels,), choices) if self.exact else self.normal(t.channels).square() + 0.1
        )
        if norm.affine:
            with torch.no_grad():
                norm.weight.copy_(self.vector(t.channels))
                norm.bias.copy_(self.vector(t.channels))
        self.layer(norm, x, Kind(t.channels, t.scale, owned=True))

    def mean_shift(self, x: int) -> None:
        t = self.kinds[x]
        name = f"mean{len(self.net.steps)}"
        self.net.register_buffer(name, self.vector(t.channels)[None, :, None, None])
        gain = self.number()
        text, function = self.rng.choice([
            (f"x - {name}", lambda net, v: v - net._buffers[name]),
            (f"(x - {name}) / 0.5", lambda net, v: (v - net._buffers[name]) / 0.5),
            (f"{name} + x * {gain}", lambda net, v: net._buffers[name] + v * gain),
        ])  # fmt: skip
        self.step(text, (x,), Kind(t.channels, t.scale, owned=True), function)

    def mean_shift_somewhere(self) -> None:
        self.mean_shift(self.operand())

    def scale_shift(self) -> None:
        x, a = self.operand(), self.number()
        divisor = self.rng.choice([2.0, -4.0])
        text, function = self.rng.choice([
            (f"{a} * x", lambda _, v: a * v),
            ("-x", lambda _, v: -v),
            ("torch.neg(x)", lambda _, v: torch.neg(v)),
            (f"{a} - x", lambda _, v: a - v),
            (f"x + {a}", lambda _, v: v + a),
            (f"x / {divisor}", lambda _, v: v / divisor),
            (f"x.mul({a}).add({a})", lambda _, v: v.mul(a).add(a)),
        ])  # fmt: skip
        t = self.kinds[x]
        self.step(text, (x,), Kind(t.channels, t.scale, owned=True), function)

    def same(self) -> None:
        x = self.operand()
        t = self.kinds[x]
        self.layer(self.rng.choice([nn.Identity(), nn.Dropout(0.5), nn.Dropout2d(0.3)]), x, t)

    def activation(self) -> None:
        x = self.operand()
        t = self.kinds[x]
        kind = Kind(t.channels, t.scale, owned=True)
        inplace = t.owned and self.rng.random() < 0.5
        low = self.rng.choice([-0.5, 0.0, 0.25])
        high = low + self.rng.choice([0.5, 2.0])
        modules: list[Callable[[], nn.Module]] = [
            *[lambda: nn.ReLU(inplace)] * 5, lambda: nn.LeakyReLU(0.25 if self.exact else 0.1, inplace),
            lambda: self.prelu(t.channels), lambda: self.prelu(1), lambda: nn.ReLU6(inplace),
            lambda: nn.Hardtanh(low, high, inplace),
        ]  # fmt: skip
        if not self.exact:
            modules.append(lambda: nn.Hardsigmoid(inplace))
        functions: list[tuple[str, Callable[..., Tensor]]] = [
            ("F.relu(x)", lambda _, v: F.relu(v)),
            ("x.abs()", lambda _, v: v.abs()),
            (f"x.clamp({low}, {high})", lambda _, v: v.clamp(low, high)),
            (f"torch.clamp(x, min={low})", lambda _, v: torch.clamp(v, min=low)),
            (f"x.clamp(max={high})", lambda _, v: v.clamp(max=high)),
        ]
        if t.owned:
            functions += [
                ("x.relu_()", lambda _, v: v.relu_()),
                (f"x.clamp_({low}, {high})", lambda _, v: v.clamp_(low, high)),
            ]
        if self.rng.random() < 0.6:
            self.layer(self.rng.choice(modules)(), x, kind)
        else:
            text, function = self.rng.choice(functions)
            self.step(text, (x,), kind, function)

    def prelu(self, slopes: int) -> nn.PReLU:
        module = nn.PReLU(slopes)
        with torch.no_grad():
            module.weight.copy_(self.vector(slopes))
        return module

    def matching(self, x: int) -> int:
        """Another value brought to the type of x, and it may be x itself."""
        t = self.kinds[x]
        like = [i for i, u in enumerate(self.kinds) if (u.channels, u.scale) == (t.channels, t.scale)]
        if self.rng.random() < 0.7:
            return self.rng.choice(like)
        y = self.rng.choice([i for i, u in enumerate(self.kinds) if t.scale % u.scale == 0])
        u = self.kinds[y]
        if u.scale != t.scale and self.fits(u.channels, t.scale):
            y = self.nearest(y, t.scale // u.scale)
        elif u.scale != t.scale:
            return x
        return y if u.channels == t.channels else self.conv_to(y, t.channels, kernel=1)

    def add(self) -> None:
        x = self.operand()
        t = self.kinds[x]
        y = self.matching(x)
        alpha = self.number()
        kind = Kind(t.channels, t.scale, owned=True)
        options: list[tuple[str, Callable[..., Tensor]]] = [
            *[("x + y", lambda _, v, w: v + w)] * 3,
            ("x - y", lambda _, v, w: v - w),
            (f"torch.add(x, y, alpha={alpha})", lambda _, v, w: torch.add(v, w, alpha=alpha)),
            (f"x + {alpha} * y", lambda _, v, w: v + alpha * w),
        ]
        if t.owned:
            options.append(("x += y", lambda _, v, w: operator.iadd(v, w)))  # type: ignore[no-untyped-call]
        if self.rng.random() < 0.1:
            narrow = [i for i, u in enumerate(self.kinds) if (u.channels, u.scale) == (1, t.scale)]
            y = narrow[0] if narrow else y
        if self.rng.random() < 0.2:
            z = self.matching(x)
            self.step("sum([x, y, z])", (x, y, z), kind, lambda _, u, v, w: sum([u, v, w]))  # type: ignore[arg-type,return-value]
            return
        text, function = self.rng.choice(options)
        self.step(text, (x, y), kind, function)

    def maximum(self) -> None:
        x = self.operand()
        t = self.kinds[x]
        y = self.matching(x)
        text, function = self.rng.choice([
            ("torch.maximum(x, y)", lambda _, v, w: torch.maximum(v, w)),
            ("torch.max(x, y)", lambda _, v, w: torch.max(v, w)),
            ("torch.minimum(x, y)", lambda _, v, w: torch.minimum(v, w)),
        ])  # fmt: skip
        self.step(text, (x, y), Kind(t.channels, t.scale, owned=True), function)

    def concat(self) -> None:
        x = self.operand()
        scale = self.kinds[x].scale
        like = [i for i, t in enumerate(self.kinds) if t.scale == scale]
        chosen = [x, *(self.rng.choice(like) for _ in range(self.rng.randrange(1, 3)))]
        channels = sum(self.kinds[i].channels for i in chosen)
        if self.fits(channels, scale):
            self.step("torch.cat(.., 1)", tuple(chosen), Kind(channels, scale, True), lambda _, *v: torch.cat(v, 1))

    def select(self) -> None:
        x = self.operand()
        c, scale = self.kinds[x].channels, self.kinds[x].scale
        divisors = [g for g in range(2, c + 1) if c % g == 0]
        if not divisors:
            return
        g = self.rng.choice(divisors)
        i, at = self.rng.randrange(g), self.rng.randrange(1, c)
        order = self.rng.sample(range(c), self.rng.randrange(1, c + 1))

        def shuffled(_: RandomNetwork, v: Tensor) -> Tensor:
            n, h, w = v.size(0), v.size(2), v.size(3)
            return v.view(n, g, c // g, h, w).transpose(1, 2).contiguous().view(n, c, h, w)

        text, channels, function = self.rng.choice([
            (f"x.chunk({g}, 1)[{i}]", c // g, lambda _, v: v.chunk(g, 1)[i]),
            (f"torch.split(x, [{at}, {c - at}], dim=1)[0]", at, lambda _, v: torch.split(v, [at, c - at], dim=1)[0]),
            (f"x[:, {at}:]", c - at, lambda _, v: v[:, at:]),
            ("x[:, ::2]", -(-c // 2), lambda _, v: v[:, ::2]),
            (f"x[:, {order}]", len(order), lambda _, v: v[:, order]),
            (f"F.channel_shuffle(x, {g})", c, lambda _, v: F.channel_shuffle(v, g)),
            (f"channel shuffle by reshapes, groups {g}", c, shuffled),
        ])  # fmt: skip
        self.step(text, (x,), Kind(channels, scale, owned=False), function)
        self.kinds[x] = Kind(c, scale, owned=False)

    def nearest(self, x: int, r: int) -> int:
        t = self.kinds[x]
        text, function = self.rng.choice([
            (f"F.interpolate(x, scale_factor={r})", lambda _, v: F.interpolate(v, scale_factor=r, mode="nearest")),
            (f"F.interpolate(x, size=({r}h, {r}w))",
             lambda _, v: F.interpolate(v, size=(v.shape[2] * r, v.shape[3] * r), mode="nearest")),
        ])  # fmt: skip
        if self.rng.random() < 0.3:
            return self.layer(nn.Upsample(scale_factor=r, mode="nearest"), x, Kind(t.channels, t.scale * r, True))
        return self.step(text, (x,), Kind(t.channels, t.scale * r, owned=True), function)

    def enlarge(self) -> None:
        x = self.operand()
        c, scale = self.kinds[x].channels, self.kinds[x].scale
        r = self.rng.choice([2, 2, 3, 4]) if scale == 1 else 2
        how = self.rng.random()
        if how < 0.25 and self.fits(c, scale * r):
            self.nearest(x, r)
        elif how < 0.5:
            channels = self.rng.randrange(1, 5)
            if self.fits(channels, scale * r):
                self.transposed(x, channels, r)
        else:
            channels = c // r**2 if c % r**2 == 0 else self.rng.randrange(1, 4)
            if self.fits(channels, scale * r):
                if c != channels * r**2:
                    x = self.conv_to(x, channels * r**2)
                self.shuffle(x, channels, scale, r)

    def transposed(self, x: int, channels: int, r: int) -> None:
        t = self.kinds[x]
        k = self.rng.randrange(1, 2 * r + 3)
        padding = max(0, -((r - k) // 2))
        conv = nn.ConvTranspose2d(
            t.channels, channels, k, stride=r, padding=padding, output_padding=r - k + 2 * padding,
            groups=self.common(t.channels, channels), bias=self.rng.random() < 0.7,
        )  # fmt: skip
        self.layer(self.trained(conv), x, Kind(channels, t.scale * r, owned=True))

    def shuffle(self, x: int, channels: int, scale: int, r: int) -> None:
        def by_reshapes(_: RandomNetwork, v: Tensor) -> Tensor:
            n, h, w = v.shape[0], v.shape[2], v.shape[3]
            return v.view(n, channels, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, channels, h * r, w * r)

        kind = Kind(channels, scale * r, owned=True)
        how = self.rng.random()
        if how < 0.5:
            self.layer(nn.PixelShuffle(r), x, kind)
        elif how < 0.8:
            self.step(f"F.pixel_shuffle(x, {r})", (x,), kind, lambda _, v: F.pixel_shuffle(v, r))
        else:
            self.kinds[x] = Kind(channels * r**2, scale, owned=False)
            self.step(f"pixel shuffle by reshapes, {r}", (x,), Kind(channels, scale * r, False), by_reshapes)

    def unshuffle(self) -> None:
        fine = [i for i, t in enumerate(self.kinds) if t.scale > 1]
        if not fine:
            return
        x = self.rng.choice(fine)
        t = self.kinds[x]
        r = self.rng.choice([r for r in (2, 3, 4) if t.scale % r == 0])
        if t.channels * r**2 <= MOST_FOLDED:
            kind = Kind(t.channels * r**2, t.scale // r, owned=True)
            self.layer(nn.PixelUnshuffle(r), x, kind)

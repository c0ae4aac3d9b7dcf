"""What sizes a network takes and gives: one statement, which sampler, loss crop, tiler and configuration share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PerAxis = int | Sequence[int]


@dataclass(frozen=True)
class Geometry:
    """The sizes that a segmentation network takes and gives, in voxels, one figure for each spatial axis.

    An input of size n is taken when ``n >= minimum`` and ``(n - base)`` is divisible by ``multiple``; the output then
    has size ``n - 2 * margin`` and its voxel i lies on input voxel ``i + margin``.

    Every figure may be given as one whole number for all axes; the number of axes is that of the longest sequence
    (so at least one figure, best ``receptive_field``, is given for each axis).

    Args:
        receptive_field: the extent of the input that one output voxel can depend on, at its largest over the
            positions of a period; for networks that keep the size, one more than twice the farthest that it reaches,
            so that ``(receptive_field - 1) // 2`` voxels of context on each side make a tile exact. It may be larger
            than ``2 * margin + 1`` for networks that pad, pool or subsample.
        margin: voxels lost at each face; 0 for networks that keep the size.
        multiple: the period of the sizes that work. Shifting the input by it shifts the output by it.
        base: the remainder of the sizes that work; taken modulo ``multiple``.
        minimum: the smallest input that gives an output; raised to the first size that works and leaves one voxel.
        preferred_multiple: sizes divisible by this run fastest; a hint, never a demand.

    Raises:
        ValueError: a figure is out of range or the figures disagree in their number of axes.

    Example:
        >>> geometry = Geometry(receptive_field=(51, 51, 51), margin=24, multiple=3)
        >>> geometry.output_size((51, 63, 87))
        (3, 15, 39)
        >>> geometry.input_size((1, 15, 16))
        (51, 63, 66)
        >>> geometry.accepts((51, 52, 53))
        False
    """

    receptive_field: Any
    margin: Any = 0
    multiple: Any = 1
    base: Any = 0
    minimum: Any = 1
    preferred_multiple: Any = None

    def __post_init__(self) -> None:
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if figures["preferred_multiple"] is None:
            figures["preferred_multiple"] = figures["multiple"]
        lengths = {len(value) for value in figures.values() if not isinstance(value, int)}
        if len(lengths) != 1 or not lengths <= {1, 2, 3}:
            raise ValueError(
                f"the figures of a Geometry need one value for each of 1 to 3 axes, at least one of them written as a "
                f"list such as receptive_field=[87, 87, 87]; got {figures}"
            )
        dims = lengths.pop()
        smallest = {"margin": 0, "base": 0}
        for name, value in figures.items():
            values = (value,) * dims if isinstance(value, int) else tuple(value)
            low = smallest.get(name, 1)
            if any(isinstance(v, bool) or not isinstance(v, int) or v < low for v in values):
                raise ValueError(f"Geometry {name} must be whole numbers of at least {low}, got {value!r}")
            object.__setattr__(self, name, values)
        object.__setattr__(self, "base", tuple(b % m for b, m in zip(self.base, self.multiple, strict=True)))
        object.__setattr__(self, "minimum", tuple(self._first(axis) for axis in range(dims)))

    def _first(self, axis: int) -> int:
        """The smallest size on an axis that is in step and leaves at least one voxel."""
        least = max(self.minimum[axis], 2 * self.margin[axis] + 1)
        return least + (self.base[axis] - least) % self.multiple[axis]

    @property
    def spatial_dims(self) -> int:
        """The number of spatial axes."""
        return len(self.receptive_field)

    def _sizes(self, size: PerAxis, what: str = "size") -> tuple[int, ...]:
        """``size`` as a tuple with one entry for each axis."""
        sizes = (int(size),) * self.spatial_dims if isinstance(size, int) else tuple(int(n) for n in size)
        if len(sizes) != self.spatial_dims:
            raise ValueError(
                f"{what} {sizes} has {len(sizes)} axes and the network works on {self.spatial_dims}; "
                f"give {self.spatial_dims} numbers"
            )
        return sizes

    def accepts(self, input_size: PerAxis) -> bool:
        """Whether the network takes this input size."""
        steps = zip(self._sizes(input_size), self.minimum, self.base, self.multiple, strict=True)
        return all(n >= least and (n - base) % multiple == 0 for n, least, base, multiple in steps)

    def nearest_sizes(self, input_size: PerAxis) -> tuple[tuple[int, ...], ...]:
        """For each axis, the sizes that work nearest to the one given: itself, or the next below and above.

        >>> Geometry(receptive_field=(51, 51), margin=24, multiple=3).nearest_sizes((52, 40))
        ((51, 54), (51,))
        """
        nearest = []
        for n, least, multiple in zip(self._sizes(input_size), self.minimum, self.multiple, strict=True):
            above = max(least, n + (least - n) % multiple)
            nearest.append(
                tuple(size for size in ((above,) if above == n else (above - multiple, above)) if size >= least)
            )
        return tuple(nearest)

    def check(self, input_size: PerAxis, what: str = "input") -> None:
        """Refuse a size that the network cannot take.

        Args:
            input_size: the size on each axis.
            what: what has this size, for the message.

        Raises:
            ValueError: names the size, the rule and, for each axis, the nearest sizes that work.
        """
        what = what if what.endswith("size") else f"{what} size"
        sizes = self._sizes(input_size, what)
        if self.accepts(sizes):
            return
        nearest = " x ".join(" or ".join(map(str, axis)) for axis in self.nearest_sizes(sizes))
        rule = f"multiples of {_short(self.multiple)}"
        if any(self.base):
            rule += f" plus {_short(self.base)}"
        raise ValueError(
            f"{what} {_short(sizes, ' x ')} does not fit the network, which takes {rule}, "
            f"at least {_short(self.minimum)}; the nearest sizes that work: {nearest}"
        )

    def output_size(self, input_size: PerAxis) -> tuple[int, ...]:
        """The output size for an input size.

        Raises:
            ValueError: the network does not take ``input_size`` (see `check`).
        """
        self.check(input_size)
        return tuple(n - 2 * margin for n, margin in zip(self._sizes(input_size), self.margin, strict=True))

    def loss_margins(self, loss_margin: PerAxis = 0) -> tuple[int, ...]:
        """Voxels from each face of the output that the loss leaves out, one figure for each axis.

        One number counts for the axes along which the network sees neighbours; a network on slices keeps all slices.

        >>> Geometry(receptive_field=(87, 87, 1)).loss_margins(18)
        (18, 18, 0)
        """
        if isinstance(loss_margin, int):
            return tuple(loss_margin if field > 1 else 0 for field in self.receptive_field)
        return self._sizes(loss_margin)

    def unseen(self, loss_margin: PerAxis = 0) -> tuple[int, ...]:
        """Voxels from each face of the input that the loss does not see: the margin and those that it leaves out.

        >>> Geometry(receptive_field=(51, 51), margin=24).unseen(2)
        (26, 26)
        """
        return tuple(m + n for m, n in zip(self.margin, self.loss_margins(loss_margin), strict=True))

    def input_size(self, output_size: PerAxis) -> tuple[int, ...]:
        """The smallest input size whose output covers ``output_size``.

        >>> Geometry(receptive_field=(44, 44), margin=20, multiple=4).input_size((16, 17))
        (56, 60)
        """
        sizes = []
        for axis, n in enumerate(self._sizes(output_size)):
            least = max(self.minimum[axis], n + 2 * self.margin[axis])
            sizes.append(least + (self.base[axis] - least) % self.multiple[axis])
        return tuple(sizes)

    def preferred_size(self, input_size: PerAxis) -> tuple[int, ...]:
        """The smallest size that works, is at least ``input_size`` and, where one exists, runs fastest.

        >>> Geometry(receptive_field=(87, 87), preferred_multiple=4).preferred_size((63, 64))
        (64, 64)
        """
        sizes = []
        for axis, n in enumerate(self._sizes(input_size)):
            multiple, preferred = self.multiple[axis], self.preferred_multiple[axis]
            least = max(self.minimum[axis], n)
            first = least + (self.base[axis] - least) % multiple
            candidates = range(first, first + multiple * preferred, multiple)
            sizes.append(next((size for size in candidates if size % preferred == 0), first))
        return tuple(sizes)


def _short(values: Sequence[int], separator: str = ", ") -> str:
    """Equal values as one number, others joined."""
    if separator == ", " and len(set(values)) == 1:
        return str(values[0])
    return separator.join(map(str, values))


def geometry_of(network: Any) -> Geometry:
    """The geometry that a network states, also through the wrappers of torch.compile and data parallelism.

    Raises:
        ValueError: the network states none; the configuration must then.

    >>> from rarevox.networks import DeepMedic
    >>> geometry_of(DeepMedic(in_channels=1, out_channels=2)).margin
    (24, 24, 24)
    """
    inner = network
    while not isinstance(getattr(inner, "geometry", None), Geometry):
        wrapped = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if wrapped is None:
            raise ValueError(
                f"{type(network).__name__} states no geometry; add one to the configuration, for example "
                "geometry: {_target_: rarevox.networks.Geometry, receptive_field: [65, 65, 65], margin: 0, "
                "multiple: 16}"
            )
        inner = wrapped
    return inner.geometry

"""Channel dropout: patches of which channels are missing, so that a network learns to do without them."""

from __future__ import annotations

from collections.abc import Sequence

from rarevox.transforms.batches.intensity import Batch, BatchCompose, BatchTransform, Generators


class BatchDropChannels(BatchTransform):
    """Set each channel of a patch to 0 with a probability of its own; never all of them, nor a required one.

    Where every channel would go, one of them, any alike, stays. Intensities are normalised before, so that 0 is what
    :class:`rarevox.transforms.ZeroMissingChannelsd` puts in place of a channel that a scan lacks.

    Args:
        keys: the volumes (B, C, *spatial).
        prob: of each channel that is not required.
        channels: their names, in order.
        required: names of those that never go.
        before: a transform of batches that comes first; None for none.

    Raises:
        ValueError: a required name that is no channel, ``prob`` of 1 or more, no channel that may go.

    Source: Havaei et al., HeMIS, MICCAI 2016, and many since, for training with channels left out at random.

    >>> import numpy as np, torch
    >>> drop = BatchDropChannels("image", 0.9, ["FLAIR", "T1"], ["FLAIR"])
    >>> drop({"image": torch.ones(1, 2, 1)}, [np.random.default_rng(0)])["image"].tolist()
    [[[1.0], [0.0]]]
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        prob: float,
        channels: Sequence[str],
        required: Sequence[str] = (),
        *,
        before: BatchTransform | BatchCompose | None = None,
    ) -> None:
        super().__init__(keys, prob)
        check_required(channels, required)
        if prob >= 1:
            raise ValueError(f"channel_dropout is {prob}; expected a probability below 1, such as 0.25")
        self.count = len(channels)
        self.free = [number for number, name in enumerate(channels) if name not in required]
        self.all_may_go = len(self.free) == len(channels)
        if prob > 0 and (not self.free or len(channels) < 2):
            raise ValueError(f"channel_dropout is {prob}, and no channel of {', '.join(channels)} may be left out")
        self.before = before

    def __call__(self, batch: Batch, generators: Generators) -> Batch:
        """Drop; every patch draws as many numbers, whatever goes."""
        if self.before is not None:
            batch = self.before(batch, generators)
        for row, generator in enumerate(generators):
            gone = generator.random(len(self.free)) < self.prob
            kept = int(generator.integers(len(self.free)))
            if gone.all() and self.all_may_go:
                gone[kept] = False
            for key in self.keys:
                for place, number in enumerate(self.free):
                    if gone[place]:
                        batch[key][row, number :: self.count] = 0  # of each of several CT windows too
        return batch


def check_required(channels: Sequence[str], required: Sequence[str]) -> None:
    """Refuse required channels that are none.

    Raises:
        ValueError: names it.
    """
    for name in required:
        if name not in channels:
            raise ValueError(f"required_channels names {name!r}; the channels are {', '.join(channels)}")

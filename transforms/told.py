"""What is odd about an image, carried along in its metadata to whoever reports on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WARNINGS = "warnings"
"""The key of an image's metadata under which stands what is odd about it, a sentence a line; empty where nothing is.

A text and no list, so that images of a batch may differ in it.
"""


def tell(image: torch.Tensor, sentences: Iterable[str]) -> None:
    """Add sentences to what is told of an image, a line each; empty ones are left out.

    A tensor without metadata has no place for them.

    >>> import torch
    >>> from monai.data import MetaTensor
    >>> image = MetaTensor(torch.zeros(1, 2))
    >>> tell(image, ["it is blank", ""])
    >>> image.meta[WARNINGS]
    'it is blank'
    """
    told = [sentence for sentence in sentences if sentence]
    if told and hasattr(image, "meta"):
        before = str(image.meta.get(WARNINGS, ""))
        image.meta[WARNINGS] = "\n".join([*([before] if before else []), *told])

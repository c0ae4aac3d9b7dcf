"""A configuration whose network learns nested regions, an output each, in place of labels that exclude one another."""

from __future__ import annotations

from rarevox.losses import Loss
from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import target_name
from rarevox.pipeline.compose import Composition, Source, overlay
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.nested import by_depth, nested_regions
from rarevox.pipeline.errors import RequestError


def with_regions(composed: Composition, data: Dataset) -> None:
    """Turn a composed training configuration into one of nested regions, where its key ``learn`` asks for them.

    The classes are put in the order of their depth, so that a voxel's class is the number of regions that hold it; the
    network has an output for each region, the loss takes them one by one, and labels come from their thresholds.

    Raises:
        RequestError: the dataset's structures are not nested (which, and why); a loss that takes no outputs one by one.
    """
    config = composed.config
    learn = config["learn"]
    if learn == "labels":
        return
    regions = nested_regions(data.labels, data.composites, None if learn == "regions" else learn)
    values = by_depth(regions)
    names = {value: name for name, value in data.labels.items()}
    before = config["label_values"]
    composed.take(
        {
            "regions": {name: list(held) for name, held in regions.items()},
            "label_values": values,
            "structures": [names[value] for value in values[1:]],
            "out_channels": len(regions),
            "decision": overlay("tasks", "regions")["decision"],
        },
        Source.DATASET,
    )
    library = config["lesion_library"]
    if isinstance(library, dict) and isinstance(library.get("classes"), list):
        library["classes"] = sorted(values.index(before[number]) for number in library["classes"])
    # (One that is no class is refused by what reads it.)
    if isinstance(library, dict) and library.get("map_class") in range(1, len(before)):
        library["map_class"] = values.index(before[library["map_class"]])
    _make_sigmoid(composed)


def _make_sigmoid(composed: Composition) -> None:
    """Let the loss take each output by itself.

    Raises:
        RequestError: it cannot.
    """
    entry = composed.config["loss"]
    ours = build(composed.config, "loss") if isinstance(entry, dict) else None
    if not isinstance(ours, Loss):
        raise RequestError(
            f"{target_name(entry)} is no loss of rarevox.losses, and only these learn nested regions; take one of them "
            "(--loss), or learn labels (without --config regions)"
        )
    composed.take({"loss": {**entry, "sigmoid": True}}, composed.origin["loss"])

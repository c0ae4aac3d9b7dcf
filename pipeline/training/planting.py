"""What planting asks of a configuration: labels that follow, one size of voxels, a class for shapes of lesion maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import target_name
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.planting.library import class_of_maps
from rarevox.transforms.planting.maps import SAME_VOXELS, map_files


def needs_regions(config: Mapping[str, Any]) -> bool:
    """Whether the loss needs the regions of connected components."""
    return bool(getattr(build(config, "loss"), "needs_regions", False))


def hindrance(config: Mapping[str, Any]) -> str:
    """Why lesions cannot be planted with this loss, or between these scans; nothing where they can.

    >>> seen = [[1, 1], [1, 1], [1, 5]]
    >>> hindrance({"spacing": None, "spacing_seen_mm": seen, "loss": {"_target_": "torch.nn.Identity"}})
    'the training scans have voxels of 1 to 5 mm along one axis: a lesion of one would be of another size in another'
    """
    if needs_regions(config):
        return f"{target_name(config['loss'])} needs the regions of components, which do not follow planted lesions"
    for low, high in (config.get("spacing_seen_mm") or []) if config.get("spacing") is None else []:
        if high > SAME_VOXELS * low:
            return (
                f"the training scans have voxels of {low:g} to {high:g} mm along one axis: a lesion of one would be of "
                "another size in another"
            )
    return ""


def as_it_began(config: dict[str, Any]) -> None:
    """Let a run go on that began when more was planted than may be now: what is doubtful is told.

    Its lesion maps are of class 1 where it does not say of which, as they were then.
    """
    library: Any = config.get("lesion_library")
    if not config.get("planting_share") or not isinstance(library, dict):
        return
    if config.get("lesion_maps") is not None:
        library.setdefault("map_class", 1)
    why = hindrance(config)
    if why:
        console.say("[yellow]planting[/yellow]: {}; the run goes on as it began", why)


def require_planting(config: Mapping[str, Any]) -> None:
    """Refuse planting that cannot be, before any volume is read.

    Raises:
        RequestError: why not, and what to do.
    """
    if not config.get("planting_share"):
        if config.get("lesion_maps") is not None:
            raise RequestError(
                f"lesion_maps is {config['lesion_maps']}, shapes of lesions to plant, and planting_share is 0: none is "
                "planted; set both (--set planting_share=0.5), or neither"
            )
        return
    why = hindrance(config)
    if why:
        remedy = "take another loss" if needs_regions(config) else "set spacing"
        raise RequestError(f"{why}; {remedy}, or planting_share=0")
    options: Any = config.get("planting")
    if config["background_share"] == 1 and isinstance(options, dict) and options.get("into") == "foreground":
        raise RequestError(
            "background_share is 1: no patch is drawn for foreground, of which lesions could be planted into "
            f"planting_share, {config['planting_share']}; set planting_share=0, or background_share below 1"
        )
    library: Any = config.get("lesion_library")
    if isinstance(library, dict):  # its options, and the transform's: where nothing is planted, no case is read
        build({**config, "planting_share": 0, "lesion_library": {**library, "cases": [], "maps": None}}, "planting")
    if config.get("lesion_maps") is not None and isinstance(library, dict):
        classes = library.get("classes")
        every = set(range(1, len(config["structures"]) + 1))
        if isinstance(library.get("map_class"), str) or isinstance(classes, str):  # computed
            return
        folder = Path(str(config["lesion_maps"]))
        try:
            class_of_maps(folder, every if classes is None else set(classes), library.get("map_class"))
        except ValueError as error:
            names = ", ".join(f"{number}: {name}" for number, name in enumerate(config["structures"], 1))
            raise RequestError(f"{error} ({names})") from error
        try:
            map_files(folder, 1)
        except ValueError as error:
            raise RequestError(f"lesion_maps: {error}") from error

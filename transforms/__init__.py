"""What MONAI's transforms lack: reading any scan, foreground patches, normalisation by region, the way back home."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rarevox.transforms.batches.affine import BatchAffine
    from rarevox.transforms.batches.appearance import BatchAdjustContrast, BatchGaussianSmooth
    from rarevox.transforms.batches.drop_channels import BatchDropChannels
    from rarevox.transforms.batches.intensity import (
        BatchCompose,
        BatchFlip,
        BatchGaussianNoise,
        BatchScaleIntensity,
        BatchShiftIntensity,
        BatchTransform,
    )
    from rarevox.transforms.clean import CleanLabelsd
    from rarevox.transforms.components import ComponentRegionsd, component_regions
    from rarevox.transforms.decision import Decision
    from rarevox.transforms.intensity.artefacts import RandGhostingd, RandMotiond
    from rarevox.transforms.intensity.ct_window import CTWindowd
    from rarevox.transforms.intensity.n4 import N4Correctedd
    from rarevox.transforms.intensity.normalise import ZScored
    from rarevox.transforms.intensity.normaliser import Normaliser
    from rarevox.transforms.intensity.nyul import NyulNormalised
    from rarevox.transforms.intensity.robust import RobustZScored
    from rarevox.transforms.intensity.surround import FillSurroundd
    from rarevox.transforms.intensity.tissue import common_tissue
    from rarevox.transforms.intensity.white_matter import WhiteMatterZScored
    from rarevox.transforms.keep_foreground import KeepForegroundd
    from rarevox.transforms.labels import LabelsToClassesd
    from rarevox.transforms.missing_channels import ZeroMissingChannelsd
    from rarevox.transforms.native_grid import LabelsOnNativeGridd
    from rarevox.transforms.nested import NestedDecision
    from rarevox.transforms.planting.batch import BatchPlantLesions
    from rarevox.transforms.planting.library import LesionLibrary
    from rarevox.transforms.planting.transform import RandPlantLesionsd
    from rarevox.transforms.reader import Scan, ScanError, read_scan
    from rarevox.transforms.region import CropToContentd
    from rarevox.transforms.sampling.anatomy import AnatomyMaskd
    from rarevox.transforms.sampling.background import BackgroundMixSampler
    from rarevox.transforms.sampling.foreground_index import ForegroundIndex
    from rarevox.transforms.sampling.patch_frame import PatchFrame
    from rarevox.transforms.sampling.patches import IndexForegroundd, RandForegroundPatchd
    from rarevox.transforms.sampling.samplers import (
        ClassBalancedSampler,
        ForegroundUniformSampler,
        GridSampler,
        LesionBalancedSampler,
        PatchSampler,
        UniformSampler,
    )
    from rarevox.transforms.scan_reader import ScanReader
    from rarevox.transforms.slices import SlicesLastd

_PLACES = {
    "batches.affine": ("BatchAffine",),
    "batches.appearance": ("BatchAdjustContrast", "BatchGaussianSmooth"),
    "batches.drop_channels": ("BatchDropChannels",),
    "batches.intensity": (
        "BatchCompose",
        "BatchFlip",
        "BatchGaussianNoise",
        "BatchScaleIntensity",
        "BatchShiftIntensity",
        "BatchTransform",
    ),
    "clean": ("CleanLabelsd",),
    "components": ("ComponentRegionsd", "component_regions"),
    "decision": ("Decision",),
    "intensity.artefacts": ("RandGhostingd", "RandMotiond"),
    "intensity.ct_window": ("CTWindowd",),
    "intensity.n4": ("N4Correctedd",),
    "intensity.normalise": ("ZScored",),
    "intensity.normaliser": ("Normaliser",),
    "intensity.nyul": ("NyulNormalised",),
    "intensity.robust": ("RobustZScored",),
    "intensity.surround": ("FillSurroundd",),
    "intensity.tissue": ("common_tissue",),
    "intensity.white_matter": ("WhiteMatterZScored",),
    "keep_foreground": ("KeepForegroundd",),
    "labels": ("LabelsToClassesd",),
    "missing_channels": ("ZeroMissingChannelsd",),
    "native_grid": ("LabelsOnNativeGridd",),
    "nested": ("NestedDecision",),
    "planting.batch": ("BatchPlantLesions",),
    "planting.library": ("LesionLibrary",),
    "planting.transform": ("RandPlantLesionsd",),
    "reader": ("Scan", "ScanError", "read_scan"),
    "region": ("CropToContentd",),
    "sampling.anatomy": ("AnatomyMaskd",),
    "sampling.background": ("BackgroundMixSampler",),
    "sampling.foreground_index": ("ForegroundIndex",),
    "sampling.patch_frame": ("PatchFrame",),
    "sampling.patches": ("IndexForegroundd", "RandForegroundPatchd"),
    "sampling.samplers": (
        "ClassBalancedSampler",
        "ForegroundUniformSampler",
        "GridSampler",
        "LesionBalancedSampler",
        "PatchSampler",
        "UniformSampler",
    ),
    "scan_reader": ("ScanReader",),
    "slices": ("SlicesLastd",),
}
"""The module of each name. It is imported when the name is first asked for (PEP 562): who reads scans, as a command
that leaves the computing to its workers does, waits for neither PyTorch nor MONAI."""
_MODULES = {name: f"{__name__}.{module}" for module, names in _PLACES.items() for name in names}


if not TYPE_CHECKING:  # a checker would take any name for one that there is

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "AnatomyMaskd",
    "BackgroundMixSampler",
    "BatchAdjustContrast",
    "BatchAffine",
    "BatchCompose",
    "BatchDropChannels",
    "BatchFlip",
    "BatchGaussianNoise",
    "BatchGaussianSmooth",
    "BatchPlantLesions",
    "BatchScaleIntensity",
    "BatchShiftIntensity",
    "BatchTransform",
    "CTWindowd",
    "ClassBalancedSampler",
    "CleanLabelsd",
    "ComponentRegionsd",
    "CropToContentd",
    "Decision",
    "FillSurroundd",
    "ForegroundIndex",
    "ForegroundUniformSampler",
    "GridSampler",
    "IndexForegroundd",
    "KeepForegroundd",
    "LabelsOnNativeGridd",
    "LabelsToClassesd",
    "LesionBalancedSampler",
    "LesionLibrary",
    "N4Correctedd",
    "NestedDecision",
    "Normaliser",
    "NyulNormalised",
    "PatchFrame",
    "PatchSampler",
    "RandForegroundPatchd",
    "RandGhostingd",
    "RandMotiond",
    "RandPlantLesionsd",
    "RobustZScored",
    "Scan",
    "ScanError",
    "ScanReader",
    "SlicesLastd",
    "UniformSampler",
    "WhiteMatterZScored",
    "ZScored",
    "ZeroMissingChannelsd",
    "common_tissue",
    "component_regions",
    "read_scan",
]

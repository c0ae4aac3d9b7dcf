"""What MONAI's transforms lack: reading any scan, foreground patches, normalisation by region, the way back home."""

from rarevox.transforms.batches.affine import BatchAffine
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
from rarevox.transforms.component_regions import ComponentRegionsd, component_regions
from rarevox.transforms.decision import Decision
from rarevox.transforms.intensity.ct_window import CTWindowd
from rarevox.transforms.intensity.n4 import N4Correctedd
from rarevox.transforms.intensity.normalise import ZScored
from rarevox.transforms.intensity.normaliser import Normaliser
from rarevox.transforms.intensity.nyul import NyulNormalised
from rarevox.transforms.intensity.robust import RobustZScored
from rarevox.transforms.intensity.surround import FillSurroundd
from rarevox.transforms.intensity.white_matter import WhiteMatterZScored
from rarevox.transforms.keep_foreground import KeepForegroundd
from rarevox.transforms.labels import LabelsToClassesd
from rarevox.transforms.missing_channels import ZeroMissingChannelsd
from rarevox.transforms.native_grid import LabelsOnNativeGridd
from rarevox.transforms.nested import NestedDecision
from rarevox.transforms.planting.library import LesionLibrary
from rarevox.transforms.planting.transform import RandPlantLesionsd
from rarevox.transforms.reader import Scan, ScanError, ScanReader, read_scan
from rarevox.transforms.region import CropToContentd
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
from rarevox.transforms.slices import SlicesLastd

__all__ = [
    "BackgroundMixSampler",
    "BatchAffine",
    "BatchCompose",
    "BatchDropChannels",
    "BatchFlip",
    "BatchGaussianNoise",
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
    "component_regions",
    "read_scan",
]

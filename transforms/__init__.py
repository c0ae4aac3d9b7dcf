"""What MONAI's transforms lack: reading any scan, foreground patches, normalisation by region, the way back home."""

from transforms.batch_affine import BatchAffine
from transforms.batch_transforms import (
    BatchCompose,
    BatchFlip,
    BatchGaussianNoise,
    BatchScaleIntensity,
    BatchShiftIntensity,
    BatchTransform,
)
from transforms.clean import CleanLabelsd
from transforms.component_regions import ComponentRegionsd, component_regions
from transforms.ct_window import CTWindowd
from transforms.foreground_index import ForegroundIndex
from transforms.keep_foreground import KeepForegroundd
from transforms.labels import LabelsToClassesd
from transforms.n4 import N4Correctedd
from transforms.native_grid import LabelsOnNativeGridd
from transforms.normalise import ZScored
from transforms.normaliser import Normaliser
from transforms.nyul import NyulNormalised
from transforms.patch_frame import PatchFrame
from transforms.patches import IndexForegroundd, RandForegroundPatchd
from transforms.reader import Scan, ScanError, ScanReader, read_scan
from transforms.region import CropToContentd
from transforms.robust import RobustZScored
from transforms.samplers import (
    ClassBalancedSampler,
    ForegroundUniformSampler,
    GridSampler,
    LesionBalancedSampler,
    PatchSampler,
    UniformSampler,
)
from transforms.slices import SlicesLastd
from transforms.white_matter import WhiteMatterZScored

__all__ = [
    "BatchAffine",
    "BatchCompose",
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
    "ForegroundIndex",
    "ForegroundUniformSampler",
    "GridSampler",
    "IndexForegroundd",
    "KeepForegroundd",
    "LabelsOnNativeGridd",
    "LabelsToClassesd",
    "LesionBalancedSampler",
    "N4Correctedd",
    "Normaliser",
    "NyulNormalised",
    "PatchFrame",
    "PatchSampler",
    "RandForegroundPatchd",
    "RobustZScored",
    "Scan",
    "ScanError",
    "ScanReader",
    "SlicesLastd",
    "UniformSampler",
    "WhiteMatterZScored",
    "ZScored",
    "component_regions",
    "read_scan",
]

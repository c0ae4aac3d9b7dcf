"""What MONAI's transforms lack: reading any scan, foreground patches, normalisation by region, the way back home."""

from transforms.keep_foreground import KeepForegroundd
from transforms.labels import LabelsToClassesd
from transforms.native_grid import LabelsOnNativeGridd
from transforms.normalise import ZScored
from transforms.patches import ForegroundIndex, IndexForegroundd, RandForegroundPatchd
from transforms.reader import Scan, ScanError, ScanReader, read_scan
from transforms.region import CropToContentd

__all__ = [
    "CropToContentd",
    "ForegroundIndex",
    "IndexForegroundd",
    "KeepForegroundd",
    "LabelsOnNativeGridd",
    "LabelsToClassesd",
    "RandForegroundPatchd",
    "Scan",
    "ScanError",
    "ScanReader",
    "ZScored",
    "read_scan",
]

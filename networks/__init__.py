"""Segmentation networks that state their geometry and return linear logits.

``Network(in_channels=…, out_channels=…, spatial_dims=…, …)``; the logits are (B, out_channels, *spatial), smaller than
the input by twice the margin that ``network.geometry`` states.
"""

from networks.deepmedic import DeepMedic
from networks.geometry import Geometry, geometry_of
from networks.highresnet import HighResNet
from networks.monai_weights import from_monai
from networks.twopathcnn import TwoPathCNN
from networks.unet import ValidUNet

__all__ = ["DeepMedic", "Geometry", "HighResNet", "TwoPathCNN", "ValidUNet", "from_monai", "geometry_of"]

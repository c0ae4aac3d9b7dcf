"""Segmentation networks that state their geometry and return linear logits.

``Network(in_channels=…, out_channels=…, spatial_dims=…, …)``; the logits are (B, out_channels, *spatial), smaller than
the input by twice the margin that ``network.geometry`` states.
"""

from rarevox.networks.deepmedic import DeepMedic
from rarevox.networks.geometry import Geometry, geometry_of
from rarevox.networks.highresnet import HighResNet
from rarevox.networks.monai_weights import from_monai
from rarevox.networks.slices import SliceWise
from rarevox.networks.twopathcnn import TwoPathCNN
from rarevox.networks.unet import ValidUNet

__all__ = ["DeepMedic", "Geometry", "HighResNet", "SliceWise", "TwoPathCNN", "ValidUNet", "from_monai", "geometry_of"]

"""Augmentation of whole batches, on the device where they are."""

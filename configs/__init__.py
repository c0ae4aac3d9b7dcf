"""The MONAI bundle configuration and its overlays; see docs/configuration.md."""

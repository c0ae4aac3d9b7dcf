"""Studies and cross-validation."""

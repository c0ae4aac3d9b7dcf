"""What `predict` writes of a scan: label maps, entropy, probabilities and whatever else is asked for."""

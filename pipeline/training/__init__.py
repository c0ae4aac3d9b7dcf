"""What a training run is made of: budget, step, validation, checkpoints, logs."""

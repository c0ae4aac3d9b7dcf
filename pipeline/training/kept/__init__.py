"""What a training keeps: checkpoints to go on from, weights, and those that it began with."""

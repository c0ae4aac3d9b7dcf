"""What is written down of a training: the log and whoever follows it, the gradients of the terms."""

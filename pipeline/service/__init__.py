"""A run behind HTTP: one model, one bounded queue, what is sent in told apart by its content and never trusted."""

"""Studies: a grid of trainings as a readable file, run on one machine or many, and the folds of a cross-validation."""

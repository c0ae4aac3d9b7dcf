"""What a step sees: how many patches of each case, their seeds, the loader and its workers."""

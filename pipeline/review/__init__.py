"""Looking back on what was reviewed: annotators against one another, and Dice over time."""

"""One cell, from its claim to its row."""

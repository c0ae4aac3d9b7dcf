"""One cell of a study."""

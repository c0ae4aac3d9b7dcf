"""Results to look at: the table in the terminal and the page with charts and slices."""

"""What a run from elsewhere may hold: the gate that its configurations pass, its sums and its signature."""

"""What is looked at in each case, what is found wrong, and the copies that are written in its place."""

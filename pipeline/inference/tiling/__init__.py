"""A scan in tiles and windows: how large they are, what goes through the network, how they are put together."""

"""How far probabilities may be believed: their errors near structures, and the temperature that lowers them."""

"""Where patches are taken: the index of the foreground, the places that fit, the samplers that choose among them."""

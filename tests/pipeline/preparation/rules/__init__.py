"""Each rule of the plan: what it chooses of which fingerprint, and what its reason says."""

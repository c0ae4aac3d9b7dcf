"""How a dataset is to be trained on: a rule for each configuration key, from the fingerprint."""

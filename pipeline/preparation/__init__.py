"""From a source of scans to dataset.json and fingerprint.json: sources, checks, split, plan."""

"""Copies of scans with something corrected: faults that have one remedy, the bias field. Originals stay as they are."""

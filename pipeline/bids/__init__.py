"""Results as a BIDS derivative dataset (Brain Imaging Data Structure)."""

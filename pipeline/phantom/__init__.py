"""The synthetic cohort of the demo: anatomy, contrast, lesions."""

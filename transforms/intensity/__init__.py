"""Intensities made comparable: windows, z-scores by region, landmarks, the bias field."""

"""Engines of studies."""

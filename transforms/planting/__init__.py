"""Lesions transplanted into healthy tissue: donors and their library, places, blending, the transform."""

"""From two label maps to rows of figures, and from rows to summaries: overlap, surfaces, components, strata of size."""

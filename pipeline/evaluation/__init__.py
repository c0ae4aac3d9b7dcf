"""From label maps to figures: metrics, aggregates, comparison, gates, reports."""

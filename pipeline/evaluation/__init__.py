"""From label maps to figures: metrics, aggregates, comparison, gates, reports."""

from rarevox.pipeline.faces import face

__getattr__, __dir__, __all__ = face(__name__, {"metrics.options": ["MetricOptions"], "scorer": ["CaseScorer"]})

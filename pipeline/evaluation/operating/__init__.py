"""Where labels begin: curves over thresholds and confidences, and the point on them that serves an aim."""

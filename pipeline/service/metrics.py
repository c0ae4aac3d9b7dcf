"""Counts and times of a service in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter

BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds in seconds of the histogram's classes."""
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counted from several threads.

    >>> metrics = Metrics()
    >>> metrics.count(200); metrics.observe(3.0)
    >>> [line for line in metrics.text(queued=2, places=4).splitlines() if 'le="5"' in line or "status=" in line]
    ['rarevox_requests_total{status="200"} 1', 'rarevox_segmentation_seconds_bucket{le="5"} 1']
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: Counter[int] = Counter()
        self._jobs: Counter[str] = Counter()
        self._classes = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def count(self, status: int) -> None:
        """A request for a segmentation ended with a status of HTTP."""
        with self._lock:
            self._statuses[status] += 1

    def ended(self, state: str) -> None:
        """A job ended: done, failed or cancelled."""
        with self._lock:
            self._jobs[state] += 1

    def observe(self, seconds: float) -> None:
        """A scan took so long to be read, computed and written."""
        with self._lock:
            self._classes[sum(seconds > bound for bound in BUCKETS)] += 1
            self._seconds += seconds

    def mean_seconds(self) -> float:
        """What a scan took on average; 0 before the first."""
        with self._lock:
            count = sum(self._classes)
            return self._seconds / count if count else 0.0

    def text(self, *, queued: int, places: int, replaced: int = 0) -> str:
        """All of them.

        Args:
            queued: places that are taken.
            places: that there are.
            replaced: processes that ended and were replaced.
        """
        with self._lock:
            lines = [
                "# HELP rarevox_requests_total Requests for segmentations by status.",
                "# TYPE rarevox_requests_total counter",
            ]
            lines += [f'rarevox_requests_total{{status="{code}"}} {n}' for code, n in sorted(self._statuses.items())]
            lines += ["# HELP rarevox_jobs_total Jobs that ended, by state.", "# TYPE rarevox_jobs_total counter"]
            lines += [f'rarevox_jobs_total{{state="{state}"}} {n}' for state, n in sorted(self._jobs.items())]
            name = "rarevox_replaced_total"
            lines += [f"# HELP {name} Processes of the model that ended and were replaced.", f"# TYPE {name} counter"]
            lines.append(f"{name} {replaced}")
            name = "rarevox_segmentation_seconds"
            lines += [f"# HELP {name} Seconds a scan took, without waiting.", f"# TYPE {name} histogram"]
            total = 0
            for bound, count in zip((*map("{:g}".format, BUCKETS), "+Inf"), self._classes, strict=True):
                total += count
                lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
            lines += [f"{name}_sum {self._seconds:.6f}", f"{name}_count {total}"]
        for gauge, told, value in (
            ("rarevox_queue_taken", "Places of the queue that are taken.", queued),
            ("rarevox_queue_places", "Places of the queue.", places),
        ):
            lines += [f"# HELP {gauge} {told}", f"# TYPE {gauge} gauge", f"{gauge} {value}"]
        return "\n".join(lines) + "\n"

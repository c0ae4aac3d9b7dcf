"""The bookkeeping of many scans: a journal that grows by a line a scan, claims, and what is collected from both."""

"""What a dataset is: its two files and their sections, structures of several labels, volumes as they are stored."""

from rarevox.pipeline.faces import face

__getattr__, __dir__, __all__ = face(__name__, {"datalist": ["find_scans", "is_uncorrected", "section"]})

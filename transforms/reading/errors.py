"""The one exception of reading."""

from __future__ import annotations


class ScanError(ValueError):
    """A scan cannot be used as it is; the message is one sentence that names the file and the fault.

    Attributes:
        check: the name of the fault: ``missing-file``, ``unreadable``, ``singular-affine``, ``dicom-series`` or
            ``channel-grid``.
    """

    def __init__(self, message: str, *, check: str = "unreadable") -> None:
        super().__init__(message)
        self.check = check

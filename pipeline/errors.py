"""The one exception that a user is meant to read, and the helpers that word it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RequestError(Exception):
    """The request itself is wrong; the message is one clear line: what, where, what was expected, what to do.

    The command line prints it without a traceback and ends with status 2.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name closest to ``name``, worded for the end of an error message.

    >>> nearest("highresent", ["deepmedic", "highresnet"])
    "did you mean 'highresnet'? Valid names: deepmedic, highresnet"
    >>> nearest("zzz", ["a"])
    'valid names: a'
    """
    names = sorted(valid)
    listed = ", ".join(names)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? Valid names: {listed}" if close else f"valid names: {listed}"

"""The one exception that a user is meant to read, and the helpers that word it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RequestError(Exception):
    """The request itself is wrong; the message is one clear line: what, where, what was expected, what to do.

    The command line prints it without a traceback and ends with status 2.
    """


def nearest(name: str, valid: Iterable[str], most: int | None = None) -> str:
    """The valid name closest to ``name``, worded for the end of an error message.

    Args:
        name: what was given.
        valid: what might have been.
        most: so many of these are listed at the most, the ones most like the name; None lists all.

    >>> nearest("highresent", ["deepmedic", "highresnet"])
    "did you mean 'highresnet'? Valid names: deepmedic, highresnet"
    >>> nearest("zzz", ["a"])
    'valid names: a'
    >>> nearest("rate", ["date", "b", "c", "a"], most=2)
    "did you mean 'date'? Valid names: a, date and 2 more"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    shown = names if most is None else sorted(difflib.get_close_matches(name.lower(), names, n=most, cutoff=0.0))
    listed = ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(shown) < len(names) else "")
    return f"did you mean {close[0]!r}? Valid names: {listed}" if close else f"valid names: {listed}"


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line, however many layers wrapped the error in reports of their own.

    The first error of a kind of this project's that the chain of causes meets (its message was worded to be read),
    else the innermost one.

    >>> try:
    ...     try:
    ...         raise ValueError("the scan is empty")
    ...     except ValueError as cause:
    ...         raise RuntimeError("applying transform ...") from cause
    ... except RuntimeError as error:
    ...     reason_of(error)
    'the scan is empty'
    """
    while error.__cause__ is not None and not type(error).__module__.startswith("rarevox."):
        error = error.__cause__
    said = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() of a KeyError is quoted
    return (" ".join(str(said).split()) or type(error).__name__)[:500]

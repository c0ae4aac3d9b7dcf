"""Building entries of a configuration, with whatever goes wrong told by the entry's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rarevox.pipeline.errors import RequestError, reason_of

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def build(config: Mapping[str, Any], key: str) -> Any:
    """Build one entry of a configuration, and only what it refers to.

    >>> build({"size": 3, "identity": {"_target_": "torch.eye", "n": "@size"}, "broken": {"_target_": "no.such"}},
    ...       "identity").shape
    torch.Size([3, 3])

    Raises:
        RequestError: it cannot be built; the message says which entry and why.
    """
    from monai.bundle import ConfigParser

    return parsed(ConfigParser(with_literal_paths(config)), key)


def with_literal_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose top-level paths mean themselves, whatever characters they hold.

    MONAI's reader takes ``#`` in any text for a separator of its own. Paths are recognised by being absolute.
    """
    return {k: literal(v) if isinstance(v, str) and v.startswith("/") else v for k, v in config.items()}


def literal(text: str) -> str:
    """A text that MONAI's reader gives back as it is.

    One without characters of MONAI's stands as it is, any other as an expression that is a quoted text and no more.

    >>> literal("/data/run"), literal("/data/run#1")
    ('/data/run', "$'/data/run\\\\x231'")
    """
    if not (text.startswith("$") or set(text) & set("@%#") or "::" in text):
        return text
    quoted = repr(text)
    for character in "@%#":
        quoted = quoted.replace(character, f"\\x{ord(character):02x}")
    return f"${quoted}"


def parsed(parser: ConfigParser, key: str) -> Any:
    """An entry of a configuration, built with what it refers to.

    Args:
        parser: MONAI's, with the configuration.
        key: of the entry.

    Raises:
        RequestError: it cannot be built; the message says which entry and why.
        KeyboardInterrupt: Ctrl-C came while a module was imported for it.
    """
    try:
        return parser.get_parsed_content(key)
    except Exception as error:
        if _interrupted(error):
            raise KeyboardInterrupt from error
        key = _failing(error, key)
        while not isinstance(error, RequestError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, RequestError):
            raise error from None
        raise RequestError(f"configuration entry {key!r} cannot be built: {reason_of(error)}") from error


def _failing(error: BaseException, key: str) -> str:
    """The innermost entry that was being resolved when an error came, as MONAI's frames say; else the one asked for."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_resolve_one_item":
            key = str(trace.tb_frame.f_locals.get("id", key)).replace("::", "#")
        trace = trace.tb_next
    return key


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what began a chain of errors: ``pydoc.locate`` takes it for a fault of the module."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None

"""Names for prepared cases, so that a stored one can never be stale.

A name is the SHA-256 of everything that the result depends on: the contents of the case's files, the transforms with
every option they resolved to, the source text of transforms that no released package versions, and the versions of the
packages that do the work. Whatever changes, the name changes, and the case is prepared anew.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import hashlib
import inspect
import json
import re
import stat
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.data.formats import suffix_of
from rarevox.pipeline.files import write_json
from rarevox.transforms.reader import ScanError
from rarevox.transforms.reading.files import open_regular, require_regular
from rarevox.transforms.reading.parts import parts_of

FORMAT = 1
"""Raised when the stored form changes."""
PACKAGES = ("monai", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "scikit-image")
FILE_KEYS = ("image", "label", "mask")
UNUSED_KEYS = ("case", "fold")
"""Entries of a case that no transform looks at."""
FRESH_SECONDS = 2.0
"""A file changed so shortly ago may change again within the resolution of its time stamp: its hash is not noted."""


def digest(content: object) -> str:
    """The SHA-256 of plain content, written as JSON.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}), digest([1]) == digest([2])
    (True, False)
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def describe(value: object, inside: tuple[int, ...] = ()) -> Any:
    """What decides the behaviour of a transform, as plain content: its class, its source or version, its options.

    Random states are left out; arrays and tensors count with every value. Two objects of one class with the same
    attributes have the same description, in every process.

    >>> from monai.transforms import Spacingd
    >>> describe(Spacingd("image", (1, 1, 1))) == describe(Spacingd("image", (1, 1, 1)))
    True
    >>> describe(Spacingd("image", (1, 1, 1))) == describe(Spacingd("image", (1, 1, 2)))
    False
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return str(value) if isinstance(value, enum.Enum) else value
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, (np.random.RandomState, np.random.Generator, torch.Generator)):
        return "random"
    if isinstance(value, torch.Tensor):
        return ["tensor", describe(value.detach().cpu().float().numpy(), inside), str(value.dtype)]
    if isinstance(value, np.ndarray):
        return ["array", str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): describe(item, inside) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(describe(item, inside), sort_keys=True, default=str) for item in value)
    if isinstance(value, (list, tuple)):
        return [describe(item, inside) for item in value]
    if isinstance(value, functools.partial):
        return ["partial", describe(value.func, inside), describe(value.args), describe(value.keywords)]
    if inspect.isroutine(value) or inspect.isclass(value):
        return [f"{value.__module__}.{value.__qualname__}", _origin(value.__module__), _code(value)]
    kind = type(value)
    name = [f"{kind.__module__}.{kind.__qualname__}", _origin(kind.__module__)]
    if hasattr(value, "__dict__"):
        options = {key: item for key, item in vars(value).items() if not key.startswith("__")}
        return [*name, describe(options, inside)]
    return [*name, re.sub(r" at 0x[0-9a-f]+", "", repr(value))]


def _code(value: Any) -> str:
    """What tells functions of one name apart, such as lambdas: their instructions and what they enclose."""
    code = getattr(value, "__code__", None)
    if code is None:
        return ""
    cells = [describe(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
    constants = [constant for constant in code.co_consts if not inspect.iscode(constant)]
    return digest([code.co_code.hex(), str(constants), list(code.co_names), cells, describe(value.__defaults__)])


@functools.cache
def _origin(module: str) -> str:
    """The version of the package that a module belongs to, or the hash of its source where none is known."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "python " + ".".join(map(str, sys.version_info[:2]))
    if top in PACKAGES:
        return f"{top} {_version(top)}"
    if module.startswith("rarevox.transforms"):
        folder = Path(inspect.getfile(sys.modules["rarevox.transforms"])).parent
        return _files_digest(tuple(sorted(folder.rglob("*.py"))))
    file = getattr(sys.modules.get(module), "__file__", None)
    return _files_digest((Path(file),)) if file and Path(file).is_file() else module


@functools.cache
def _files_digest(files: tuple[Path, ...]) -> str:
    return digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def configuration_key(transform: object, **options: object) -> str:
    """The hash of the transforms, further options and the versions of the packages."""
    return digest([FORMAT, describe(transform), options, {name: _version(name) for name in PACKAGES}])


class ContentHashes:
    """SHA-256 of files, noted with size, times and inode so that an unchanged file is read once.

    Args:
        folder: where the notes are kept; a folder that cannot be written keeps none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def of_case(self, case: Mapping[str, Any]) -> list[Any]:
        """The contents of a case's files, by key, and its other entries as they are."""
        listed: list[Any] = []
        for key in sorted(case):
            if key in UNUSED_KEYS:
                continue
            value = case[key]
            files = value if isinstance(value, (list, tuple)) else [value]
            if key in FILE_KEYS and files and all(isinstance(file, (str, Path)) for file in files):
                listed.append([key, [[suffix_of(file), self.of(file)] for file in files]])
            else:
                listed.append([key, describe(value)])
        return listed

    def of(self, path: str | Path) -> str:
        """The hash of a file, with those that hold its voxels, or of all files of a folder (a DICOM series).

        Raises:
            ScanError: it is no regular file.
        """
        path, is_folder = Path(path), False
        with contextlib.suppress(OSError):  # a name that is too long
            is_folder = path.is_dir()
        if is_folder:
            files = [file for file in sorted(path.iterdir()) if file.is_file()]
            return digest([[file.name, self._of_file(file)] for file in files])
        parts: tuple[Path, ...] = ()
        with contextlib.suppress(ScanError):  # what is wrong with it is told when it is read
            parts = parts_of(path)
        if len(parts) > 1:
            return digest([[file.name, self._of_file(file)] for file in parts])
        return self._of_file(path)

    def _of_file(self, path: Path) -> str:
        try:
            state = path.stat()
        except OSError:
            state = require_regular(path)  # which says it in words
        if not stat.S_ISREG(state.st_mode):
            require_regular(path)
        stamp = [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
        note = self.folder / f"{digest(stamp[0])}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["stamp"] == stamp:
                return str(known["sha256"])
        content = hashlib.sha256()
        if state.st_size:  # such as a lock file beside a series
            with open_regular(path) as handle:
                while block := handle.read(1 << 20):
                    content.update(block)
        found = content.hexdigest()
        if time.time() - max(state.st_mtime, state.st_ctime) > FRESH_SECONDS:
            with contextlib.suppress(OSError):
                write_json(note, {"stamp": stamp, "sha256": found})
        return found

"""The classes that a record may name. A record names a class as `module:qualified name`."""

from __future__ import annotations

import dis
import importlib
import inspect
import types
from collections import OrderedDict, defaultdict
from functools import cache
from itertools import pairwise

ALLOWED_PACKAGES = ("moto.",)
"""Packages whose classes may be recorded: importing their modules runs only code of moto."""

ALLOWED_CLASSES = frozenset(
    {
        "collections:OrderedDict",
        "collections:defaultdict",
        "requests.structures:CaseInsensitiveDict",
        "mesaform.localcloud.protocol:Event",
        "mesaform.localcloud.protocol:Notice",
    }
)


class RecordError(Exception):
    """A value cannot be recorded, or a record cannot be read; the message names the value.

    `is_newer`: a later version of mesaform wrote the record.
    """

    def __init__(self, message: str, *, is_newer: bool = False) -> None:
        super().__init__(message)
        self.is_newer = is_newer


def class_name(kind: type) -> str:
    """The name of a class in records.

    Raises:
        RecordError: the class may not be recorded.

    """
    name = f"{kind.__module__}:{kind.__qualname__}"
    if not is_allowed(name):
        raise RecordError(f"values of class {name} cannot be recorded")
    return name


def is_allowed(name: str) -> bool:
    """Whether records may name this class."""
    return name in ALLOWED_CLASSES or name.startswith(ALLOWED_PACKAGES)


def find_class(name: str) -> type:
    """The class that a record names.

    Raises:
        RecordError: the class is not allowed or does not exist in the installed packages.

    """
    if not is_allowed(name):
        raise RecordError(f"a record names class {name}, which is not allowed")
    module_name, _, qualified_name = name.partition(":")
    try:
        value: object = importlib.import_module(module_name)
        for part in qualified_name.split("."):
            value = vars(value)[part]
    except (ImportError, KeyError, TypeError):
        raise RecordError(f"the installed packages have no class {name}") from None
    if not isinstance(value, type):
        raise RecordError(f"{name} is not a class")
    return value


def new_instance(kind: type) -> object:
    """An instance without attributes and items; no code of the class runs.

    Raises:
        RecordError: instances of the class cannot be made this way.

    """
    base = next(
        base for base in (OrderedDict, defaultdict, dict, list, object) if issubclass(kind, base)
    )
    try:
        return base.__new__(kind)
    except TypeError as error:
        raise RecordError(f"class {kind.__module__}:{kind.__qualname__}: {error}") from None


@cache
def initial_attributes(kind: type) -> frozenset[str]:
    """The attributes that the constructor of a class may set, read from its byte code.

    An attribute that a later version of a package adds is missing from older records; objects
    restored without it would fail in the middle of a call.
    """
    init = inspect.unwrap(getattr(kind, "__init__"))  # noqa: B009 - mypy: unsound on an instance
    if not isinstance(init, types.FunctionType):
        return frozenset()
    own = init.__code__.co_varnames[0]
    steps = list(dis.get_instructions(init))
    names = {
        str(store.argval)
        for load, store in pairwise(steps)
        if store.opname == "STORE_ATTR" and (load.opname, load.argval) == ("LOAD_FAST", own)
    }
    return frozenset(name for name in names if not _is_property(kind, name))


def _is_property(kind: type, name: str) -> bool:
    return hasattr(inspect.getattr_static(kind, name, None), "__set__")

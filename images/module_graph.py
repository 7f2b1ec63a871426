"""The modules that programs import, by static analysis of their sources.

The analysis reads `import` statements wherever they stand, in functions too, except those below
`if TYPE_CHECKING:`. It does not see imports by computed names; a program that is started by path or
with `python -m` is a root of its own. Pure; standard library only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

Module = str
"""A dotted name, such as `mesaform.node.main`."""


def module_name(path: str) -> Module:
    """Return the name of the module in a file: `a/b.py` is `a.b`, `a/__init__.py` is `a`."""
    parts = path.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def reachable(roots: Iterable[Module], sources: Mapping[Module, bytes]) -> frozenset[Module]:
    """Return the modules of `sources` that running the roots can import, the roots included.

    Args:
        roots: names of modules.
        sources: the content of every module of the package, by name.

    Raises:
        KeyError: a root is not among the sources.
        SyntaxError: a module cannot be parsed.

    """
    reached: set[Module] = set()
    waiting = {name for root in roots for name in _with_parents(root)}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= _direct_imports(name, sources) - reached
    return frozenset(reached)


def _direct_imports(name: Module, sources: Mapping[Module, bytes]) -> set[Module]:
    """The modules of `sources` that a module imports, with their packages."""
    imported = imports_of(sources[name], _package_of(name, sources))
    return {target for item in imported for target in _with_parents(item) if target in sources}


@lru_cache(maxsize=4096)
def imports_of(source: bytes, package: Module) -> frozenset[Module]:
    """Return the names that a module imports, absolute.

    `from a import b` gives both `a` and `a.b`, since `b` may be a module. `package` is the package
    of the module, to which relative imports refer.
    """
    return frozenset(
        name
        for node in _import_statements(ast.parse(source).body)
        for name in _imported_names(node, package)
    )


def _imported_names(node: ast.Import | ast.ImportFrom, package: Module) -> Iterator[Module]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        ancestor = package.rsplit(".", node.level - 1)[0]
        base = f"{ancestor}.{base}" if base else ancestor
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def _import_statements(body: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements below nodes, except those for type checkers."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _import_statements(node.orelse)
        elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _import_statements(ast.iter_child_nodes(node))


def _is_type_checking(test: ast.expr) -> bool:
    """Whether a condition is `TYPE_CHECKING` or `typing.TYPE_CHECKING`."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _with_parents(name: Module) -> Iterator[Module]:
    """Yield a module and its packages, which Python imports before it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _package_of(name: Module, sources: Mapping[Module, bytes]) -> Module:
    """The package to which relative imports of a module refer."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    return name if is_package else name.rpartition(".")[0]

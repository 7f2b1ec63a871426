"""Every port of the product is served by `mesaform.http`, and handlers read requests with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CLUSTER = Path(__file__).parents[3] / "cluster"
SERVERS = frozenset(
    {"AppRunner", "ServerRunner", "TCPSite", "SockSite", "UnixSite", "make_server", "run_simple"}
    | {"HTTPServer", "ThreadingHTTPServer", "run_app"}
)
READS = frozenset({"read", "json", "text", "post", "multipart"})
RELEVANT = re.compile("|".join((*sorted(SERVERS), r"\brequest\b")))
"""What the text of a module that breaks the rule contains. Most modules need not be parsed."""


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names and attributes that a module uses, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias):
            yield 0, node.name
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id


def reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls such as `request.read()`, which know no limits of the port."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "request"
            and node.func.attr in READS
        ):
            yield node.lineno, f"request.{node.func.attr}"


def uses(path: Path) -> list[str]:
    text = path.read_text()
    if not RELEVANT.search(text):
        return []
    tree = ast.parse(text)
    found = [(line, name) for line, name in names(tree) if name in SERVERS]
    place = path.relative_to(CLUSTER)
    return [f"{place}:{line}: {name}" for line, name in [*found, *reads(tree)]]


def test_no_module_serves_or_reads_http_by_itself() -> None:
    modules = [path for path in CLUSTER.rglob("*.py") if path.parent.name != "http"]
    assert len(modules) > 200
    assert [line for path in modules for line in uses(path)] == []


def test_the_check_sees_servers_and_reads(tmp_path: Path) -> None:
    source = "from aiohttp import web\nweb.TCPSite(a)\nasync def f(request):\n  request.json()\n"
    tree = ast.parse(source)
    assert [name for _, name in names(tree) if name in SERVERS] == ["TCPSite"]
    assert [name for _, name in reads(tree)] == ["request.json"]

"""Tables of the engine's pure cores for docs/engine.md: each event with its handler and effects.

The effects are those that the handler can construct, found by following calls in the source of
the core's modules. `python -m tests.support.core_tables` writes the tables into docs/engine.md.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from mesaform.engine.agent import core as agent_core
from mesaform.engine.agent import events as agent_events
from mesaform.engine.master import (
    agents,
    core,
    drain,
    events,
    frameworks,
    launch,
    reconcile,
    state,
    status,
    tasks,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "engine.md"
MASTER_MODULES = (core, agents, drain, frameworks, launch, reconcile, state, status, tasks)


class Sources:
    """The functions and dispatch tables of some modules."""

    def __init__(self, modules: tuple[ModuleType, ...], effects: ModuleType) -> None:
        self._effects = {effect.__name__ for effect in effects.Effect.__args__}
        self._functions: dict[str, ast.AST] = {}
        self._tables: dict[str, ast.AST] = {}
        self._imports: dict[str, dict[str, str]] = {}
        for module in modules:
            self._add(module.__name__.rpartition(".")[2], ast.parse(inspect.getsource(module)))

    def _add(self, module: str, tree: ast.Module) -> None:
        imports = self._imports.setdefault(module, {})
        for node in tree.body:
            match node:
                case ast.ImportFrom(module=source, names=names) if source:
                    for name in names:
                        imports[name.name] = f"{source.rpartition('.')[2]}.{name.name}"
                case ast.FunctionDef(name=name):
                    self._functions[f"{module}.{name}"] = node
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as table):
                    self._tables[f"{module}.{name}"] = table
                case ast.ClassDef():
                    self._add_methods(node)

    def _add_methods(self, node: ast.ClassDef) -> None:
        for method in node.body:
            if isinstance(method, ast.FunctionDef):
                self._functions[f"{node.name}.{method.name}"] = method

    def effects_of(self, function: str, module: str) -> list[str]:
        """The effects that a function can construct, itself or through what it calls."""
        effects: set[str] = set()
        seen: set[str] = set()
        waiting = [(function, module)]
        while waiting:
            key, home = waiting.pop()
            node = self._functions.get(key) or self._tables.get(key)
            if node is None or key in seen:
                continue
            seen.add(key)
            for name in _names(node):
                if name in self._effects:
                    effects.add(name)
                waiting += self._targets(name, key, home)
        return sorted(effects)

    def _targets(self, name: str, function: str, module: str) -> Iterator[tuple[str, str]]:
        """The functions and tables that a name in a function of a module may refer to."""
        receiver, dot, member = name.partition(".")
        if not dot:
            yield f"{module}.{name}", module
            imported = self._imports.get(module, {}).get(name, "")
            yield imported, imported.partition(".")[0]
        elif receiver == "self":
            yield f"{function.partition('.')[0]}.{member}", module
        elif receiver == "state":  # the core's functions name the State so
            yield f"State.{member}", "state"
        else:
            yield name, receiver


def _names(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        match child:
            case ast.Name(id=name, ctx=ast.Load()):
                yield name
            case ast.Attribute(value=ast.Name(id=receiver), attr=name):
                yield f"{receiver}.{name}"


def master_tables() -> str:
    """The tables of the master's core."""
    sources = Sources(MASTER_MODULES, events)
    handlers = [
        (f"`{event.__name__}`", handler.__module__.rpartition(".")[2], handler.__name__)
        for event, handler in core.HANDLERS.items()
    ]
    calls = [
        (f"`{name}`", "core", handler.__name__) for name, handler in core.CALL_HANDLERS.items()
    ]
    after = [
        ("after each event", "drain", "finish_drains"),
        ("after some events", "State", "make_offers"),
    ]
    return "\n\n".join(
        (
            _table("Event", [*handlers, *after], sources),
            "The handlers of the scheduler calls, which `SchedulerCall` dispatches to:",
            _table("Call", calls, sources),
        )
    )


def agent_table() -> str:
    """The table of the agent's core."""
    sources = Sources((agent_core,), agent_events)
    instance = agent_core.AgentCore("127.0.0.1", lambda: b"")
    handlers = {**instance.handlers, **instance.container_handlers}
    rows = [
        (f"`{event.__name__}`", "AgentCore", handler.__name__)
        for event, handler in handlers.items()
    ]
    return _table("Event", rows, sources)


def _table(title: str, rows: list[tuple[str, str, str]], sources: Sources) -> str:
    lines = [f"| {title} | Handler | Effects |", "|---|---|---|"]
    for label, module, function in rows:
        key = f"{module}.{function}"
        effects = sources.effects_of(key, "core" if module == "AgentCore" else module.lower())
        listed = ", ".join(f"`{effect}`" for effect in effects) or "none"
        lines.append(f"| {label} | `{key}` | {listed} |")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """The document with its tables replaced by the present ones."""
    for name, table in (("master", master_tables()), ("agent", agent_table())):
        begin, end = f"<!-- {name} core: generated -->", f"<!-- {name} core: end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub(f"{begin}\n{table}\n{end}", text)
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")

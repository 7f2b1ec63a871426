"""The modules that machines run: those that the entry points of the image reach."""

from __future__ import annotations

from pathlib import Path

from mesaform_images.bundle import parse_recipe
from mesaform_images.module_graph import module_name, reachable
from tests.support import aws_calls


def modules_of_machines() -> list[Path]:
    """Their paths in `cluster/`. Programs of agents call nothing of AWS with rights."""
    folder = aws_calls.REPOSITORY / "cluster"
    names = {
        module_name(f"mesaform/{path.relative_to(folder).as_posix()}"): path
        for path in folder.rglob("*.py")
    }
    sources = {name: path.read_bytes() for name, path in names.items()}
    reached = reachable(_entry_points(), sources)
    return [path for name, path in names.items() if name in reached]


def _entry_points() -> tuple[str, ...]:
    recipe = aws_calls.REPOSITORY / "images" / "recipe.toml"
    return parse_recipe(recipe.read_text(), str(recipe)).entry_points

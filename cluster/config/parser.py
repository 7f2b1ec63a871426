"""Reading cluster.yaml: a `ClusterSpec`, or one error with a line for each mistake.

Depends on `yaml_text` for positions and texts, and on `schema`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from mesaform.common.errors import BadInput
from mesaform.config import yaml_text
from mesaform.config.schema import ClusterSpec


def load(path: Path) -> ClusterSpec:
    """Read and check a cluster file.

    Raises:
        BadInput: it is missing, not YAML, or not a cluster. The message has a line for each
            mistake: file, line, field and, where it helps, the nearest valid name.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(reason, where=str(path), fix="write one: mesaform init") from None
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text: {error.reason} at byte {error.start}"
        raise BadInput(reason, where=str(path)) from None
    return parse(text, str(path))


def parse(text: str, file: str = "cluster.yaml") -> ClusterSpec:
    """Parse the text of a cluster file; `file` is its name in errors.

    Raises:
        BadInput: see `load`.

    """
    try:
        data, lines = yaml_text.parse(text)
    except yaml_text.BrokenYaml as error:
        raise BadInput(yaml_text.render(error.problems, file)) from None
    if not isinstance(data, dict):
        raise BadInput(
            f"{file}:1: must be a mapping of fields to values, starting with a name",
            fix="write one: mesaform init",
        )
    try:
        return ClusterSpec.model_validate(data)
    except ValidationError as error:
        problems = yaml_text.explain(error.errors(include_url=False), lines, ClusterSpec)
        raise BadInput(yaml_text.render(problems, file)) from None


def problem(path: Path, field: yaml_text.Path, complaint: str, fix: str) -> BadInput:
    """Return the error about a field that only facts outside of the file make wrong.

    Args:
        path: the cluster file; it was read without mistakes.
        field: names and indices that lead to the field.
        complaint: what is wrong with its value.
        fix: what to do.

    """
    _, lines = yaml_text.parse(path.read_text(encoding="utf-8"))
    entry = (yaml_text.line_of(field, lines), field, complaint)
    return BadInput(yaml_text.render([entry], path.name), fix=fix)

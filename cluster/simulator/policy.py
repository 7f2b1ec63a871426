"""Policy files: the sections of cluster.yaml that decide about machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mesaform.common.errors import BadInput
from mesaform.config import yaml_text
from mesaform.config.field_types import InstanceType, Model, Whole
from mesaform.config.schema import Autoscaler, ClusterSpec, Cost, Pool, Tasks
from mesaform.simulator.market import TYPES

ZONES = tuple(f"us-east-1{letter}" for letter in "abc")


class PolicyPool(Pool):
    """Pool of cluster.yaml with many types, a high maximum and no Terraform machines by default."""

    count: Whole = Field(
        default=0, ge=0, le=500, description="Machines that are there from the start and stay."
    )
    types: tuple[InstanceType, ...] = Field(
        default=TYPES, min_length=1, description="What may be bought."
    )
    max: Whole = Field(default=1000, ge=0, le=1000, description="The most machines of this pool.")


class Policy(Model):
    """What a simulated autoscaler goes by."""

    name: str = Field(default="", description="What the report calls it; default: the file's name.")
    agents: tuple[PolicyPool, ...] = Field(default=(PolicyPool(),), min_length=1)
    autoscaler: Autoscaler = Autoscaler()
    cost: Cost = Cost()
    tasks: Tasks = Tasks()

    @property
    def spec(self) -> ClusterSpec:
        """The policy as the planner wants it."""
        sections: dict[str, Any] = {
            "agents": [pool.model_dump() for pool in self.agents],
            "autoscaler": self.autoscaler.model_dump(),
            "cost": self.cost.model_dump(),
            "tasks": self.tasks.model_dump(),
        }
        fixed = {
            "name": "simulated",
            "target": "aws",
            "network": {"cidr": "10.0.0.0/16", "operator_cidrs": ["10.0.0.0/8"]},
        }
        return ClusterSpec.model_validate(fixed | sections)


def load(path: Path) -> Policy:
    """Read and check a policy.

    Raises:
        BadInput: it is missing, not YAML, or no policy; the message has a line for each mistake.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(error.strerror or str(error), where=str(path)) from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)
        ) from None
    return parse(text, str(path))


def parse(text: str, file: str = "policy.yaml") -> Policy:
    """`load` for text in hand; `file` is what the complaints call it."""
    try:
        data, lines = yaml_text.parse(text)
    except yaml_text.BrokenYaml as error:
        raise BadInput(yaml_text.render(error.problems, file)) from None
    if data is not None and not isinstance(data, dict):
        raise BadInput(
            f"{file}:1: must be a mapping of fields to values",
            fix="sections agents, autoscaler, cost and tasks of cluster.yaml",
        )
    try:
        policy = Policy.model_validate(data or {})
        _ = policy.spec
    except ValidationError as error:
        details = list(error.errors(include_url=False))
        raise BadInput(yaml_text.render(yaml_text.explain(details, lines, Policy), file)) from None
    return policy if policy.name else policy.model_copy(update={"name": Path(file).stem})

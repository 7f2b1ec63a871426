"""Terraform and EC2 for machines of one stack, in memory, which a test can kill at every step.

Plans have the format of `terraform show -json`. An apply changes the account and the state in
separate steps, as Terraform does, so that a kill leaves what a real one leaves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from mesaform.provision.orphans import interrupted_at
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_run import NO_CHANGES, Ended, Planned
from mesaform.topology.names import Tag

OLD, NEW = "old", "new"


class Killed(BaseException):
    """The process ended here, as by `kill -9`."""


@dataclass(slots=True)
class FakeTerraform:
    """Terraform in the folder of one stack.

    `account` has the living machines: address and image by id. `state` has an id by address.
    `wanted` are the addresses that the stack declares. `before_end` is called with the address and
    the id of a machine that is about to be terminated.
    """

    folder: Path
    stack: str
    role: str
    wanted: tuple[str, ...]
    account: dict[str, tuple[str, str]] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    steps_left: int | None = None
    before_end: Callable[[str, str], None] = lambda _address, _id: None
    _ids: count[int] = field(default_factory=lambda: count(1))
    _planned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stack in ("network", self.stack):
            path = stack_dir(self.folder, stack) / "cdk.tf.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            names = [address.partition(".")[2] for address in self.wanted]
            declared: dict[str, object] = {name: {} for name in names}
            path.write_text(json.dumps({"resource": {"aws_instance": declared}}))

    def launch(self, address: str, image: str = NEW) -> str:
        """Start a machine that the state does not list yet; its id."""
        instance_id = f"i-{next(self._ids)}"
        self.account[instance_id] = (address, image)
        return instance_id

    def put(self, address: str, image: str) -> str:
        """A machine of an earlier deployment; its id."""
        self.state[address] = instance_id = self.launch(address, image)
        return instance_id

    def step(self) -> None:
        """The next thing that can be cut off from those before it.

        Raises:
            Killed: the test kills the process here.

        """
        if self.steps_left is None:
            return
        if self.steps_left == 0:
            raise Killed
        self.steps_left -= 1

    def take_over(self) -> None:
        """As `interrupted.take_over`: list living machines that an interrupted run launched."""
        for instance_id, (address, _) in self.account.items():
            if instance_id not in self.state.values():
                assert interrupted_at(self.folder) is not None, "`up` would refuse with NotOwned"
                assert self.state.get(address) not in self.account
                self.state[address] = instance_id

    def document(self, addresses: tuple[str, ...] | None = None) -> dict[str, object]:
        """The plan for some addresses; None stands for all of them."""
        known = dict.fromkeys((*self.wanted, *self.state))
        changes = [
            {"address": address, "type": "aws_instance", "change": change}
            for address in known
            if addresses is None or address in addresses
            if (change := self._change(address)) is not None
        ]
        return {"resource_changes": changes}

    def _change(self, address: str) -> dict[str, object] | None:
        instance_id = self.state.get(address, "")
        is_living = instance_id in self.account
        described = {
            "id": instance_id,
            "tags": {Tag.NAME: address.partition(".")[2], Tag.ROLE: self.role, Tag.POOL: "default"},
        }
        if address not in self.wanted:
            gone: dict[str, object] = {"actions": ["delete"], "before": described, "after": None}
            return gone if is_living else None
        if not is_living:
            return {"actions": ["create"], "before": None, "after": described}
        if self.account[instance_id][1] == NEW:
            return None
        changed: dict[str, object] = {
            "before": described,
            "after": described,
            "replace_paths": [["ami"]],
        }
        return {"actions": ["delete", "create"], **changed}

    async def plan(self, folder: Path, *options: str) -> Planned:
        self.step()
        self._planned = []
        if folder.name != self.stack:
            return Planned(NO_CHANGES)
        targets = tuple(option.removeprefix("-target=") for option in options)
        self._planned = list(targets)
        return Planned(self.document(targets))  # type: ignore[arg-type] # JSON all the same

    async def apply(self, folder: Path) -> Ended:
        assert interrupted_at(self.folder) is not None, "marked before the first change"
        self.step()
        for address in self._planned if folder.name == self.stack else ():
            self._apply(address)
        return Ended(0, "", "")

    def _apply(self, address: str) -> None:
        change = self._change(address)
        if change is None:
            return
        old = self.state.get(address, "")
        if old in self.account:
            self.before_end(address, old)
            self.step()
            del self.account[old]
            self.step()
        self.state.pop(address, None)
        self.step()
        if address in self.wanted:
            new = self.launch(address)
            self.step()
            self.state[address] = new
            self.step()

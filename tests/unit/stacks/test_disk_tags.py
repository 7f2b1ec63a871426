"""Tags of root disks: those of every resource, declared at the disk itself."""

from __future__ import annotations

from pathlib import Path

from mesaform.config.parser import parse
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.topology import names
from mesaform_stacks.base import Settings
from mesaform_stacks.cluster import describe
from mesaform_stacks.description import Block


def test_a_disk_declares_the_tags_that_disks_of_taken_over_machines_get() -> None:
    """The provider would take tags away from an imported machine's disk that are not declared."""
    spec = parse("name: west\n")
    settings = Settings(
        spec=spec, images=NOTHING_TO_BOOT, folder=Path("/x"), deployment_id="00ff00ff00ff00ff"
    )
    disks = [
        item.arguments["root_block_device"]
        for stack in describe(settings)
        for item in stack.resources
        if item.kind.terraform_type == "aws_instance"
    ]
    assert len(disks) >= 3
    for disk in disks:
        assert isinstance(disk, Block)
        assert disk.arguments["tags"] == names.tags(spec, DEPLOYMENT="00ff00ff00ff00ff")

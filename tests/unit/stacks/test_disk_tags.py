"""Tags of root disks: those of every resource, and none of their own."""

from __future__ import annotations

from pathlib import Path

from mesaform.config.parser import parse
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.topology import names
from mesaform_stacks.base import Settings, cluster_tags
from mesaform_stacks.cluster import describe


def test_a_taken_over_disk_gets_the_tags_that_the_provider_would_give_it() -> None:
    """`provision.disk_tags` writes them; the next plan would take others away."""
    spec = parse("name: west\n")
    settings = Settings(
        spec=spec, images=NOTHING_TO_BOOT, folder=Path("/x"), deployment_id="00ff00ff00ff00ff"
    )
    assert cluster_tags(settings) == names.tags(spec, DEPLOYMENT="00ff00ff00ff00ff")
    disks = [
        item.arguments["root_block_device"]
        for stack in describe(settings)
        for item in stack.resources
        if item.kind.terraform_type == "aws_instance"
    ]
    assert len(disks) >= 3
    for disk in disks:
        assert getattr(disk, "tags", None) is None
        assert "tags" not in str(disk)

"""A rehearsal of an adoption writes into a copy only."""

from __future__ import annotations

from mesaform.cli.context import open_context
from mesaform.provision.adoption.importing import _changed_templates
from mesaform.provision.rehearsal import rehearsal
from tests.integration.provision.stub_files import cluster_text
from tests.support.terraform_state import write_state


def test_what_a_rehearsal_writes_and_sets_aside_is_gone_afterwards(tmp_path):
    (tmp_path / "cluster.yaml").write_text(cluster_text("one"))
    place = open_context(str(tmp_path / "cluster.yaml"))
    state = write_state(place.cluster_dir, "network", [("aws_vpc", {"id": "vpc-1"})])
    before = state.read_bytes()
    with rehearsal(place) as copy:
        copied = copy.cluster_dir / state.name
        assert copied.read_bytes() == before
        copied.unlink()
        (copy.cluster_dir / "deployment.json").write_text("{}")
    assert not copy.cluster_dir.exists()
    assert [path.name for path in place.cluster_dir.iterdir()] == [state.name]
    assert state.read_bytes() == before


def test_an_adoption_changes_no_image_of_a_launch_template():
    def plan(before: str, after: str):
        change = {"before": {"image_id": before}, "after": {"image_id": after}}
        entry = {"type": "aws_launch_template", "address": "aws_launch_template.t"}
        return {"resource_changes": [{**entry, "change": change}]}

    assert list(_changed_templates(plan("ami-1", "ami-0"))) == ["aws_launch_template.t"]
    assert list(_changed_templates(plan("ami-1", "ami-1"))) == []

"""`mesaform records restore` of a Terraform state, beside other work on the cluster."""

from __future__ import annotations

import pytest

from mesaform.cli.records import restore
from mesaform.provision.lock import Occupied, hold_terraform
from tests.integration.provision.stub_files import cluster_text
from tests.support.terraform_state import write_state


def test_a_state_is_not_restored_while_terraform_is_at_work(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(cluster_text("busy"))
    folder = tmp_path / ".mesaform" / "clusters" / "busy"
    state = write_state(folder, "masters", [("aws_vpc", {"id": "vpc-1"})])
    aside = state.rename(state.with_name("masters.tfstate.unreadable-1764100000"))
    record = f"files/clusters/busy/{aside.name}"

    with hold_terraform(folder, "terraform apply"), pytest.raises(Occupied):
        restore(record, str(file), replace=False)
    assert not state.exists()

    restore(record, str(file), replace=False)
    assert state.exists()

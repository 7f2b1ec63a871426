"""Lost, empty and partial Terraform states beside a living cluster, with the real Terraform."""

from __future__ import annotations

import json
import shutil

import pytest

from mesaform import provision
from mesaform.common.errors import NotOwned
from mesaform.common.progress import Recorded
from mesaform.provision.lock import hold_terraform
from mesaform.provision.state_folders import STACKS, state_file, synth_dir

pytestmark = [pytest.mark.terraform, pytest.mark.slow, pytest.mark.timeout(400)]


def machines(aws, place) -> set[str]:
    return {machine["InstanceId"] for machine in aws.instances(place.spec.name)}


async def test_a_lost_state_stops_up_and_is_rebuilt_from_the_account(aws, place):
    aws.bake()
    await provision.deploy(place, Recorded())
    living = machines(aws, place)
    listed = {stack: resources_in(state_file(place.cluster_dir, stack)) for stack in STACKS}
    lose_state(place)

    with pytest.raises(NotOwned, match=r"masters\.tfstate") as caught:
        await provision.deploy(place, Recorded())
    assert "mesaform adopt" in caught.value.fix
    assert machines(aws, place) == living

    with hold_terraform(place.cluster_dir, "test") as held:
        found = await provision.plan_adoption(place, Recorded(), held)
        assert {entry.import_id for entry in found.imports} >= living
        assert found.absent == ()
        remaining = await provision.adopt(place, found, Recorded(), held)
        assert remaining == ()
        again = await provision.plan_adoption(place, Recorded(), held)
        assert again.imports == ()
    rebuilt = {stack: resources_in(state_file(place.cluster_dir, stack)) for stack in STACKS}
    assert rebuilt == listed
    assert machines(aws, place) == living


def lose_state(place) -> None:
    """An empty file, one without resources, a missing one, and a truncated one."""
    for stack, content in {"network": "", "notices": None, "agents": "{"}.items():
        path = state_file(place.cluster_dir, stack)
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    masters = state_file(place.cluster_dir, "masters")
    document = json.loads(masters.read_text())
    masters.write_text(json.dumps({**document, "resources": [], "outputs": {}}))
    shutil.rmtree(synth_dir(place.cluster_dir))


def resources_in(path) -> dict[str, str]:
    """Address and id of every resource in a state file."""
    return {
        f"{entry['type']}.{entry['name']}": entry["instances"][0]["attributes"]["id"]
        for entry in json.loads(path.read_text())["resources"]
        if entry["mode"] == "managed"
    }

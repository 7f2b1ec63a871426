"""Terraform's S3 backend with its own lock, against the local cloud's S3, from two checkouts.

The stack has one resource, which needs no provider: only the backend takes part.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesaform.aws import client as aws_client
from mesaform.aws.bucket import ensure_state_bucket
from mesaform.cli.context import Context, endpoint_environment, open_context
from mesaform.common.errors import Busy
from mesaform.common.progress import Recorded
from mesaform.provision import deployment
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.provision.lock import HeldLock, hold_terraform
from mesaform.provision.shared_lock import SharedBusy, hold_shared
from mesaform.provision.shared_state import open_shared_state
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_driver import StacksRun, Verb
from mesaform.provision.terraform_run import open_runner
from mesaform.provision.terraform_state import managed_resources
from tests.integration.localcloud.conftest import REGION, operator_key, start_cloud, stop_cloud

pytestmark = [pytest.mark.terraform, pytest.mark.slow, pytest.mark.timeout(600)]
STACK = "notices"
HOLDER_AND_AGE = r"terraform apply by \S+@\S+, for \d+ "
FILE = """\
name: shared
target: aws
network: {operator_cidrs: [203.0.113.0/24]}
"""


@pytest.fixture(autouse=True)
def _cloud(tmp_path, monkeypatch) -> Iterator[None]:
    cloud = start_cloud(tmp_path / "cloud")
    key = operator_key(cloud.root)
    variables = endpoint_environment(
        cloud.url, REGION, key["aws_access_key_id"], key["aws_secret_access_key"]
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ensure_state_bucket(REGION, "shared")
    yield
    aws_client.discard_clients()
    stop_cloud(cloud)


def checkout(folder: Path) -> Context:
    """A checkout whose stack has the backend that `mesaform_stacks` declares."""
    folder.mkdir()
    (folder / "cluster.yaml").write_text(FILE)
    place = open_context(str(folder / "cluster.yaml"))
    account_id = deployment.identify_caller(REGION).account_id
    backend = {
        "bucket": f"mesaform-{account_id}-{REGION}",
        "key": f"_terraform/shared/{STACK}.tfstate",
        "region": REGION,
        "encrypt": True,
        "use_lockfile": True,
        "allowed_account_ids": [account_id],
    }
    document = {
        "terraform": {"backend": {"s3": backend}},
        "resource": {"terraform_data": {"x": {"input": "kept"}}},
    }
    stack_dir(place.cluster_dir, STACK).mkdir(parents=True)
    (stack_dir(place.cluster_dir, STACK) / "cdk.tf.json").write_text(json.dumps(document))
    return place


async def run(place: Context, verb: Verb, held: HeldLock) -> str:
    report = Recorded()
    await StacksRun(place, NOTHING_TO_BOOT, report, held).run(verb, [STACK])
    return report.events[-1][2]


@contextmanager
def waiting_terraform(place: Context, variables: dict[str, str]) -> Iterator[None]:
    """A Terraform of another checkout that a person started: it asks, and holds its lock."""
    waiting = subprocess.Popen(
        [variables["TERRAFORM_BINARY_NAME"], "destroy", "-no-color"],
        cwd=stack_dir(place.cluster_dir, STACK),
        env={**variables, "TF_INPUT": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert waiting.stdin is not None
    assert waiting.stdout is not None
    said = b""
    while b"Enter a value" not in said:
        part = os.read(waiting.stdout.fileno(), 4096)
        assert part, said
        said += part
    yield
    waiting.communicate(b"no\n")


async def test_one_checkout_continues_another_and_a_lock_shows_its_holder_and_age(tmp_path):
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    with (
        hold_shared(first, "mesaform up") as shared,
        hold_terraform(first.cluster_dir, "up") as held,
    ):
        assert shared is not None
        deployment.establish_deployment(
            first.cluster_dir, deployment.identify_caller(REGION), REGION
        )
        shared.share()
        assert await run(first, "apply", held) == "1 added, 0 changed, 0 destroyed"
        assert {"deployment.json", f"{STACK}.tfstate"} < set(shared.objects.names())
        variables = dict((await open_runner(first, NOTHING_TO_BOOT, held)).variables)

    with hold_terraform(second.cluster_dir, "up") as held:
        with waiting_terraform(first, variables):
            up = hold_shared(second, "mesaform up")
            with pytest.raises(SharedBusy, match=HOLDER_AND_AGE) as busy, up:
                pass
            assert "mesaform unlock" in busy.value.fix
            with pytest.raises(Busy, match=HOLDER_AND_AGE) as refused:
                await run(second, "apply", held)
            assert "mesaform unlock" in refused.value.fix
        with hold_shared(second, "mesaform up"):
            assert await run(second, "apply", held) == "0 added, 0 changed, 0 destroyed"
            assert [item.kind for item in managed_resources(second.cluster_dir)] == [
                "terraform_data"
            ]
        with hold_shared(second, "mesaform down") as shared:
            assert shared is not None
            assert await run(second, "destroy", held) == "0 added, 0 changed, 1 destroyed"
            shared.forget()
    opened = open_shared_state(first)
    assert opened is not None
    opened.pull()
    assert deployment.read_deployment(first.cluster_dir) is None

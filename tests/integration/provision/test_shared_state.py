"""States, record and locks of a cluster in the account's bucket, from two checkouts."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from moto import mock_aws

from mesaform.aws import client as aws_client
from mesaform.aws.bucket import ensure_bucket, ensure_state_bucket
from mesaform.cli.context import Context, open_context
from mesaform.common.errors import Busy, NotOwned
from mesaform.provision import deployment, shared_lock
from mesaform.provision.shared_lock import SharedBusy, hold_shared, read_locks, release_locks
from mesaform.provision.shared_state import SharedState, open_shared_state
from mesaform.provision.state_folders import ERRORED, stack_dir
from mesaform.provision.terraform_state import managed_resources, read_state
from tests.support.terraform_state import write_state

REGION = "us-east-1"
BUCKET = f"mesaform-123456789012-{REGION}"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch):
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    # moto ignores conditions of bucket policies: it would refuse calls with TLS, too.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.amazonaws.com")
    with mock_aws():
        yield


def checkout(folder: Path, name: str = "shared") -> Context:
    """A checkout with the cluster file; its folder of states is empty."""
    folder.mkdir()
    (folder / "cluster.yaml").write_text(
        f"name: {name}\ntarget: aws\nengine: embedded\n"
        "network: {cidr: 10.60.0.0/16, operator_cidrs: [203.0.113.0/24]}\n"
        "agents: [{name: default, types: [m5.large]}]\n"
    )
    return open_context(str(folder / "cluster.yaml"))


def shared_state(place: Context) -> SharedState:
    opened = open_shared_state(place)
    assert opened is not None
    return opened


def raise_cluster(place: Context) -> None:
    """What `up` stores: the deployment's record, and a state as Terraform's backend writes it."""
    with hold_shared(place, "mesaform up", creates_bucket=True) as shared:
        assert shared is not None
        caller = deployment.identify_caller(REGION)
        deployment.establish_deployment(place.cluster_dir, caller, REGION)
        shared.share()
        write_state(place.cluster_dir, "network", [("aws_vpc", {"id": "vpc-1"})])
        shared.push_state("network")


@pytest.mark.slow
def test_another_checkout_gets_record_secret_and_states_and_loses_them_after_down(tmp_path):
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    raise_cluster(first)

    shared_state(second).pull()

    own = deployment.read_deployment(first.cluster_dir)
    assert own is not None
    assert own.secret
    assert deployment.read_deployment(second.cluster_dir) == own
    assert [item.id for item in managed_resources(second.cluster_dir)] == ["vpc-1"]

    with hold_shared(second, "mesaform down") as shared:
        assert shared is not None
        shared.forget()
    shared_state(first).pull()
    assert deployment.read_deployment(first.cluster_dir) is None
    assert read_state(first.cluster_dir, "network").condition == "absent"


def test_a_folder_of_another_deployment_is_refused(tmp_path):
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    raise_cluster(first)
    caller = deployment.identify_caller(REGION)
    deployment.establish_deployment(second.cluster_dir, caller, REGION)
    with pytest.raises(NotOwned, match="the deployment of shared in the account is"):
        shared_state(second).pull()


def test_states_from_before_they_were_shared_are_stored_once(tmp_path):
    place = checkout(tmp_path / "a")
    caller = deployment.identify_caller(REGION)
    deployment.establish_deployment(place.cluster_dir, caller, REGION)
    write_state(place.cluster_dir, "network", [("aws_vpc", {"id": "vpc-1"})])
    with hold_shared(place, "mesaform up", creates_bucket=True) as shared:
        assert shared is not None
        assert read_state(place.cluster_dir, "network").resources
        shared.share()
        write_state(place.cluster_dir, "network", [("aws_vpc", {"id": "vpc-2"})])
        shared.share()
    shared_state(place).pull()
    assert [item.id for item in managed_resources(place.cluster_dir)] == ["vpc-1"]


def test_two_checkouts_never_work_at_the_same_time_and_the_holder_is_shown(tmp_path):
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    with hold_shared(first, "mesaform up", creates_bucket=True):
        with pytest.raises(SharedBusy) as caught, hold_shared(second, "mesaform down"):
            pass
        assert f"mesaform up by {shared_lock._user()}@{socket.gethostname()}" in caught.value.what
        assert f"(pid {os.getpid()}), for " in caught.value.what
        assert "mesaform unlock" in caught.value.fix
        shared = shared_state(second)
        with pytest.raises(Busy, match="is alive on this machine"):
            release_locks(shared, read_locks(shared))
    with hold_shared(second, "mesaform down"):
        pass
    assert read_locks(shared_state(second)) == ()


def leave_locks(place: Context, *, host: str, folder: Path) -> None:
    """The locks of a verb and of its Terraform whose processes ended."""
    holder = shared_lock.SharedHolder("x", "mesaform up", "ann", host, 2**22, 7, str(folder))
    objects = shared_state(place).objects
    objects.write(shared_lock.LOCK, shared_lock.CODEC.encode(holder))
    lock = {"Operation": "OperationTypeApply", "Who": f"ann@{host}", "Created": "2026-01-01"}
    objects.write("network.tfstate.tflock", json.dumps(lock).encode())


def test_locks_of_a_killed_run_of_this_folder_are_replaced(tmp_path):
    place = checkout(tmp_path / "a")
    ensure_state_bucket(REGION, "shared")
    leave_locks(place, host=socket.gethostname(), folder=place.cluster_dir.resolve())
    with hold_shared(place, "mesaform up") as shared:
        assert shared is not None
        assert [note.name for note in read_locks(shared)] == [shared_lock.LOCK]


def test_locks_of_another_machine_stay_until_they_are_released(tmp_path):
    place = checkout(tmp_path / "a")
    ensure_state_bucket(REGION, "shared")
    leave_locks(place, host="elsewhere", folder=Path("/there"))
    with pytest.raises(SharedBusy) as caught, hold_shared(place, "mesaform up"):
        pass
    assert "terraform apply by ann@elsewhere, for " in caught.value.what
    shared = shared_state(place)
    notes = read_locks(shared)
    assert [note.name for note in notes] == ["lock.json", "network.tfstate.tflock"]
    release_locks(shared, notes)
    with hold_shared(place, "mesaform up"):
        pass


def test_without_a_bucket_nothing_is_held_and_none_is_created(tmp_path):
    place = checkout(tmp_path / "a")
    with hold_shared(place, "mesaform down"):
        assert aws_client.client("s3", REGION).list_buckets()["Buckets"] == []


def test_the_bucket_is_versioned_encrypted_closed_and_refuses_requests_without_tls(monkeypatch):
    for _ in range(2):
        assert ensure_state_bucket(REGION, "shared") == BUCKET
    ensure_state_bucket(REGION, "other")
    s3 = aws_client.client("s3", REGION)
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    access = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(access.values()) == {True}
    encryption = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]
    assert encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    ensure_bucket(REGION)
    policy = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    days = {rule["ID"]: rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in rules}
    assert days == {"bake": 1, "terraform": 365, "versions-shared": 1, "versions-other": 1}


def test_every_call_to_the_bucket_names_the_account_that_must_own_it(tmp_path):
    owners: list[str | None] = []
    s3 = aws_client.client("s3", REGION)
    s3.meta.events.register(
        "before-call.s3",
        lambda params, **_: owners.append(params["headers"].get("x-amz-expected-bucket-owner")),
    )
    place = checkout(tmp_path / "a")
    raise_cluster(place)
    shared_state(place).forget()
    assert owners.count(None) == 1  # CreateBucket, which has no such parameter
    assert set(owners) == {None, "123456789012"}


@pytest.mark.parametrize(("serial", "known"), [(9, ["vpc-2"]), (1, ["vpc-1"])])
def test_a_state_that_terraform_could_not_store_is_stored_unless_a_later_one_is(
    tmp_path, serial, known
):
    place = checkout(tmp_path / "a")
    raise_cluster(place)
    folder = stack_dir(place.cluster_dir, "network")
    path = write_state(folder, "network", [("aws_vpc", {"id": "vpc-2"})])
    document = json.loads(path.read_text())
    (folder / ERRORED).write_text(json.dumps({**document, "serial": serial}))

    with hold_shared(place, "mesaform up"):
        pass

    assert [item.id for item in managed_resources(place.cluster_dir)] == known
    assert not (folder / ERRORED).exists()

"""The account file: every released schema is readable, and no crash or damage loses it silently."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from structlog.testing import capture_logs
from typer.testing import CliRunner

from harness.ports import free_port
from mesaform.cli import local
from mesaform.common.errors import MesaformError
from mesaform.localcloud import daemon
from tests.integration.localcloud.account_fixture import EXPECTED, FIXTURES, NETWORK, contents
from tests.integration.localcloud.conftest import (
    REGION,
    Cloud,
    eventually,
    operator_key,
    running,
    start_cloud,
    stop_cloud,
)

if TYPE_CHECKING:
    from mesaform.localcloud.state_store import AccountStore

pytestmark = pytest.mark.slow
cli = CliRunner()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose local cloud is stopped afterwards."""
    folder = tmp_path / "local"
    yield folder
    daemon.stop(folder)


def account_file(root: Path) -> Path:
    return root / "account" / "account.json"


def set_aside_files(root: Path) -> list[Path]:
    return sorted((root / "account").glob("*.set-aside"))


def copy_fixture(root: Path, name: str = "account-schema-1") -> None:
    shutil.copytree(FIXTURES / name, root / "account")


def refusal(root: Path) -> str:
    """The error of a start."""
    with pytest.raises(MesaformError) as caught:
        daemon.start(root, port=free_port("127.0.0.1"))
    return str(caught.value)


@pytest.mark.parametrize("fixture", [path.name for path in sorted(FIXTURES.iterdir())])
def test_an_account_of_every_released_schema_is_read_and_then_one_of_another_moto(
    root: Path, fixture: str
) -> None:
    """Another moto's is read while this one's classes have what they need."""
    copy_fixture(root, fixture)
    cloud = start_cloud(root, NETWORK)
    assert contents(cloud) == EXPECTED
    assert daemon.status(root)["not_saved"] == {}
    cloud.client("ssm").put_parameter(Name="/later", Value="v", Type="String")
    stop_cloud(cloud)
    document = json.loads(account_file(root).read_text())
    account_file(root).write_text(json.dumps({**document, "moto": "5.0.0"}))
    again = start_cloud(root, NETWORK)
    assert contents(again) == EXPECTED
    assert again.client("ssm").get_parameter(Name="/later")["Parameter"]["Value"] == "v"
    stop_cloud(again)


def test_a_service_without_an_attribute_that_moto_needs_is_set_aside_and_the_rest_goes_on(
    root: Path,
) -> None:
    copy_fixture(root)
    document = json.loads(account_file(root).read_text())
    document["services"]["ssm"]["classes"]["moto.ssm.models:Parameter"].remove("value")
    account_file(root).write_text(json.dumps(document))
    cloud = start_cloud(root, NETWORK)
    (kept,) = set_aside_files(root)
    assert kept.name == "ssm.service.json.set-aside"
    assert json.loads(kept.read_text()) == document["services"]["ssm"]
    assert cloud.client("sqs").list_queues()["QueueUrls"]
    with pytest.raises(ClientError, match="ParameterNotFound"):
        cloud.client("ssm").get_parameter(Name="/fixture")
    (shown,) = daemon.status(root)["set_aside"]
    assert kept.name in shown
    assert "delete it to give it up" in shown
    assert "Parameter also has value" in (root / "log" / "endpoint.log").read_text()


def test_a_service_that_was_put_back_is_read_by_the_next_start_unless_it_has_a_new_record(
    root: Path,
) -> None:
    copy_fixture(root)
    document = json.loads(account_file(root).read_text())
    good = document["services"].pop("ssm")
    account_file(root).write_text(json.dumps(document))
    back = root / "account" / "ssm.service.json"
    back.write_text(json.dumps(good))
    stop_cloud(start_cloud(root, NETWORK))
    assert not back.exists()
    back.write_text(json.dumps(good))
    cloud = start_cloud(root, NETWORK)
    assert contents(cloud) == EXPECTED
    assert [path.name for path in set_aside_files(root)] == ["ssm.service.json.set-aside"]


def test_without_the_record_of_its_machines_an_account_removes_neither_processes_nor_folders(
    root: Path,
) -> None:
    cloud = start_cloud(root, NETWORK)
    image = cloud.image()
    instance = cloud.launch(image)
    cloud.wait_state(instance, "running")
    pid = cloud.node_facts(instance)["pid"]
    document = json.loads(account_file(root).read_text())
    document["services"]["ec2"]["accounts"] = 7
    os.kill(cloud.child("hypervisor"), signal.SIGSTOP)
    account_file(root).write_text(json.dumps(document))
    os.kill(cloud.child("endpoint"), signal.SIGKILL)
    eventually(lambda: set_aside_files(root), "the record is set aside", 60)
    os.kill(cloud.child("hypervisor"), signal.SIGKILL)
    eventually(
        lambda: len((root / "log" / "hypervisor.log").read_text().split("machine.adopted")) > 1,
        "the machine is adopted",
        60,
    )
    assert cloud.ec2.describe_instances()["Reservations"] == []
    assert running({pid}) == {pid}
    assert (cloud.machine_dir(instance) / "facts.json").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"", "truncated"),
        (lambda data: data.replace(b'"schema":1', b'"schema":2'), "its schema is 2"),
        (lambda data: b'{"schema":"localcloud.account/3","moto":"","services":{}}', "newer"),
        (lambda data: b"\x80\x05N.", "malformed"),
        (lambda data: b"[" * 100_000, "expected `object`"),
    ],
    ids=["truncated", "empty", "newer number", "newer", "pickle", "nested"],
)
def test_an_unreadable_account_is_set_aside_with_the_reason(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    copy_fixture(tmp_path)
    damaged = damage(account_file(tmp_path).read_bytes())
    account_file(tmp_path).write_bytes(damaged)
    with capture_logs() as logs:
        account = restored(tmp_path)
    assert account.lost == ["account"]
    (entry,) = [entry for entry in logs if "set aside" in entry["event"]]
    assert reason in entry["problem"] + entry["detail"].lower()
    assert not account_file(tmp_path).exists()
    assert [path.read_bytes() for path in set_aside_files(tmp_path)] == [damaged]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data.replace(b"moto.ec2.models.vpcs:VPC", b"os:system"), "not allowed"),
        (lambda data: data.replace(b"models.vpcs:VPC", b"models.vpcs:Gone"), "have no class"),
        (
            lambda data: data.replace(b'"ec2":{', b'"ec2":{"schema":"localcloud.service/9",'),
            "newer",
        ),
        (lambda data: data.replace(b'"ec2":{', b'"ec2":{"schema":"other/1",'), "other/1"),
    ],
    ids=["hostile", "other class", "newer", "other schema"],
)
def test_an_unreadable_service_is_set_aside_with_the_reason(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    copy_fixture(tmp_path)
    account_file(tmp_path).write_bytes(damage(account_file(tmp_path).read_bytes()))
    with capture_logs() as logs:
        account = restored(tmp_path)
    assert account.lost == ["ec2"]
    assert not account.is_complete("ec2")
    assert account.is_complete("ssm")
    (entry,) = [entry for entry in logs if "set aside" in entry["event"]]
    assert reason in entry["problem"] + entry["detail"]
    assert [path.name for path in set_aside_files(tmp_path)] == ["ec2.service.json.set-aside"]
    assert account_file(tmp_path).exists()


def restored(folder: Path) -> AccountStore:
    """The account of a folder, read in this process into copies of moto's backends."""
    from mesaform.localcloud.moto_patches.used_services import UsedServices
    from mesaform.localcloud.state_store import AccountStore

    account = AccountStore(folder / "account", UsedServices())
    backends: defaultdict[str, defaultdict[str, dict[str, object]]]
    backends = defaultdict(lambda: defaultdict(dict))
    account.restore(lambda service: backends[service])
    return account


def test_a_start_fails_once_after_an_account_was_set_aside_and_then_goes_on_empty(
    root: Path,
) -> None:
    copy_fixture(root)
    account_file(root).write_bytes(b'{"format":')
    text = refusal(root)
    (unreadable,) = set_aside_files(root)
    assert unreadable.name in text
    assert "rename the file" in text
    assert "run the same command again" in text
    assert unreadable.name in daemon.status(root)["set_aside"][0]
    cloud = Cloud(root, daemon.start(root).url, 0, NETWORK)
    assert cloud.client("s3").list_buckets()["Buckets"] == []
    daemon.stop(root)
    daemon.start(root)
    assert unreadable.name in daemon.status(root)["set_aside"][0]
    assert list((root / "account" / "objects").iterdir())


def test_a_pickled_account_is_refused_and_not_loaded(root: Path) -> None:
    marker = root / "executed"
    (root / "account").mkdir(parents=True)
    pickle = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    (root / "account" / "ec2.pickle").write_bytes(pickle)
    result = cli.invoke(local.local, ["start", "--state", str(root)])
    text = str(result.exception)
    assert isinstance(result.exception, MesaformError)
    assert "older version of mesaform (ec2.pickle)" in text
    assert "mesaform down" in text
    assert f"rm -r {root}" in text
    assert daemon.find(root) is None
    assert not marker.exists()
    assert (root / "account" / "ec2.pickle").read_bytes() == pickle


def test_a_kill_at_any_moment_loses_no_answered_call(root: Path) -> None:
    cloud = start_cloud(root, NETWORK)
    vpc = cloud.network()[0]
    ec2 = boto3.client(
        "ec2",
        endpoint_url=cloud.url,
        region_name=REGION,
        **operator_key(root),
        config=Config(retries={"total_max_attempts": 1}),
    )
    answered: list[int] = []
    stopped = threading.Event()

    def write() -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            try:
                ec2.create_tags(Resources=[vpc], Tags=[{"Key": "last", "Value": str(number)}])
            except (BotoCoreError, ClientError):
                continue
            answered.append(number)

    def has_answered(count: int) -> bool:
        return len(answered) > count

    def last_tag() -> int:
        (described,) = cloud.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
        return int({tag["Key"]: tag["Value"] for tag in described["Tags"]}["last"])

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        for delay_s in (0.0, 0.004):
            count = len(answered)
            eventually(partial(has_answered, count + 5), "calls are answered", 60)
            time.sleep(delay_s)
            os.kill(cloud.child("endpoint"), signal.SIGKILL)
    finally:
        stopped.set()
        writer.join(60)
    assert last_tag() >= answered[-1]
    assert daemon.status(root)["set_aside"] == []
    assert not set_aside_files(root)

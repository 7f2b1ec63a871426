"""Stored records of a running cluster: any bytes in each of them, and then a change of leaders.

The records are every persistent node in ZooKeeper that holds data (registry, apps, planner state,
a launch), the agent's checkpoints, and the control objects in S3 (orders, learned state). After
each input the processes are killed and started again: the cluster must go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hypothesis import strategies as st
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError

from mesaform.topology.names import bucket_name
from tests.fuzz import record_target
from tests.fuzz.exchange import Answer
from tests.fuzz.inputs import Stored
from tests.fuzz.subject import ACCOUNT, CLUSTER, REGION, Subject

ROOTS = ("/mesos", "/marathon", "/mesaform")
FILES = ("agent-1/meta/agent.*", "agent-1/meta/tasks/*")
LAUNCH = "/mesaform/autoscaler/launches/fuzz"
"""The autoscaler under test buys nothing, so its record of a launch is made here."""
KINDS = ("/mesos/registry", "/marathon/apps/", "/mesaform/autoscaler/state")
"""Each is the beginning of the path of a record that must exist."""
OBJECTS = ("freeze", "overrides", "heartbeat", "profile")


def contents() -> st.SearchStrategy[Stored]:
    """Records of any schema, damaged or not, and plain bytes."""
    usual = record_target.records().map(lambda record: record.data)
    odd = st.sampled_from([b"", b"{", b"null", b"[]", b"{}", b"\x00" * 100, b"x\x9c\x00", b"\xff"])
    return st.one_of(odd, odd, usual, st.binary(max_size=60)).map(
        lambda data: Stored("everywhere", data)
    )


def perform(subject: Subject, stored: Stored) -> Answer:
    """Write the bytes into every record, restart every process, and run a task.

    Raises:
        AssertionError: the cluster does not go on.

    """
    subject.run_app()
    nodes = _write_nodes(subject.cluster.zookeeper.hosts, stored.data)
    files = _write_files(subject.folder, stored.data)
    _write_objects(subject, stored.data)
    for kind in KINDS:
        assert any(path.startswith(kind) for path in nodes), f"no {kind}, so this proves nothing"
    assert len(files) > 1, "no checkpoint of a task, so this proves nothing"
    subject.restart_all()
    subject.recover()
    return Answer(200)


def _write_nodes(hosts: str, data: bytes) -> list[str]:
    client = KazooClient(hosts)
    client.start(timeout=60)
    try:
        paths = [path for root in ROOTS for path in _records(client, root)]
        for path in paths:
            with suppress(NoNodeError):  # its owner removed it meanwhile
                client.set(path, data)
        with suppress(NodeExistsError):
            client.create(LAUNCH, data, makepath=True)
    finally:
        client.stop()
        client.close()
    return paths


def _records(client: KazooClient, path: str) -> Iterator[str]:
    try:
        data, stat = client.get(path)
        children = client.get_children(path)
    except NoNodeError:
        return
    if data and not stat.ephemeralOwner and "set-aside" not in path:
        yield path
    for name in children:
        yield from _records(client, f"{path}/{name}")


def _write_objects(subject: Subject, data: bytes) -> None:
    client, bucket = subject.cloud.client("s3"), bucket_name(ACCOUNT, REGION)
    for name in OBJECTS:
        client.put_object(Bucket=bucket, Key=f"{CLUSTER}/control/{name}.json", Body=data)


def _write_files(folder: Path, data: bytes) -> list[Path]:
    every = [path for pattern in FILES for path in folder.glob(pattern)]
    paths = [path for path in every if "set-aside" not in path.name]
    for path in paths:
        path.write_bytes(data)
    return paths

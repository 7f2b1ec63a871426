"""A snapshot gives back what was in the state, or is refused as a whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.errors import BadInput
from mesaform.common.records import Problem, Unreadable
from mesaform.common.snapshots import SNAPSHOT, Snapshot
from mesaform.services.model import App, Deployment, Instance
from mesaform.services.records import APP, DEPLOYMENT, FRAMEWORK_ID, INSTANCE
from mesaform.services.snapshot_content import StateContent, content_nodes, read_restoration
from mesaform.topology.zookeeper import ZK_AUTOSCALER_RESTORED, ZK_AUTOSCALER_STATE

ROOT = "/marathon"
ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
apps = st.builds(App, id=ids, cmd=st.none() | ids, instances=st.integers(0, 100))
instances = st.builds(
    Instance,
    task_id=ids,
    app_id=ids,
    version=ids,
    config_version=ids,
    agent_id=ids,
    host=ids,
    staged_at=st.floats(0, 1e9),
    ports=st.lists(st.integers(0, 65535), max_size=3),
)
deployments = st.builds(
    Deployment, id=ids, version=ids, affected_apps=st.lists(ids, max_size=2), steps=st.just([])
)
contents = st.builds(
    StateContent,
    apps=st.lists(apps, max_size=3, unique_by=lambda app: app.id).map(tuple),
    instances=st.lists(instances, max_size=3, unique_by=lambda item: item.task_id).map(tuple),
    deployments=st.lists(deployments, max_size=2, unique_by=lambda item: item.id).map(tuple),
    framework_id=st.sampled_from(["", "f-1"]),
    autoscaler=st.sampled_from([b"", b"x\x9c..."]),
)


def snapshot_of(content: StateContent, **changes: object) -> Snapshot:
    snapshot = Snapshot(cluster="c", deployment="d", at=1.0, nodes=content_nodes(content, ROOT))
    return msgspec.structs.replace(snapshot, **changes)


def read(snapshot: Snapshot | Unreadable, **changes: object):
    arguments: dict = {"cluster": "c", "deployment": "d", "root": ROOT, **changes}
    return read_restoration(snapshot, **arguments)


@given(contents)
def test_a_snapshot_that_was_stored_gives_back_every_record(content):
    stored = SNAPSHOT.decode(SNAPSHOT.encode(snapshot_of(content)))
    restoration = read(stored)
    nodes = dict(restoration.nodes)
    assert nodes.pop(ZK_AUTOSCALER_RESTORED, b"") == content.autoscaler
    framework_id = nodes.pop(f"{ROOT}/framework_id", None)
    assert (framework_id and FRAMEWORK_ID.decode(framework_id)) == (content.framework_id or None)
    codecs: dict[str, Any] = {"apps": APP, "instances": INSTANCE, "deployments": DEPLOYMENT}
    found = [codecs[path.split("/")[2]].decode(data) for path, data in nodes.items()]
    everything = [*content.apps, *content.instances, *content.deployments]
    assert sorted(map(repr, found)) == sorted(map(repr, everything))
    counts = restoration.counts
    assert counts.get("apps", 0) == len(content.apps)
    assert counts.get("instances", 0) == len(content.instances)


EMPTY = StateContent((), (), ())


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"/marathon/apps/%2Fweb": b"null"}, "services.app"),
        ({"/marathon/apps/%2Fweb": b'{"schema":"services.app/9"}'}, "newer version"),
        ({"/marathon/framework_id": b'{"schema":"services.app/1"}'}, "framework-id"),
        ({"/marathon/framework_id/x": FRAMEWORK_ID.encode("f")}, "no such record"),
        ({"/marathon/jobs/x": b"{}"}, "no such record"),
        ({"/marathon/apps/a/b": b"{}"}, "no such record"),
        ({"/mesos/json.info_1": b"{}"}, "no such record"),
        ({"/marathonx/apps/a": b"{}"}, "no such record"),
        ({ZK_AUTOSCALER_STATE: bytes(1_000_001)}, "too many"),
    ],
)
def test_one_record_that_cannot_be_restored_refuses_the_snapshot(nodes, message):
    with pytest.raises(BadInput, match=message):
        read(snapshot_of(EMPTY, nodes=nodes))


def test_a_record_under_the_name_of_another_is_refused():
    app = App(id="/web")
    with pytest.raises(BadInput, match="the record is of '/web'"):
        read(snapshot_of(EMPTY, nodes={f"{ROOT}/apps/%2Fother": APP.encode(app)}))


def test_a_snapshot_of_another_cluster_is_refused_and_one_of_another_deployment_unless_allowed():
    with pytest.raises(BadInput, match="of the cluster x"):
        read(snapshot_of(EMPTY, cluster="x"), any_deployment=True)
    with pytest.raises(BadInput, match="deployment d0"):
        read(snapshot_of(EMPTY, deployment="d0"))
    assert read(snapshot_of(EMPTY, deployment="d0"), any_deployment=True).nodes == {}
    with pytest.raises(BadInput, match="cannot be read"):
        read(Unreadable("snapshots.state", Problem.NEWER, "version 2"))

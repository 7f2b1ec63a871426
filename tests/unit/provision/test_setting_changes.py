"""What a change of each setting of cluster.yaml does to a running cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from mesaform.common.errors import BadInput
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.provision.setting_changes import (
    PLANNED,
    RULES,
    Effect,
    require_changeable,
    rule_of,
    setting_changes,
)
from mesaform.topology.launch_documents import Membership, node_document
from mesaform.topology.user_data import NodeDocument
from tests.unit.docs.pages import REPOSITORY

AWS: dict[str, Any] = {
    "name": "a",
    "target": "aws",
    "network": {"operator_cidrs": ["203.0.113.7/32"]},
    "agents": [{"name": "p", "types": ["m5.large", "m5.xlarge"]}],
}
SLOTS = {"count": 2, "cpus": 4, "mem_mib": 8192}
EXPECTED = {"days": "mon-fri", "hours": "08:00-18:00", "count": 20, "cpus": 1, "mem_mib": 2048}
OTHER_VALUES: Mapping[str, Any] = {
    "name": "b",
    "target": None,
    "version": None,
    "region": "eu-west-1",
    "engine": None,
    "local.machines": None,
    "debug": "ssm",
    "tls": True,
    "ttl": "8h",
    "network.mode": "private",
    "network.cidr": "10.43.0.0/16",
    "network.zones": ["us-east-1a"],
    "network.nat": None,
    "network.existing": None,
    "network.operator_cidrs": ["203.0.113.8/32"],
    "network.open_to_the_world": True,
    "network.ipv6": True,
    "network.flow_logs": "s3",
    "network.flow_log_days": 7,
    "network.load_balancer": {"internal": True},
    "network.private_dns": "prod.internal",
    "masters.count": 5,
    "masters.type": "m5.large",
    "masters.disk_gib": 30,
    "masters.data_volume.size_gib": 20,
    "masters.data_volume.kms_key_id": "arn:aws:kms:us-east-1:123456789012:alias/mesos",
    "agents.name": None,
    "agents.count": 3,
    "agents.types": ["m5.xlarge"],
    "agents.spot_share": 0.5,
    "agents.min": 2,
    "agents.max": 9,
    "agents.max_age_hours": 48,
    "agents.attributes": {"rack": "r1"},
    "agents.disk_gib": 50,
    "agents.burst": True,
    "tasks.user": "daemon",
    "tasks.allow_root": True,
    "tasks.architecture": None,
    "tasks.placement": "spread",
    "autoscaler.enabled": False,
    "autoscaler.interval_s": 3,
    "autoscaler.idle_after_s": 60,
    "autoscaler.boot_timeout_s": 300,
    "autoscaler.drain_grace_s": 30,
    "autoscaler.headroom_percent": 5,
    "autoscaler.headroom_slots": [SLOTS],
    "autoscaler.zone_balance_percent": 3,
    "autoscaler.calendar": [EXPECTED],
    "autoscaler.profile": {"enabled": True},
    "autoscaler.ahead_margin_s": 30,
    "autoscaler.probe_framework": False,
    "autoscaler.drain_timeout_s": 300,
    "autoscaler.drain_timeout_kills": True,
    "autoscaler.lease_s": 600,
    "autoscaler.inference": {"usd_per_hour": 1},
    "autoscaler.consolidation": {"enabled": True},
    "autoscaler.interruption": {"on_rebalance": "replace"},
    "frameworks": [{"name": "spark-*", "adapter": "spark"}],
    "autoscaler.drift": {"replace": True},
    "http.host_names": ["x.example.com"],
    "http.jsonp": True,
    "http.standbys": "proxy",
    "access.token": "none",
    "access.authenticate_frameworks": None,
    "access.frameworks": [{"principal": "spark"}],
    "bake.subnet": "subnet-0123456789abcdef0",
    "bake.keep_images": 4,
    "account.iam_path": "/team/",
    "account.permissions_boundary": "arn:aws:iam::123456789012:policy/b",
    "account.kms_key": "arn:aws:kms:us-east-1:123456789012:key/k",
    "snapshots.interval_s": 600,
    "snapshots.keep_newest": 3,
    "snapshots.keep_days": 3,
    "snapshots.keep_former_days": 3,
    "cost.max_usd_per_hour": 2,
    "cost.task_gib_per_cpu_hour": 1.5,
}
"""Another value of each setting. None: there is none that goes with the rest of `AWS`."""
BOOTED = {Effect.NEXT_BOOT, Effect.UPGRADE}
FIXED = [
    name
    for name, value in OTHER_VALUES.items()
    if value and rule_of(name).effect is Effect.FIXED and name not in PLANNED
]
NOT_IN_DOCUMENTS = {"access.frameworks": "read from SSM, where another setting asks for it"}


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every setting of the model. Values of an optional section or of a list are one setting."""
    for name, field in model.model_fields.items():
        kind = Pool if f"{path}{name}" == "agents" else field.annotation
        is_open = path == "autoscaler."  # its sections are of one rule
        if isinstance(kind, type) and issubclass(kind, BaseModel) and not is_open:
            yield from leaves(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def changed(setting: str, value: Any) -> ClusterSpec:
    *sections, name = setting.split(".")
    data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(AWS))
    at = data
    for section in sections:
        at = at["agents"][0] if section == "agents" else at.setdefault(section, {})
    at[name] = value
    if setting == "region":
        data["network"]["zones"] = []
    return ClusterSpec.model_validate(data)


def documents(spec: ClusterSpec) -> tuple[NodeDocument, NodeDocument]:
    master = node_document(spec, "master", "r", authorities="A")
    agent = node_document(spec, "agent", "r", Membership(pool="p"), authorities="A")
    return tuple(msgspec.json.decode(item, type=NodeDocument) for item in (master, agent))  # type: ignore[return-value]


def test_every_setting_of_the_cluster_file_has_a_rule_and_every_rule_a_setting() -> None:
    settings = set(leaves(ClusterSpec))
    assert settings == set(OTHER_VALUES)
    used = {rule_of(setting).setting for setting in settings}
    assert used == {rule.setting for rule in RULES}
    assert all(rule.reason for rule in RULES if rule.effect is Effect.FIXED)


@pytest.mark.parametrize("setting", sorted(set(OTHER_VALUES) - set(NOT_IN_DOCUMENTS)))
def test_the_rule_says_whether_machines_read_the_setting_when_they_boot(setting: str) -> None:
    value, effect = OTHER_VALUES[setting], rule_of(setting).effect
    if value is None or effect is Effect.FIXED:
        return
    differ = documents(ClusterSpec.model_validate(AWS)) != documents(changed(setting, value))
    assert differ is (effect in BOOTED)


@pytest.mark.parametrize("setting", FIXED)
def test_a_change_that_a_running_cluster_cannot_take_is_refused_with_its_reason(
    setting: str,
) -> None:
    before = ClusterSpec.model_validate(AWS).model_dump(mode="json")
    after = changed(setting, OTHER_VALUES[setting]).model_dump(mode="json")
    with pytest.raises(BadInput) as caught:
        require_changeable(before, after)
    assert setting in caught.value.where
    assert rule_of(setting).reason in str(caught.value)
    assert "mesaform down" in caught.value.fix
    require_changeable(None, after)
    require_changeable(after, after)


def test_zones_that_the_account_chose_are_no_change() -> None:
    chosen = changed("network.zones", ["us-east-1a", "us-east-1b", "us-east-1d"])
    file = ClusterSpec.model_validate(AWS)
    require_changeable(chosen.model_dump(mode="json"), file.model_dump(mode="json"))


def test_a_change_of_the_engine_is_refused() -> None:
    spec = ClusterSpec.model_validate({"name": "a"}).model_dump(mode="json")
    with pytest.raises(BadInput, match=r"engine \(embedded to mesos\): .*every task is lost"):
        require_changeable(spec, {**spec, "engine": "mesos"})


def test_a_change_is_named_with_its_pool_and_both_values() -> None:
    before = ClusterSpec.model_validate(AWS).model_dump(mode="json")
    after = changed("agents.burst", True).model_dump(mode="json")
    (change,) = setting_changes(before, after)
    assert change.describe() == "agents[p].burst (false to true)"
    assert change.rule.effect is Effect.NEXT_BOOT


def test_a_setting_that_an_older_program_did_not_store_and_another_pool_are_no_changes() -> None:
    spec = ClusterSpec.model_validate(AWS).model_dump(mode="json")
    older = {name: value for name, value in spec.items() if name != "engine"}
    older["agents"] = []
    assert list(setting_changes(older, spec)) == []


def test_the_operations_page_has_the_table() -> None:
    rows = [f"| `{rule.setting}` | {rule.effect} |" for rule in RULES]
    lines = (REPOSITORY / "docs" / "operations.md").read_text().splitlines()
    assert [line for line in lines if line in rows] == rows


def test_the_default_architecture_of_tasks_is_read_at_boot() -> None:
    pools = [{"name": "p", "types": ["m5.large", "m6g.large"]}]
    x86, arm = (
        ClusterSpec.model_validate({**AWS, "agents": pools, "tasks": {"architecture": name}})
        for name in ("x86_64", "arm64")
    )
    assert rule_of("tasks.architecture").effect is Effect.NEXT_BOOT
    assert documents(x86) != documents(arm)

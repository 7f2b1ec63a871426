"""Limits that a machine allows, and the files that are written for them.

test_posix tests them with a real kernel.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesaform.engine.agent.cgroups import CgroupsV1, CgroupsV2, NoLimits, detect

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="limits need root")


def version_1(root: Path) -> Path:
    for name in ("memory", "cpu"):
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()
    return root


def version_2(root: Path) -> Path:
    for name in ("cgroup.controllers", "cgroup.subtree_control"):
        (root / name).touch()
    return root


@as_root
def test_the_version_that_is_mounted_is_used(tmp_path):
    for number, (make, kind) in enumerate(
        [(version_1, CgroupsV1), (version_2, CgroupsV2), (lambda root: root, NoLimits)]
    ):
        root = tmp_path / str(number)
        root.mkdir()
        assert isinstance(detect("", make(root))[0], kind)


@as_root
def test_limits_are_off_when_groups_cannot_be_created(tmp_path):
    version_2(tmp_path)
    (tmp_path / "mesaform").touch()
    limiter, words = detect("", tmp_path)
    assert isinstance(limiter, NoLimits)
    assert "mesaform" in words


@as_root
@pytest.mark.parametrize(
    ("isolation", "kind"),
    [("posix/cpu,posix/mem", NoLimits), ("cgroups/cpu,cgroups/mem", CgroupsV2)],
)
def test_isolation_can_turn_limits_off(tmp_path, isolation, kind):
    assert isinstance(detect(isolation, version_2(tmp_path))[0], kind)


def test_version_1_gets_shares_and_bytes(tmp_path):
    procs = CgroupsV1(tmp_path).create("c", cpus=0.5, mem_mib=64)
    assert procs == [f"{tmp_path}/{name}/mesaform/c/cgroup.procs" for name in ("memory", "cpu")]
    assert (tmp_path / "memory/mesaform/c/memory.limit_in_bytes").read_text() == f"{64 * 2**20}\n"
    assert (tmp_path / "cpu/mesaform/c/cpu.shares").read_text() == "512\n"


def test_version_2_gets_a_weight_and_bytes_and_its_controllers(tmp_path):
    procs = CgroupsV2(tmp_path).create("c", cpus=1, mem_mib=10)
    assert procs == [f"{tmp_path}/mesaform/c/cgroup.procs"]
    assert (tmp_path / "mesaform/c/memory.max").read_text() == f"{32 * 2**20}\n"
    assert (tmp_path / "mesaform/c/cpu.weight").read_text() == "39\n"
    for folder in (tmp_path, tmp_path / "mesaform"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory\n"


def test_version_2_names_what_the_kernel_killed(tmp_path):
    limiter = CgroupsV2(tmp_path)
    limiter.create("c", cpus=0, mem_mib=64)
    group = tmp_path / "mesaform" / "c"
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert limiter.over_limit("c") == ""
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (group / "memory.peak").write_text(f"{64 * 2**20}\n")
    assert limiter.over_limit("c") == "Memory limit exceeded: Requested: 64MB Maximum Used: 64MB"


def test_groups_that_never_were_are_removed_already(tmp_path):
    assert CgroupsV1(tmp_path).remove("c")
    assert CgroupsV2(tmp_path).remove("c")


@pytest.mark.parametrize("kind", [CgroupsV1, CgroupsV2])
def test_groups_of_a_killed_agent_are_removed_by_the_next_agent(tmp_path, kind):
    parents = (
        [tmp_path / "mesaform"]
        if kind is CgroupsV2
        else [tmp_path / name / "mesaform" for name in ("memory", "cpu")]
    )
    for parent in parents:
        for name, made_at in (("old", 100), ("young", 1000), ("alive", 100)):
            (parent / name).mkdir(parents=True)
            if name == "alive":
                (parent / name / "process").touch()
            os.utime(parent / name, (made_at, made_at))
    kind(tmp_path).remove_abandoned(now=1030.0)
    for parent in parents:
        assert sorted(path.name for path in parent.iterdir()) == ["alive", "young"]

"""Limits that a machine allows, and the files that are written for them.

test_posix tests them with a real kernel.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mesaform.engine.agent.cgroups import CgroupsV1, CgroupsV2, NoLimits, detect
from mesaform.engine.agent.task_unit import TaskUnit, read_task_unit

UNIT = "system.slice/mesaform-tasks.service"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="limits need root")


def version_1(root: Path) -> Path:
    for name in ("memory", "cpu"):
        (root / name).mkdir(parents=True)
        (root / name / "cgroup.procs").touch()
    return root


def of_version_1(root: Path) -> CgroupsV1:
    return CgroupsV1(root / "memory/mesaform", root / "cpu/mesaform")


def of_version_2(root: Path) -> CgroupsV2:
    return CgroupsV2(root / "mesaform")


def version_2(root: Path) -> Path:
    root.mkdir(exist_ok=True)
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


def unit_of(root: Path, *lines: str) -> TaskUnit:
    """The unit of tasks whose main process has these lines in /proc/self/cgroup."""
    file = root.parent / f"{root.name}-groups"
    file.write_text("".join(f"{line}\n" for line in lines))
    return read_task_unit(str(file), root)


@as_root
def test_groups_of_version_2_are_in_the_unit_that_systemd_delegates(tmp_path):
    root = tmp_path / "root"
    unit_group = version_2(root) / UNIT
    unit_group.mkdir(parents=True)
    (unit_group / "cgroup.procs").touch()
    limiter, words = detect("", root, unit_of(root, f"0::/{UNIT}"))
    assert str(unit_group) in words
    assert limiter.create("c", 1, 64) == [f"{unit_group}/tasks/c/cgroup.procs"]
    assert not (root / "mesaform").exists()
    assert (root / "cgroup.subtree_control").read_text() == "", "these are systemd's own groups"
    for folder in (unit_group, unit_group / "tasks"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory\n"


@as_root
def test_groups_of_version_1_are_in_the_unit_that_systemd_delegates(tmp_path):
    root = version_1(tmp_path / "root")
    for name in ("memory", "cpu,cpuacct"):
        (root / name / UNIT).mkdir(parents=True)
        (root / name / UNIT / "cgroup.procs").touch()
    shutil.rmtree(root / "cpu")
    (root / "cpu").symlink_to("cpu,cpuacct")
    lines = (f"4:memory:/{UNIT}", f"3:cpu,cpuacct:/{UNIT}", "2:cpuset:/", f"1:name=systemd:/{UNIT}")
    limiter, _ = detect("", root, unit_of(root, *lines))
    assert limiter.create("c", 1, 64) == [
        f"{root}/{name}/{UNIT}/tasks/c/cgroup.procs" for name in ("memory", "cpu")
    ]


@as_root
@pytest.mark.parametrize("lines", [(), ("0::/",), (f"0::/{UNIT}",)], ids=["none", "root", "ended"])
def test_without_a_unit_the_groups_are_where_they_were(tmp_path, lines):
    root = version_2(tmp_path / "root")
    (root / "cgroup.procs").touch()
    limiter, _ = detect("", root, unit_of(root, *lines))
    assert limiter.create("c", 1, 64) == [f"{root}/mesaform/c/cgroup.procs"]


@as_root
def test_a_unit_without_controllers_leaves_tasks_unlimited_but_keeps_runners(tmp_path):
    """As in a container on a host whose controllers are of version 1."""
    root = version_2(tmp_path / "root")
    (root / UNIT).mkdir(parents=True)
    (root / UNIT / "cgroup.procs").touch()
    (root / UNIT / "tasks").touch()  # the kernel refuses
    (root / "mesaform").touch()
    unit = unit_of(root, f"0::/{UNIT}")
    assert isinstance(detect("", root, unit)[0], NoLimits)
    assert unit.runner_groups() == [f"{root}/{UNIT}/runners/cgroup.procs"]


def test_runners_enter_the_hierarchies_by_which_systemd_knows_processes(tmp_path):
    root = tmp_path / "root"
    for name in ("systemd", "unified", "memory"):
        (root / name / UNIT).mkdir(parents=True)
        (root / name / UNIT / "cgroup.procs").touch()
    unit = unit_of(root, f"4:memory:/{UNIT}", f"1:name=systemd:/{UNIT}", f"0::/{UNIT}")
    assert unit.runner_groups() == [
        f"{root}/{name}/{UNIT}/runners/cgroup.procs" for name in ("unified", "systemd")
    ]
    assert unit_of(root).runner_groups() == []
    assert read_task_unit("", root).runner_groups() == []
    assert read_task_unit(str(tmp_path / "no-such-file"), root).runner_groups() == []


def test_version_1_gets_shares_and_bytes(tmp_path):
    procs = of_version_1(tmp_path).create("c", cpus=0.5, mem_mib=64)
    assert procs == [f"{tmp_path}/{name}/mesaform/c/cgroup.procs" for name in ("memory", "cpu")]
    assert (tmp_path / "memory/mesaform/c/memory.limit_in_bytes").read_text() == f"{64 * 2**20}\n"
    assert (tmp_path / "cpu/mesaform/c/cpu.shares").read_text() == "512\n"


def test_version_2_gets_a_weight_and_bytes_and_its_controllers(tmp_path):
    procs = of_version_2(tmp_path).create("c", cpus=1, mem_mib=10)
    assert procs == [f"{tmp_path}/mesaform/c/cgroup.procs"]
    assert (tmp_path / "mesaform/c/memory.max").read_text() == f"{32 * 2**20}\n"
    assert (tmp_path / "mesaform/c/cpu.weight").read_text() == "39\n"
    for folder in (tmp_path, tmp_path / "mesaform"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory\n"


def test_version_2_names_what_the_kernel_killed(tmp_path):
    limiter = of_version_2(tmp_path)
    limiter.create("c", cpus=0, mem_mib=64)
    group = tmp_path / "mesaform" / "c"
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert limiter.over_limit("c") == ""
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (group / "memory.peak").write_text(f"{64 * 2**20}\n")
    assert limiter.over_limit("c") == "Memory limit exceeded: Requested: 64MB Maximum Used: 64MB"


def test_groups_that_never_were_are_removed_already(tmp_path):
    assert of_version_1(tmp_path).remove("c")
    assert of_version_2(tmp_path).remove("c")


@pytest.mark.parametrize("kind", [of_version_1, of_version_2])
def test_groups_of_a_killed_agent_are_removed_by_the_next_agent(tmp_path, kind):
    parents = (
        [tmp_path / "mesaform"]
        if kind is of_version_2
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

"""The one table of Apache Mesos' flags: in the document, and known to the program's own help."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.mesos_prefix import PREFIX_VARIABLE, mesos_prefix
from mesaform.node import machine, mesos_flags
from mesaform.node.process import outlives_node
from tests.support import mesos_flags as document

PROGRAMS = {
    "master": (*mesos_flags.MASTER, mesos_flags.LOG, *mesos_flags.MASTER_ACCESS),
    "agent": (*mesos_flags.AGENT, *mesos_flags.AGENT_ACCESS),
}


def test_the_document_has_the_flags_of_the_code_with_their_reasons() -> None:
    text = document.DOCUMENT.read_text(encoding="utf-8")
    assert document.BEGIN in text
    assert document.with_table(text) == text, "python -m tests.support.mesos_flags"


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_each_flag_has_one_row_and_a_reason(program: str) -> None:
    names = [flag.name for flag in PROGRAMS[program]]
    assert len(set(names)) == len(names)
    assert all(flag.reason.endswith(".") for flag in PROGRAMS[program])


@pytest.mark.skipif(mesos_prefix() is None, reason=f"{PREFIX_VARIABLE} names no Apache Mesos")
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_apache_mesos_knows_every_flag(program: str) -> None:
    path = mesos_prefix() / "sbin" / f"mesos-{program}"  # type: ignore[operator]
    shown = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"--(?:\[no-\])?([a-z0-9_]+)", shown.stdout + shown.stderr))
    assert {flag.name for flag in PROGRAMS[program]} <= known


def test_a_node_that_stops_spares_executors_in_their_slice(tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/mesos_executors.slice/executor.scope\n")
    assert outlives_node(cgroup)
    cgroup.write_text("1:name=systemd:/\n0::/system.slice/mesaform-tasks.service/runners\n")
    assert outlives_node(cgroup)
    cgroup.write_text("0::/system.slice/mesaform-tasks.service/holder\n")
    assert not outlives_node(cgroup), "the main process of the unit is no task"
    cgroup.write_text("0::/system.slice/mesaform-node.service\n")
    assert not outlives_node(cgroup)
    assert not outlives_node(tmp_path / "of-an-ended-process")


def test_only_machines_that_are_processes_share_their_host(tmp_path: Path) -> None:
    size = {"MESAFORM_HARDWARE": '{"vcpus":2,"mem_mib":8192}'}
    assert not machine.features(size, tmp_path).is_shared
    assert machine.features(size | {"MESAFORM_MACHINE_DIR": str(tmp_path)}, tmp_path).is_shared


def test_control_groups_of_both_versions_need_the_controllers_of_cpu_and_memory(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / "1", tmp_path / "2"
    for name in ("cpu", "memory"):
        assert not machine.features({}, old).has_cgroups
        (old / name).mkdir(parents=True)
        (old / name / "tasks").touch()
    assert machine.features({}, old).has_cgroups
    new.mkdir()
    for text, expected in (("pids", False), ("cpu memory pids", True)):
        (new / "cgroup.controllers").write_text(text)
        assert machine.features({}, new).has_cgroups is expected

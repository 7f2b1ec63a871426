"""The unit that holds the control groups of tasks."""

from __future__ import annotations

import socket
from pathlib import Path

from mesaform.engine.agent import task_unit as reader
from mesaform.node import machine, process
from mesaform_images.builder import task_unit
from mesaform_images.builder.steps.mesaform import PROGRAMS_OF_UNITS
from mesaform_images.bundle import installed_layout

GROUPS = f"1:name=systemd:/\n0::/system.slice/{task_unit.NAME}\n"


def test_the_image_has_the_unit_and_the_nodes_unit_starts_it():
    files = installed_layout().images / "roles/mesaform/files"
    assert task_unit in PROGRAMS_OF_UNITS
    unit = (files / task_unit.NAME).read_text().splitlines()
    program = Path("/opt/mesaform", Path(str(task_unit.__file__)).name)
    assert f"ExecStart=/usr/bin/python3 -I {program}" in unit
    runtime = f"RuntimeDirectory={task_unit.RUNTIME_DIRECTORY}"
    assert {"Delegate=yes", "OOMPolicy=continue", runtime} <= set(unit)
    node = (files / "mesaform-node.service").read_text().splitlines()
    for key in ("Wants", "After", "PartOf"):
        assert f"{key}={task_unit.NAME}" in node


def test_node_and_agent_know_the_unit_by_the_names_of_the_image():
    assert {reader.NAME, process.TASKS_UNIT} == {task_unit.NAME}
    assert task_unit.HOLDER == process.TASKS_UNIT_HOLDER
    assert Path("/run", task_unit.RUNTIME_DIRECTORY, task_unit.GROUPS_FILE) == machine.TASK_UNIT


def test_the_main_process_leaves_the_units_group_of_version_2(tmp_path):
    (tmp_path / "cgroup.controllers").touch()
    group = tmp_path / "system.slice" / task_unit.NAME
    group.mkdir(parents=True)
    task_unit.leave_top_group(GROUPS, tmp_path, 4711)
    assert (group / "holder/cgroup.procs").read_text() == "4711\n"


def test_the_main_process_changes_no_group_of_version_1(tmp_path):
    task_unit.leave_top_group(GROUPS, tmp_path, 4711)
    assert list(tmp_path.iterdir()) == []


def test_the_agent_reads_what_the_main_process_publishes(tmp_path):
    (tmp_path / "cgroup.controllers").touch()
    group = tmp_path / "system.slice" / task_unit.NAME
    group.mkdir(parents=True)
    (group / "cgroup.procs").touch()
    task_unit.publish(GROUPS, tmp_path)
    unit = reader.read_task_unit(str(tmp_path / task_unit.GROUPS_FILE), tmp_path)
    assert unit.folder(reader.UNIFIED) == group


def test_systemd_hears_when_the_groups_can_be_used(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        task_unit.notify(str(tmp_path / "notify"), "READY=1")
        assert systemd.recv(100) == b"READY=1"
    task_unit.notify("", "READY=1")

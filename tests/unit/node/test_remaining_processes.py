"""Which processes of tasks a node counts: also those that outlived the node before it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mesaform.node import process

RUNNERS = "0::/system.slice/mesaform-tasks.service/runners\n"


@pytest.mark.parametrize(
    ("own", "counts"),
    [("0::/system.slice/mesaform-node.service\n", True), ("0::/user.slice\n", False)],
    ids=["unit", "process of a shared host"],
)
def test_tasks_that_outlived_a_node_remain_where_it_is_a_unit(
    tmp_path: Path, *, own: str, counts: bool
) -> None:
    # The parent of the test is a process that is not below this one, as a runner of an earlier
    # node's agent.
    survivor = os.getppid()
    for pid, text in (("self", own), (str(survivor), RUNNERS)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(text)
    with subprocess.Popen(["sleep", "600"]) as service, subprocess.Popen(["sleep", "600"]) as task:
        try:
            found = process.remaining({service.pid}, tmp_path)
        finally:
            service.kill()
            task.kill()
    assert task.pid in found
    assert service.pid not in found
    assert (survivor in found) is counts

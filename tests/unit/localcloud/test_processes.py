"""The count of the processes of machines."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from mesaform.localcloud.processes import Census

INSTANCE = "i-0123456789abcdef7"
PROGRAM = f"""\
read line
exec env MESAFORM_INSTANCE_ID={INSTANCE} sh -c 'echo joined; exec sleep 1000'
"""


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[str]]:
    """A process of no machine that becomes one of a machine when it reads a line."""
    command = ["sh", "-c", PROGRAM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_a_process_that_was_of_no_machine_for_long_is_looked_at_in_every_tenth_count(stranger):
    census = Census()
    assert not any(INSTANCE in census.take() for _ in range(20))
    stranger.stdin.write("\n")
    stranger.stdin.flush()
    assert stranger.stdout.readline() == "joined\n"
    assert any(stranger.pid in census.take().get(INSTANCE, set()) for _ in range(10))

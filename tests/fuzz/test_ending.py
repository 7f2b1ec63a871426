"""A signal ends a run of `make fuzz` together with every process that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster_harness import until
from harness.zookeeper import available

pytestmark = [
    pytest.mark.slow,
    pytest.mark.zookeeper,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not available(), reason="no ZooKeeper is installed"),
]
START_S = 120.0
IN_BACKGROUND = """trap "" INT; exec "$@" """
"""As a shell starts a program in the background."""


def processes_of(folder: Path) -> list[int]:
    """Processes that name a folder in their command line, environment or working folder."""
    mark, pids = str(folder).encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            texts = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if any(mark in text for text in texts):
            pids.append(int(entry.name))
    return pids


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The folder of temporary files of a run; ends what a failed test leaves."""
    yield tmp_path
    for pid in processes_of(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("count", [2, 7], ids=["while it starts", "while it fuzzes"])
def test_a_signal_ends_a_run_and_all_that_it_started(
    temporary: Path, number: signal.Signals, count: int
) -> None:
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "FUZZ_SECONDS": "600",
        "FUZZ_TARGETS": "5050",
        "FUZZ_SEED": "1",
    }
    run = subprocess.Popen(
        ["sh", "-c", IN_BACKGROUND, "sh", sys.executable, "-m", "tests.fuzz"],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    until("it started processes", lambda: len(processes_of(temporary)) > count, START_S)
    run.send_signal(number)
    assert run.wait(START_S) == 128 + number
    assert processes_of(temporary) == []

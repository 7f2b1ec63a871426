"""A jump of one process's clock, by a library that is preloaded (`clock_offset.c`).

Machines of the local target share the host's real-time clock, and a time namespace of Linux moves
only the monotonic clocks (time_namespaces(7)). libfaketime 0.9.10 breaks Python's `time.sleep`. The
leading autoscaler is therefore started again with the library, which a C compiler makes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.scenario import Outcome, Scenario
from benchmarks.faults.site import AUTOSCALER, BURST, BURST_TASKS, Site, stopped
from harness.cluster_harness import until
from mesaform.common import proc

ABSENT = "there is no C compiler `cc` for clock_offset.c; the tests inject jumps"
JUMP_S = 7200
SOURCE = Path(__file__).with_name("clock_offset.c")


def jump(site: Site) -> Outcome:
    """Move the clock of the leading autoscaler, and post a burst of tasks at once."""
    if shutil.which("cc") is None:
        return Outcome(None, note=ABSENT)
    library = site.road.folder / "clock_offset.so"
    build = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(build, check=True, timeout=60)
    address = until("an autoscaler leads", site.autoscaler_leader, 60)
    offset = site.road.folder / "clock"
    offset.write_text("0")
    with _moved(site, address, library, offset):
        _let_lead(site, address)
        offset.write_text(str(JUMP_S))
        site.post(BURST, BURST_TASKS, 1)
        recovery_s = site.recovery(
            "all tasks of the burst run", lambda: len(site.running(BURST)) == BURST_TASKS
        )
        twice = site.excess_machines(BURST_TASKS)
    return Outcome(recovery_s, site.lost(), twice, site.end_burst())


@contextmanager
def _moved(site: Site, address: str, library: Path, offset: Path) -> Iterator[None]:
    """Run a machine's autoscaler with a clock that the file moves. Its node starts none beside."""
    own = site.process(address, *AUTOSCALER)
    command, folder = proc.command_of(own), Path(f"/proc/{own}/cwd").readlink()
    entries = (item.decode().partition("=") for item in proc.environment_of(own) if item)
    environment = {
        **{name: value for name, _, value in entries},
        "LD_PRELOAD": str(library),
        "CLOCK_OFFSET_FILE": str(offset),
    }
    with stopped(site.process(address, "-m", "mesaform.node")):
        os.kill(own, signal.SIGKILL)
        with (site.road.folder / "moved.log").open("ab") as log:
            child = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield
            assert child.poll() is None, f"it ended with {child.returncode}"
        finally:
            child.kill()
            child.wait()


def _let_lead(site: Site, address: str) -> None:
    """Kill the leading autoscalers until this machine's leads: later ones queue behind it."""

    def leads() -> bool:
        leader = site.autoscaler_leader()
        if leader is not None and leader != address:
            os.kill(site.process(leader, *AUTOSCALER), signal.SIGKILL)
        return leader == address

    until("the autoscaler with the moved clock leads", leads, 120)


SCENARIOS = (Scenario("clock", "clock of the autoscaler's leader jumps 2 h", 60, jump),)

from __future__ import annotations

import os
import subprocess
import sys

from mesaform.common import proc


def test_this_process_is_read_with_its_parent_and_is_alive():
    own = proc.read_process(os.getpid())
    assert own is not None
    assert own.parent == os.getppid()
    assert own.rss_bytes > 0
    assert not own.has_ended
    assert proc.is_alive(own.pid, own.start_ticks)
    assert not proc.is_alive(own.pid, own.start_ticks + 1), "a later process with the same pid"


def test_a_zombie_is_read_and_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = proc.read_process(child.pid)
    assert zombie is not None
    assert zombie.has_ended
    assert not proc.is_alive(child.pid, zombie.start_ticks)
    assert child.pid not in proc.children(os.getpid())
    child.wait()
    assert proc.read_process(child.pid) is None


def test_descendants_and_environments_are_found():
    inner = "import sys; sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    marker = f"MESAFORM_TEST_MARKER={os.getpid()}"
    name, _, value = marker.partition("=")
    with subprocess.Popen(
        [sys.executable, "-c", outer],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, name: value},
    ) as child:
        while len(below := proc.descendants(child.pid, proc.running_processes())) < 1:
            pass
        assert child.pid in proc.children(os.getpid())
        assert {child.pid, below[0].pid} <= set(proc.pids_with_environment(marker))
        child.communicate()


def test_the_boot_id_does_not_change():
    assert proc.boot_id() == proc.boot_id()

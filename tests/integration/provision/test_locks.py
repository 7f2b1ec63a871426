"""Locks of a cluster's folder: who holds them, waiting, and ending who holds them in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mesaform.common.progress import Recorded
from mesaform.provision.holders import FOLDER_MARK, find_workers
from mesaform.provision.lock import Occupied, hold, hold_cluster, hold_terraform
from mesaform.provision.state_folders import state_file, synth_dir
from mesaform.provision.turn import take_turn

Start = Callable[..., subprocess.Popen[str]]

VERB = """
import subprocess, sys, time
from pathlib import Path
from typing import Any
from mesaform.provision.holders import holder_of
from mesaform.provision.lock import hold_cluster
with hold_cluster(Path(sys.argv[1]), "mesaform up") as held:
    if len(sys.argv) > 2:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(held.descriptor,))
        held.note(holder_of(child.pid, "terraform apply"))
        print(child.pid, flush=True)
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        pass
"""
TERRAFORM = """
import fcntl, signal, sys, time
state = open(sys.argv[2], "a")
if sys.argv[3] == "locked":
    fcntl.lockf(state, fcntl.LOCK_EX)
def end(number, frame):
    state.write(signal.Signals(number).name); state.flush(); sys.exit(0)
signal.signal(signal.SIGINT, end)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and returns when it has printed that it is ready; ends it afterwards."""
    children = []

    def run(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
        )
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.wait()


def started_verb(start: Start, folder: Path, *more: str) -> subprocess.Popen[str]:
    child = start(sys.executable, "-c", VERB, str(folder), *more)
    if not more:
        read_line(child)
    return child


def started_terraform(start: Start, folder: Path, *, cwd: Path, lock: str = "", mark: str = ""):
    """A process that looks like a Terraform whose parents died."""
    folder.mkdir(parents=True, exist_ok=True)
    cwd.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, FOLDER_MARK: mark} if mark else dict(os.environ)
    state = str(state_file(folder, "masters"))
    script = folder.parent / "terraform"
    script.write_text(TERRAFORM)
    child = start(
        sys.executable, str(script), "apply", state, lock or "free", cwd=cwd, env=environment
    )
    read_line(child)
    return child


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_the_error_for_a_taken_lock_names_verb_pid_and_time(tmp_path):
    shown = rf"held by mesaform up \(pid {os.getpid()}, since \d\d:\d\d:\d\d, for .+\)"
    with (
        hold(tmp_path / "lock", "mesaform up"),
        pytest.raises(Occupied, match=shown),
        hold(tmp_path / "lock", "mesaform down"),
    ):
        pass
    with hold(tmp_path / "lock", "again"):
        pass


def test_the_locks_file_is_readable_by_its_owner_only(tmp_path):
    with hold(tmp_path / "lock", "mesaform up"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_note_of_an_older_version_is_shown_as_it_is(tmp_path, start):
    program = (
        "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2);"
        "f.write('pid 4711: mesaform up'); f.flush(); print('ready',flush=True); time.sleep(600)"
    )
    read_line(start(sys.executable, "-c", program, str(tmp_path / "lock")))
    with (
        pytest.raises(Occupied, match="held by pid 4711: mesaform up"),
        hold_cluster(tmp_path, "x"),
    ):
        pass


def test_a_child_of_a_killed_verb_holds_terraforms_lock_on(tmp_path, start):
    verb = started_verb(start, tmp_path, "with a child")
    child = int(read_line(verb))
    read_line(verb)
    verb.kill()
    verb.wait()
    with (
        pytest.raises(Occupied, match=rf"terraform apply \(pid {child}, since") as caught,
        hold_cluster(tmp_path, "mesaform down"),
    ):
        pass
    assert not caught.value.is_verb
    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("sign", ["environment", "working folder", "state lock"])
def test_a_terraform_without_parents_and_locks_is_found(tmp_path, start, sign):
    folder = tmp_path / "state"
    terraform = started_terraform(
        start,
        folder,
        cwd=synth_dir(folder) / "stacks" / "masters" if sign == "working folder" else tmp_path,
        lock="locked" if sign == "state lock" else "",
        mark=str(folder) if sign == "environment" else "",
    )
    assert [worker.pid for worker in find_workers(folder)] == [terraform.pid]
    with (
        pytest.raises(Occupied, match=rf"terraform apply \(pid {terraform.pid}"),
        hold_terraform(folder, "test"),
    ):
        pass


def test_workers_of_another_folder_do_not_count(tmp_path, start):
    other = tmp_path / "other" / "state"
    started_terraform(start, other, cwd=synth_dir(other), lock="locked", mark=str(other))
    with hold_cluster(tmp_path / "mine" / "state", "test"):
        pass


def test_a_terraform_that_is_ended_is_interrupted_and_writes_its_state(tmp_path, start):
    folder = tmp_path / "state"
    terraform = started_terraform(start, folder, cwd=tmp_path, lock="locked", mark=str(folder))
    reaper = threading.Thread(target=terraform.wait)
    reaper.start()
    report = Recorded()
    with take_turn(folder, "mesaform up", lambda _: "end", lambda: nullcontext(report)):
        assert find_workers(folder) == ()
    reaper.join()
    assert state_file(folder, "masters").read_text() == "SIGINT"
    assert ("done", "End Terraform of an earlier run") in [event[:2] for event in report.events]


def test_a_running_verb_is_ended_by_an_interrupt(tmp_path, start):
    verb = started_verb(start, tmp_path)
    reaper = threading.Thread(target=verb.wait)
    reaper.start()
    with take_turn(tmp_path, "mesaform down", lambda _: "end", lambda: nullcontext(Recorded())):
        holder = json.loads((tmp_path / "lock").read_text())[-1]
        assert holder["pid"] == os.getpid()
    reaper.join()
    assert verb.returncode == 0


def test_a_verb_that_waits_says_for_whom_and_goes_on_when_it_ended(tmp_path, start):
    verb = started_verb(start, tmp_path)

    class EndsVerb(Recorded):
        """Ends the other verb once the wait has been reported."""

        def advanced(self, stage: str, detail: str) -> None:
            super().advanced(stage, detail)
            if verb.poll() is None:
                verb.kill()
                verb.wait()

    report = EndsVerb()
    with take_turn(tmp_path, "mesaform up", lambda _: "wait", lambda: nullcontext(report)):
        pass
    waited = [detail for state, _, detail in report.events if state == "advanced"]
    assert f"mesaform up (pid {verb.pid}, since" in waited[0]
    assert "--end-other" in waited[0]


def test_a_choice_to_stop_changes_nothing_and_keeps_no_lock(tmp_path, start):
    verb = started_verb(start, tmp_path)
    with (
        pytest.raises(Occupied) as caught,
        take_turn(tmp_path, "mesaform up", lambda _: "stop", lambda: nullcontext(Recorded())),
    ):
        pass
    assert caught.value.is_verb
    assert verb.poll() is None

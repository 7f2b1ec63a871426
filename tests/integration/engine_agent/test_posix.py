"""Containers as real processes: their start, environment and end, and what they leave."""

from __future__ import annotations

import asyncio
import io
import os
import pwd
import signal
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web

from harness.agent_process import gone, processes_of
from mesaform.common import proc
from mesaform.common.errors import BadInput
from mesaform.engine.agent.cgroups import Limiter, NoLimits, detect
from mesaform.engine.agent.containerizer import ContainerSpec
from mesaform.engine.agent.events import ContainerEvent, Exited, LaunchFailed, Ran, Started
from mesaform.engine.agent.identity import UserPolicy
from mesaform.engine.agent.layout import Layout
from mesaform.engine.agent.output import OutputLimits
from mesaform.engine.agent.posix import PosixContainerizer, TaskSettings
from mesaform.engine.agent.task_unit import TaskUnit
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.mesos.messages import CommandInfo, TaskInfo
from tests.unit.engine_agent.builders import framework, task

pytestmark = pytest.mark.slow
HOST = "127.61.0.11"
E = TypeVar("E", bound=ContainerEvent)
UNIT = "system.slice/mesaform-tasks.service"
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to become another user or to limit memory"
)


class Machine:
    """A containerizer and what it reported; `restart` drops it as a crash of the agent would."""

    def __init__(self, work_dir: Path, limiter: Limiter) -> None:
        self.layout = Layout(work_dir)
        self.limiter = limiter
        self.output_limits = OutputLimits(file_bytes=4096, files=3)
        self.reports: list[ContainerEvent] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self.users = UserPolicy()
        self.unit = TaskUnit()
        self.containers = self._make()

    def _make(self) -> PosixContainerizer:
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "INHERITED": "yes"}
        return PosixContainerizer(
            self.layout,
            self._report,
            self._spawn,
            self.limiter,
            TaskSettings(environment, self.users, self.output_limits, self.unit),
        )

    def _spawn(self, work: Coroutine[object, None, None], name: str) -> asyncio.Task[None]:
        spawned = asyncio.create_task(work, name=name)
        self.tasks.add(spawned)
        spawned.add_done_callback(self.tasks.discard)
        return spawned

    def _report(self, event: ContainerEvent) -> None:
        self.reports.append(event)
        self._news.set()

    def spec(self, info: TaskInfo, container_id: str = "c1", user: str = "root") -> ContainerSpec:
        record = TaskRecord(
            framework=framework(user=user), task=info, container_id=container_id, received_at=0.0
        )
        return ContainerSpec.of(record)

    def launch(self, command: str | Mapping[str, object] = "true") -> ContainerSpec:
        spec = self.spec(task("t", command))
        self.containers.launch(spec)
        return spec

    async def reported(self, kind: type[E]) -> E:
        async with asyncio.timeout(60):
            while True:
                events = [event for event in self.reports if isinstance(event, kind)]
                if events:
                    return events[0]
                self._news.clear()
                await self._news.wait()

    async def until_exists(self, path: Path) -> None:
        async with asyncio.timeout(60):
            while not path.exists():
                await asyncio.sleep(0.01)

    async def restart(self) -> None:
        for running in list(self.tasks):
            running.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.reports.clear()
        self.containers = self._make()

    def output(self, name: str = "stdout") -> str:
        (folder,) = (self.layout.sandboxes / "fw" / "t").iterdir()
        return (folder / name).read_text()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """Afterwards no process of it is left."""
    machine = Machine(tmp_path, NoLimits())
    yield machine
    for container_id in machine.layout.containers():
        machine.containers.kill(container_id, 0.0)
    async with asyncio.timeout(60):
        await asyncio.gather(*machine.tasks, return_exceptions=True)
    assert processes_of(tmp_path) == []


async def test_a_container_reports_its_start_its_command_and_its_exit(machine):
    machine.launch("exit 3")
    exited = await machine.reported(Exited)
    assert [type(event) for event in machine.reports] == [Started, Ran, Exited]
    assert exited.wait_status == 3 << 8


async def test_a_command_sees_its_sandbox_and_its_environment_only(machine):
    variables = [{"name": "MINE", "value": "1"}, {"name": "INHERITED", "value": "mine"}]
    spec = machine.launch({"value": "pwd; env | sort", "environment": {"variables": variables}})
    await machine.reported(Exited)
    sandbox = str(machine.containers.sandbox(spec))
    seen = dict(line.split("=", 1) for line in machine.output().splitlines()[1:])
    assert machine.output().startswith(sandbox + "\n")
    assert seen.pop("PWD") == sandbox
    assert seen == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "INHERITED": "mine",
        "MINE": "1",
        "MESOS_SANDBOX": sandbox,
        "MESOS_DIRECTORY": sandbox,
        "MESOS_TASK_ID": "t",
        "MESOS_FRAMEWORK_ID": "fw",
        "MESOS_AGENT_ID": "0000-S1",
        "MESOS_SLAVE_ID": "0000-S1",
        "MESOS_CONTAINER_ID": "c1",
    }


async def test_a_program_gets_its_arguments_unchanged(machine):
    machine.launch(
        {"shell": False, "value": "printf", "arguments": ["printf", "[%s]", "a b", "$HOME", "*"]}
    )
    await machine.reported(Exited)
    assert machine.output() == "[a b][$HOME][*]"


async def test_a_program_that_does_not_exist_exits_with_1_and_a_message(machine):
    machine.launch({"shell": False, "value": "no-such-program"})
    assert (await machine.reported(Exited)).wait_status == 1 << 8
    assert (
        machine.output("stderr")
        == "Failed to execute 'no-such-program': No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ({}, "Shell command of the task is not specified"),
        ({"arguments": ["sleep", "1"]}, "Shell command of the task is not specified"),
        ({"shell": False, "arguments": ["true"]}, "Executable of the task is not specified"),
    ],
)
async def test_a_command_without_a_value_is_not_started(machine, command, reason):
    machine.launch(command)
    assert (await machine.reported(LaunchFailed)).why == reason


async def test_a_program_that_may_not_be_executed_says_so(machine):
    machine.launch({"shell": False, "value": "/etc/passwd"})
    assert (await machine.reported(Exited)).wait_status == 1 << 8
    assert "Permission denied" in machine.output("stderr")


async def test_nothing_of_a_task_stays_behind_not_even_in_other_sessions(machine, tmp_path):
    machine.launch(
        "(setsid sleep 1000 &); (setsid sh -c 'setsid sleep 1000 & sleep 1000' &); "
        "sleep 1000 & touch ready; exit 0"
    )
    await machine.reported(Exited)
    assert processes_of(tmp_path) == []


async def test_the_family_dies_with_a_task_that_is_killed(machine, tmp_path):
    spec = machine.launch(
        "trap '' TERM; (setsid sleep 1000 &); sleep 1000 & touch ready; "
        "while true; do sleep 1; done"
    )
    await machine.until_exists(machine.containers.sandbox(spec) / "ready")
    machine.containers.kill("c1", 0.1)
    assert (await machine.reported(Exited)).wait_status == signal.SIGKILL
    assert processes_of(tmp_path) == []


async def test_a_task_is_asked_before_it_is_killed(machine):
    spec = machine.launch(
        "trap 'echo bye; exit 9' TERM; touch ready; while true; do sleep 0.05; done"
    )
    await machine.until_exists(machine.containers.sandbox(spec) / "ready")
    machine.containers.kill("c1", 30.0)
    assert (await machine.reported(Exited)).wait_status == 9 << 8
    assert machine.output() == "bye\n"


async def test_a_shorter_grace_overtakes_a_longer_one(machine):
    spec = machine.launch("trap '' TERM; touch ready; while true; do sleep 1; done")
    await machine.until_exists(machine.containers.sandbox(spec) / "ready")
    machine.containers.kill("c1", 60.0)
    machine.containers.kill("c1", 0.1)
    assert (await machine.reported(Exited)).wait_status == signal.SIGKILL


async def test_a_runner_is_small(machine):
    machine.launch("sleep 1000")
    await machine.reported(Ran)
    runner = proc.read_process((await machine.reported(Started)).executor_pid)
    assert runner is not None
    assert runner.rss_bytes < 11 * 2**20


async def test_a_running_container_is_adopted_and_its_exit_reported(machine):
    spec = machine.launch("while ! [ -e go ]; do sleep 0.02; done; exit 4")
    started = await machine.reported(Started)
    await machine.reported(Ran)
    await machine.restart()
    machine.containers.recover(spec)
    assert machine.reports == [started, Ran("c1")]
    (machine.containers.sandbox(spec) / "go").touch()
    assert (await machine.reported(Exited)).wait_status == 4 << 8


async def test_a_container_that_ended_unseen_is_reported_from_its_record(machine):
    spec = machine.launch("while ! [ -e go ]; do sleep 0.02; done; exit 4")
    runner = (await machine.reported(Started)).executor_pid
    await machine.reported(Ran)
    await machine.restart()
    (machine.containers.sandbox(spec) / "go").touch()
    await gone(runner)
    machine.containers.recover(spec)
    assert (await machine.reported(Exited)).wait_status == 4 << 8
    assert [type(event) for event in machine.reports] == [Started, Exited]


async def test_another_process_with_the_runners_pid_is_not_mistaken_for_it(machine):
    attempt = machine.layout.new_attempt("c1")
    (attempt / "runner").write_text(f"{os.getpid()} 1 {proc.boot_id()}\n")
    machine.containers.recover(machine.spec(task("t", "true")))
    exited = await machine.reported(Exited)
    assert exited == Exited("c1", None)


async def test_a_launch_that_never_began_is_begun_again_and_the_late_runner_stays_out(
    machine, tmp_path
):
    late = machine.layout.new_attempt("c1")
    machine.containers.recover(machine.spec(task("t", "echo once")))
    assert (await machine.reported(Exited)).wait_status == 0
    assert (late / "runner").read_text() == ""
    assert not (late / "exit").exists()
    assert machine.output() == "once\n"


async def test_a_command_runs_inside_with_the_tasks_environment_and_in_time(machine, tmp_path):
    machine.launch("exec sleep 1000")
    await machine.reported(Ran)
    run = machine.containers.run_inside
    assert await run(
        "c1", CommandInfo(value='[ "$MESOS_TASK_ID" = t ] && [ "$PWD" = "$MESOS_SANDBOX" ]'), 5.0
    )
    assert not await run("c1", CommandInfo(value="false"), 5.0)
    assert not await run("c1", CommandInfo(value="sleep 1000 & sleep 1000"), 0.1)
    assert not await run("nobody", CommandInfo(value="true"), 5.0)
    async with asyncio.timeout(60):
        while len(processes_of(tmp_path)) > 2:
            await asyncio.sleep(0.01)


async def test_what_a_check_left_behind_dies_with_the_task(machine, tmp_path):
    machine.launch("sleep 1000")
    await machine.reported(Ran)
    assert await machine.containers.run_inside(
        "c1", CommandInfo(value="setsid sleep 1000 & exit 0"), 5.0
    )
    machine.containers.kill("c1", 3.0)
    await machine.reported(Exited)
    async with asyncio.timeout(60):
        while processes_of(tmp_path):
            await asyncio.sleep(0.01)


async def test_usage_counts_the_whole_family(machine):
    spec = machine.launch("sleep 1000 & sleep 1000 & : >ready; wait")
    await machine.until_exists(machine.containers.sandbox(spec) / "ready")
    usage = machine.containers.usage()["c1"]
    assert usage.processes == 3
    assert usage.rss_bytes > 0


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[str]:
    """A web server with a script, an archive and a file that never ends."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("inner/file")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"data"))

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(3600)
        return response

    def giving(data: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=data)

        return answer

    app = web.Application()
    app.router.add_get("/run.sh", giving(b"#!/bin/sh\necho ran\n"))
    app.router.add_get("/packed.tar.gz", giving(packed.getvalue()))
    app.router.add_get("/endless", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield f"http://{HOST}:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_uris_are_fetched_unpacked_and_made_executable(machine, files, tmp_path):
    local = tmp_path / "local.txt"
    local.write_text("local\n")
    uris = [
        {"value": f"{files}/run.sh", "executable": True},
        {"value": f"{files}/packed.tar.gz"},
        {"value": f"file://{local}", "output_file": "sub/renamed"},
        {"value": str(local)},
    ]
    machine.launch({"value": "./run.sh; cat inner/file sub/renamed local.txt", "uris": uris})
    assert (await machine.reported(Exited)).wait_status == 0
    assert machine.output() == "ran\ndatalocal\nlocal\n"


@pytest.mark.parametrize(
    "uri",
    [
        {"value": "/no/such/file"},
        {"value": "{files}/missing"},
        {"value": "http://127.61.0.12:1/x"},
        {"value": "ftp://example.org/x"},
        {"value": "/etc/passwd", "output_file": "../../out"},
        {"value": "/etc/passwd", "output_file": "/tmp/out"},
        {"value": "{files}/"},
    ],
)
async def test_a_uri_that_cannot_be_fetched_fails_the_launch_and_is_named(machine, files, uri):
    uri = {**uri, "value": uri["value"].replace("{files}", files)}
    machine.launch({"value": "true", "uris": [uri]})
    failed = await machine.reported(LaunchFailed)
    assert f"'{uri['value']}'" in failed.why
    assert len(machine.reports) == 1


async def test_a_kill_during_a_fetch_cancels_the_launch(machine, files):
    spec = machine.launch({"value": "true", "uris": [{"value": f"{files}/endless"}]})
    await machine.until_exists(machine.containers.sandbox(spec) / "endless")
    machine.containers.kill("c1", 3.0)
    assert machine.reports == [LaunchFailed("c1", "a kill was requested meanwhile")]
    await asyncio.gather(*machine.tasks)
    assert len(machine.reports) == 1


async def test_a_nul_in_a_command_fails_the_launch_only(machine):
    machine.launch({"shell": False, "value": "a\0b"})
    assert "null" in (await machine.reported(LaunchFailed)).why


@needs_root
async def test_a_command_becomes_the_user_it_asks_for_and_owns_its_sandbox(machine, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    machine.launch({"value": "id -un; id -G; touch mine", "user": "nobody"})
    exited = await machine.reported(Exited)
    assert exited.wait_status == 0, machine.output("stderr")
    entry = pwd.getpwnam("nobody")
    assert machine.output().split() == [
        "nobody",
        *map(str, os.getgrouplist("nobody", entry.pw_gid)),
    ]
    (sandbox,) = (machine.layout.sandboxes / "fw" / "t").iterdir()
    assert (sandbox / "mine").owner() == "nobody"


@needs_root
async def test_a_user_cannot_have_files_fetched_that_it_may_not_read(machine, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    machine.launch({"value": "cat secret", "user": "nobody", "uris": [{"value": str(secret)}]})
    assert "Permission denied" in (await machine.reported(LaunchFailed)).why


@needs_root
@pytest.mark.parametrize("named", [None, "root"])
async def test_without_permission_root_is_no_user_of_a_task(machine, named):
    machine.users = UserPolicy("nobody", allows_root=False)
    await machine.restart()
    machine.launch({"value": "id -un; id -u; echo $HOME", **({"user": named} if named else {})})
    assert (await machine.reported(Exited)).wait_status == 0, machine.output("stderr")
    (sandbox,) = (machine.layout.sandboxes / "fw" / "t").iterdir()
    assert machine.output().split() == ["nobody", "65534", str(sandbox)]
    assert sandbox.stat().st_mode & 0o777 == 0o750
    assert sandbox.owner() == "nobody"


@needs_root
async def test_root_is_allowed_where_the_operator_says_so(machine):
    machine.users = UserPolicy("nobody", allows_root=True)
    await machine.restart()
    machine.launch({"value": "id -un", "user": "root"})
    await machine.reported(Exited)
    assert machine.output().split() == ["root"]


@needs_root
async def test_a_user_that_does_not_exist_is_named(machine):
    machine.containers.launch(machine.spec(task("t", "true"), user="no-such-user"))
    assert "User 'no-such-user' does not exist" in (await machine.reported(LaunchFailed)).why


async def test_an_empty_user_of_a_command_is_no_user_as_in_apache_mesos(machine):
    machine.launch({"value": "true", "user": ""})
    assert "User '' does not exist" in (await machine.reported(LaunchFailed)).why


async def test_a_runner_enters_the_unit_of_tasks_before_its_task_starts(tmp_path):
    machine = Machine(tmp_path, NoLimits())
    (tmp_path / "systemd" / UNIT).mkdir(parents=True)
    (tmp_path / "systemd" / UNIT / "cgroup.procs").touch()
    machine.unit = TaskUnit({"name=systemd": f"/{UNIT}"}, tmp_path)
    await machine.restart()
    procs = tmp_path / "systemd" / UNIT / "runners/cgroup.procs"
    procs.parent.mkdir()
    procs.touch()
    machine.launch(f"cat {procs}")
    await machine.reported(Exited)
    assert machine.output() == "0", "the process that writes it, as cgroups(7) says"


@needs_root
async def test_a_task_over_its_memory_limit_is_killed_and_reported_and_its_groups_are_removed(
    tmp_path,
):
    limiter, words = detect("")
    if isinstance(limiter, NoLimits):
        pytest.skip(words)
    machine = Machine(tmp_path, limiter)
    container_id = f"test-{os.getpid()}"
    hog = "python3 -c 'x = bytearray(300 << 20)'; exit $?"
    machine.containers.launch(machine.spec(task("t", hog, mem=64), container_id))
    exited = await machine.reported(Exited)
    assert exited.wait_status != 0
    assert exited.over_limit.startswith("Memory limit exceeded: Requested: 64MB Maximum Used: 6")
    await asyncio.gather(*machine.tasks)
    assert list(Path("/sys/fs/cgroup").glob(f"**/{container_id}")) == []


def files_of(machine: Machine) -> dict[str, int]:
    """The sizes of a task's files of output by name."""
    (folder,) = (machine.layout.sandboxes / "fw" / "t").iterdir()
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


async def test_output_is_complete_while_it_is_below_its_limit(machine):
    machine.launch("echo out; echo err >&2; (sleep 0.1; echo late) & wait")
    await machine.reported(Exited)
    assert (machine.output(), machine.output("stderr")) == ("out\nlate\n", "err\n")


async def test_output_is_rotated_at_its_limit_and_the_newest_files_are_kept(machine):
    machine.launch("i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); done")
    await machine.reported(Exited)
    sizes = files_of(machine)
    assert set(sizes) == {"stdout", "stdout.1", "stdout.2", "stderr"}
    limit = machine.output_limits.file_bytes
    chunk = 65536  # a file may get one chunk of the pipe more than its limit when it is empty
    assert all(size <= max(limit, chunk) for size in sizes.values())
    newest = "".join(machine.output(name) for name in ("stdout.2", "stdout.1", "stdout"))
    assert newest.endswith("line 3998\nline 3999\n")
    lines = newest.splitlines()
    assert lines[1:] == [f"line {number}" for number in range(4001 - len(lines), 4000)]


async def test_a_task_that_removes_its_output_or_puts_links_there_harms_no_file(machine, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    line = (
        f"rm stdout; ln -s {victim} stdout; mkdir stdout.1; ln -s {victim} stdout.2;"
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 0"
    )
    machine.launch(line)
    assert (await machine.reported(Exited)).wait_status == 0
    assert victim.read_text() == "precious"


async def test_a_link_in_place_of_the_output_fails_the_launch_and_harms_no_file(machine, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    sandbox = machine.containers.sandbox(machine.spec(task("t", "echo written")))
    sandbox.mkdir(parents=True)
    (sandbox / "stdout").symlink_to(victim)
    machine.launch("echo written")
    await machine.reported(LaunchFailed)
    assert victim.read_text() == "precious"


@needs_root
async def test_a_sandbox_is_the_agents_alone_while_uris_are_fetched(machine, files):
    spec = machine.launch(
        {"value": "true", "user": "nobody", "uris": [{"value": f"{files}/endless"}]}
    )
    sandbox = machine.containers.sandbox(spec)
    await machine.until_exists(sandbox / "endless")
    status = sandbox.stat()
    assert (status.st_uid, status.st_mode & 0o007) == (0, 0), "no task can put a link there"
    machine.containers.kill("c1", 3.0)
    await asyncio.gather(*machine.tasks)


async def test_the_size_of_a_sparing_task_is_its_own(machine):
    variables = [{"name": "CONTAINER_LOGGER_MAX_STDOUT_SIZE", "value": "8KB"}]
    machine.output_limits = OutputLimits(file_bytes=1 << 20, files=3)
    await machine.restart()
    line = "for i in 1 2 3; do head -c 6000 /dev/zero; while [ ! -s stdout ]; do :; done; done"
    machine.launch({"value": line, "environment": {"variables": variables}})
    await machine.reported(Exited)
    assert "stdout.1" in files_of(machine)


@pytest.mark.parametrize(
    ("size", "files", "limits"),
    [
        ("", "", "104857600:104857600:10"),
        ("10MB", "3", "10485760:10485760:3"),
        ("4096B", "1", "4096:4096:1"),
    ],
)
def test_the_limits_of_output_are_read_in_mesos_units(size, files, limits):
    assert OutputLimits.from_settings(size, files).limits_for({}) == limits


@pytest.mark.parametrize(
    ("size", "files"), [("10", ""), ("1KB", ""), ("-1MB", ""), ("", "0"), ("", "x"), ("1PB", "")]
)
def test_a_limit_of_another_form_is_refused(size, files):
    with pytest.raises(BadInput):
        OutputLimits.from_settings(size, files)

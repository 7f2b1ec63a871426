"""Runs of a stub of Terraform: the lock, the reserve, copies of states, and the stop."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from mesaform.cli.context import open_context
from mesaform.common.progress import Recorded
from mesaform.provision.holders import FOLDER_MARK
from mesaform.provision.image import NOTHING_TO_BOOT
from mesaform.provision.lock import hold_terraform
from mesaform.provision.preview import plan_stacks
from mesaform.provision.provider_mirror import PROVIDER, PROVIDER_VERSION
from mesaform.provision.state_copies import newest_copy
from mesaform.provision.state_folders import CONFIGURATION_FILE, STACKS, stack_dir, synth_dir
from mesaform.provision.terraform import BINARY_NAME
from mesaform.provision.terraform_driver import StacksRun
from mesaform.provision.terraform_run import NO_CHANGES, TerraformRunner
from tests.support.terraform_state import write_state

STUB = """#!{python}
import json, pathlib, signal, sys, time
folder = pathlib.Path({folder!r})
state = folder / "masters.tfstate"

def write(serial):
    resource = {{"mode": "managed", "type": "aws_instance", "name": "m",
                 "instances": [{{"attributes": {{"id": "i-" + str(serial)}}}}]}}
    state.write_text(json.dumps({{"version": 4, "serial": serial, "resources": [resource]}}))

verb = sys.argv[1]
with (folder / "calls").open("a") as calls:
    calls.write(pathlib.Path.cwd().name + " " + verb + "\\n")
if verb == "apply":
    write(2)
elif verb == "untaint":
    signal.signal(signal.SIGINT, lambda *_: (write(3), sys.exit(1)))
    (folder / "begun").touch()
    time.sleep(600)
elif verb == "import":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (folder / "begun").touch()
    time.sleep(600)
print(verb)
print("Error: something", file=sys.stderr)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stub = tmp_path / "terraform"
    stub.write_text(STUB.format(python=sys.executable, folder=str(tmp_path)))
    stub.chmod(0o755)
    return tmp_path


def runner(folder: Path, held, stop_timeout_s: float = 60.0) -> TerraformRunner:
    variables = {BINARY_NAME: str(folder / "terraform"), FOLDER_MARK: str(folder)}
    return TerraformRunner(variables, held, folder, stop_timeout_s=stop_timeout_s)


async def cancelled_run(folder: Path, verb: str, stop_timeout_s: float) -> None:
    with hold_terraform(folder, "test") as held:
        running = asyncio.create_task(runner(folder, held, stop_timeout_s).run(folder, verb))
        while not (folder / "begun").exists():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_run_returns_both_outputs_and_leaves_a_copy_of_the_state(folder):
    with hold_terraform(folder, "test") as held:
        ended = await runner(folder, held).run(folder, "apply")
    assert (ended.code, ended.output, ended.first_error) == (0, "apply\n", "something")
    copy = newest_copy(folder, "masters")
    assert copy is not None
    assert json.loads(copy.read_text())["serial"] == 2


async def test_a_cancelled_run_writes_its_state_which_is_copied(folder):
    await cancelled_run(folder, "untaint", stop_timeout_s=60.0)
    copy = newest_copy(folder, "masters")
    assert copy is not None
    assert json.loads(copy.read_text())["serial"] == 3


async def test_a_terraform_that_does_not_stop_is_killed_after_a_bounded_time(folder):
    await asyncio.wait_for(cancelled_run(folder, "import", stop_timeout_s=0.1), 60)


async def test_only_stacks_with_resources_are_planned(folder):
    for stack in STACKS:
        stack_dir(folder, stack).mkdir(parents=True)
    write_state(folder, "network", [("aws_vpc", {"id": "vpc-1"})])
    write_state(folder, "masters", [])
    with hold_terraform(folder, "test") as held:
        planned = await plan_stacks(folder, runner(folder, held))
    assert (folder / "calls").read_text().splitlines() == ["network init", "network plan"]
    documents = {stack: plan.document for stack, plan in planned.items()}
    assert documents == {**dict.fromkeys(STACKS), "network": NO_CHANGES}


SIDE_BY_SIDE = """#!{python}
import json, os, pathlib, sys, time

def say(kind, **more):
    print(json.dumps({{"type": kind, **more}}), flush=True)

stack, verb = pathlib.Path.cwd().name, sys.argv[1]
if verb == "version":
    print(json.dumps({{"terraform_version": "1.11.0"}}))
    sys.exit()
with pathlib.Path({calls!r}).open("a") as calls:
    calls.write(stack + " " + verb + "\\n")
if verb == "init":
    pathlib.Path(".terraform/providers/{provider}/{version}/here").mkdir(parents=True)
    pathlib.Path(".terraform.lock.hcl").write_text('version = "{version}"')
elif stack == "network":
    counts = {{"add": 1, "change": 0, "remove": 0}}
    say("change_summary", changes={{**counts, "operation": "plan"}})
    until = time.monotonic() + 60
    while not all(pathlib.Path("..", other, ".terraform.lock.hcl").exists()
                  for other in ("masters", "agents")):
        if time.monotonic() > until:
            sys.exit("no stack was initialized beside the network's changes")
        time.sleep(0.02)
"""


def synthesized(folder: Path) -> None:
    """The stacks as the synthesis leaves them, without resources."""
    needs = {"network": [], "notices": [], "masters": ["network"], "agents": ["network"]}
    for stack in STACKS:
        path = stack_dir(folder, stack) / CONFIGURATION_FILE
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"terraform": {"backend": {"local": {}}}}))
    manifest = {"stacks": {stack: {"dependencies": needs[stack]} for stack in STACKS}}
    (synth_dir(folder) / "manifest.json").write_text(json.dumps(manifest))


async def test_stacks_that_wait_are_initialized_beside_the_changes_of_others(tmp_path, monkeypatch):
    (tmp_path / "cluster.yaml").write_text("name: side\ntarget: local\n")
    place = open_context(str(tmp_path / "cluster.yaml"))
    synthesized(place.cluster_dir)
    calls, stub = tmp_path / "calls", tmp_path / "terraform"
    facts = {"provider": PROVIDER, "version": PROVIDER_VERSION, "calls": str(calls)}
    stub.write_text(SIDE_BY_SIDE.format(python=sys.executable, **facts))
    stub.chmod(0o755)
    monkeypatch.setenv(BINARY_NAME, str(stub))
    with hold_terraform(place.cluster_dir, "test") as held:
        await StacksRun(place, NOTHING_TO_BOOT, Recorded(), held).run("apply", STACKS)
    done = calls.read_text().splitlines()
    assert sorted(done) == sorted(
        f"{stack} {verb}" for stack in STACKS for verb in ("init", "apply")
    )
    for stack in ("masters", "agents"):
        assert done.index("network apply") < done.index(f"{stack} init")

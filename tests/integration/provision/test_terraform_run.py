"""Runs of a stub of Terraform: the lock, the reserve, copies of states, and the stop."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from mesaform.provision.holders import FOLDER_MARK
from mesaform.provision.lock import hold_terraform
from mesaform.provision.preview import plan_stacks
from mesaform.provision.state_copies import newest_copy
from mesaform.provision.state_folders import STACKS, stack_dir
from mesaform.provision.terraform import BINARY_NAME
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

"""Order in which stacks are deployed and destroyed, and what happens when one fails."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import combinations
from pathlib import Path

import pytest

import mesaform
from mesaform.common.errors import CloudError
from mesaform.provision.stack_order import creation_order, destruction_order, is_synthesized
from mesaform.provision.state_folders import STACKS, stack_dir, synth_dir
from mesaform.provision.terraform_driver import run_in_order

DEPENDENCIES: dict[str, list[str]] = {
    "network": [],
    "notices": [],
    "masters": ["network"],
    "agents": ["network"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stack in STACKS:
        stack_dir(tmp_path, stack).mkdir(parents=True)
        (stack_dir(tmp_path, stack) / "cdk.tf.json").write_text('{"terraform": {}}')
    stacks = {stack: {"dependencies": needs} for stack, needs in DEPENDENCIES.items()}
    (synth_dir(tmp_path) / "manifest.json").write_text(json.dumps({"stacks": stacks}))
    return tmp_path


def test_a_stack_is_deployed_after_those_that_it_depends_on(folder):
    order = creation_order(folder, STACKS)
    assert order == {
        "network": frozenset(),
        "notices": frozenset(),
        "masters": {"network"},
        "agents": {"network"},
    }


def test_a_stack_that_is_not_in_the_run_is_not_waited_for(folder):
    assert creation_order(folder, ["agents"]) == {"agents": frozenset()}
    assert destruction_order(folder, ["network"]) == {"network": frozenset()}


def test_agents_and_masters_go_side_by_side_and_the_network_goes_last(folder):
    assert destruction_order(folder, STACKS) == {
        "agents": frozenset(),
        "masters": frozenset(),
        "network": {"masters", "agents"},
        "notices": frozenset(),
    }


@pytest.mark.parametrize("count", range(1, len(STACKS) + 1))
def test_whatever_a_killed_down_left_can_be_destroyed_in_order(folder, count):
    for left in combinations(STACKS, count):
        destroyed: list[str] = []

        async def destroy(stack: str, destroyed: list[str] = destroyed) -> None:
            destroyed.append(stack)

        asyncio.run(run_in_order(destruction_order(folder, left), destroy))
        assert sorted(destroyed) == sorted(left)
        after = destroyed[destroyed.index("network") :] if "network" in left else []
        assert not {"masters", "agents"} & set(after)


def test_no_verb_has_cdktfs_command_line_destroy_anything():
    sources = [path.read_text("utf-8") for path in Path(mesaform.__file__).parent.rglob("*.py")]
    for text in sources:
        assert not re.search(r"""["']cdktf["'],\s*["'](destroy|deploy)["']""", text)


def test_a_synthesis_that_was_cut_short_does_not_count(folder):
    assert is_synthesized(folder)
    (stack_dir(folder, "agents") / "cdk.tf.json").write_text('{"terraf')
    assert not is_synthesized(folder)


async def test_work_is_done_in_order_and_side_by_side_where_it_may():
    events: list[str] = []
    both_started = asyncio.Barrier(2)

    async def work(stack: str) -> None:
        events.append(f"{stack} begins")
        if stack in {"b", "c"}:
            await both_started.wait()
        events.append(f"{stack} ends")

    await run_in_order({"a": frozenset(), "b": frozenset("a"), "c": frozenset("a")}, work)
    assert events[:2] == ["a begins", "a ends"]
    assert set(events[2:4]) == {"b begins", "c begins"}


async def test_after_a_failure_what_runs_is_completed_and_nothing_else_begins():
    completed: list[str] = []
    failed = asyncio.Event()

    async def work(stack: str) -> None:
        if stack == "bad":
            failed.set()
            raise CloudError("no rights")
        await failed.wait()
        completed.append(stack)

    order = {"bad": frozenset(), "good": frozenset(), "later": frozenset({"good"})}
    with pytest.raises(CloudError, match="no rights"):
        await run_in_order(order, work)
    assert completed == ["good"]


async def test_a_cancellation_reaches_all_work_and_waits_for_it():
    stopped: list[str] = []
    started = asyncio.Barrier(3)

    async def work(stack: str) -> None:
        try:
            await started.wait()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            stopped.append(stack)

    run = asyncio.ensure_future(run_in_order({"a": frozenset(), "b": frozenset()}, work))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert sorted(stopped) == ["a", "b"]

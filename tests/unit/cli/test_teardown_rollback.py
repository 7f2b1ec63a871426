"""`up` after an interrupted `down`: agents are reactivated, then the freeze is lifted."""

from __future__ import annotations

from dataclasses import replace

from mesaform.cli.teardown_rollback import TeardownRollback
from mesaform.common.errors import ClusterUnreachable
from mesaform.status.view import AgentView
from mesaform.teardown.execute import FREEZE_REASON
from mesaform.testing.fake_cloud import FakeControl

AGENT = AgentView(
    "i-1",
    "127.42.1.4",
    "",
    "m5.large",
    "us-east-1a",
    "on-demand",
    "terraform",
    "deactivated",
    0.096,
    0.0,
    agent_id="S-1",
)


class Engine:
    def __init__(self) -> None:
        self.reactivated: list[str] = []
        self.answers = True

    async def reactivate(self, agent_id: str) -> None:
        if not self.answers:
            raise ClusterUnreachable("no leading master answers")
        self.reactivated.append(agent_id)


def frozen(reason: str | None) -> tuple[FakeControl, Engine, TeardownRollback]:
    control, engine = FakeControl(), Engine()
    if reason:
        control.freeze(reason)
    return control, engine, TeardownRollback(control, engine, control.frozen_reason())


def test_without_a_fence_there_is_nothing_to_do() -> None:
    assert frozen(None)[2].done


async def test_agents_get_work_again_before_the_fence_goes() -> None:
    control, engine, teardown = frozen(FREEZE_REASON)
    await teardown.step([AGENT])
    assert engine.reactivated == ["S-1"]
    assert control.frozen_reason()
    await teardown.step([replace(AGENT, state="active")])
    assert teardown.done
    assert control.frozen_reason() is None


async def test_an_agent_that_still_drains_is_waited_for() -> None:
    control, engine, teardown = frozen(FREEZE_REASON)
    await teardown.step([replace(AGENT, state="draining")])
    assert (engine.reactivated, teardown.done) == ([], False)
    assert control.frozen_reason()
    await teardown.step([replace(AGENT, state="drained")])
    assert engine.reactivated == ["S-1"]


async def test_an_engine_between_two_leaders_is_asked_again() -> None:
    _, engine, teardown = frozen(FREEZE_REASON)
    engine.answers = False
    await teardown.step([AGENT])
    engine.answers = True
    await teardown.step([AGENT])
    assert engine.reactivated == ["S-1"]


async def test_a_persons_fence_goes_and_a_persons_deactivated_agents_stay_so() -> None:
    control, engine, teardown = frozen("price talks")
    await teardown.step([AGENT])
    assert (engine.reactivated, teardown.done) == ([], True)
    assert control.frozen_reason() is None

"""The engine master's core in this process, with its invariants checked after every event.

An input is a script: JSON of scheduler calls and msgpack of link messages, as they arrive on the
ports. They go through the same decoders and checks as there.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import strategies as st

from mesaform.engine import link
from mesaform.engine.master import events as ev
from mesaform.engine.master.http_scheduler import invalid_call
from mesaform.engine.master.parse import BadMessage, parse_body
from mesaform.mesos.scheduler_api import Call
from tests.fuzz.exchange import Answer
from tests.fuzz.inputs import Script, Step
from tests.fuzz.link_target import streams
from tests.fuzz.ports import scheduler_documents
from tests.support.struct_strategies import as_json, damaged, mistaken
from tests.unit.engine_master.world import FakeAgent, Scheduler, World

ACCEPTED, REFUSED = Answer(202), Answer(400)


def scripts() -> st.SearchStrategy[Script]:
    """Up to six events; calls more often than messages of agents."""
    call = damaged(mistaken(scheduler_documents()).map(as_json)).map(lambda it: Step("call", it))
    message = streams().map(lambda stream: Step("message", stream.messages[0]))
    tick = st.just(Step("tick", b""))
    steps = st.lists(st.one_of(call, call, call, message, tick), min_size=1, max_size=6)
    return steps.map(lambda items: Script(tuple(items)))


class _Stage:
    """A world with an agent, and a framework that holds an offer."""

    def __init__(self, make_world: Callable[[], World]) -> None:
        self.world = make_world()
        self.agent: FakeAgent = self.world.agent()
        self.framework: Scheduler = self.world.framework()
        self.world.tick()
        self._links = 0

    def substitute(self, data: bytes) -> bytes:
        offers = list(self.world.state.offers.values())
        tasks = (
            [key[1] for key in self.world.state.agents[self.agent.id].tasks]
            if (self.agent.id in self.world.state.agents)
            else []
        )
        names = {
            b"{{offer}}": offers[0].id if offers else "none",
            b"{{framework}}": self.framework.id,
            b"{{agent}}": self.agent.id,
            b"{{task}}": tasks[0] if tasks else "t1",
            b"{{uuid}}": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        for name, value in names.items():
            data = data.replace(name, value.encode())
        return data

    def call(self, data: bytes) -> Answer:
        try:
            call = parse_body(self.substitute(data), Call)
        except BadMessage:
            return REFUSED
        if invalid_call(call) is not None:
            return REFUSED
        if call.subscribe is not None and call.type == "SUBSCRIBE":
            info = call.subscribe.framework_info
            framework_id = (info.id.value or None) if info.id is not None else None
            suppressed = tuple(call.subscribe.suppressed_roles)
            stream = f"stream-{self.world.number()}"
            self.world.feed(ev.Subscribe(stream, info, framework_id, suppressed))
        elif self.framework.id in self.world.state.frameworks:
            self.world.feed(ev.SchedulerCall(self.framework.id, call))
        return ACCEPTED

    def message(self, data: bytes) -> Answer:
        try:
            message = link.decode_from_agent(self.substitute(data))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return REFUSED
        match message:
            case link.Register():
                self._links += 1
                self.world.feed(ev.AgentRegistering(f"fuzz-{self._links}", message))
            case link.Update():
                self.world.feed(ev.AgentUpdate(self.agent.link_id, message))
            case link.Leaving():
                self.world.feed(ev.AgentLeaving(f"fuzz-{self._links}"))
        return ACCEPTED


def perform(script: Script, make_world: Callable[[], World] = World) -> Answer:
    """Feed a script to a new world; any exception is the core's fault. The last step's answer."""
    stage, answer = _Stage(make_world), ACCEPTED
    for step in script.steps:
        match step.kind:
            case "call":
                answer = stage.call(step.data)
            case "message":
                answer = stage.message(step.data)
            case _:
                stage.world.tick(30.0)
    return answer

"""Three masters and more: leaders die at any moment, and whoever follows knows only the registry and what it is told.

No task that runs is lost or called dead because of it, what an operator was answered holds, every end is told, and nothing is given twice
(the world checks resources after every event).
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesaform.engine.master.events import Operator
from tests.support.profiles import examples
from tests.unit.engine_master.succession import BROKEN, DEAD, OK, Client, RealAgent, Reign


class Succession(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = Reign()
        self.agents: list[RealAgent] = []
        self.clients: list[Client] = []
        self.off: dict[str, bool] = {}  # agent -> whether it drains; what operators were answered
        self.asked: dict[int, tuple[str, str]] = {}  # calls under way

    # --- the world goes on

    def _listen(self) -> None:
        """Messages travel until all is quiet."""
        busy = True
        while busy:
            busy = sum(agent.listen() for agent in self.agents) > 0
            for client in self.clients:
                for status in client.listen():
                    busy = True
                    self._is_true(client, status)
        for token, (call, agent_id) in list(self.asked.items()):
            if token in self.world.replies:
                del self.asked[token]
                if self.world.replies[token][0] == 200:
                    self._answered(call, agent_id)

    def _answered(self, call: str, agent_id: str) -> None:
        if call == "REACTIVATE_AGENT":
            self.off.pop(agent_id, None)
        else:
            self.off[agent_id] = call == "DRAIN_AGENT" or self.off.get(agent_id, False)

    def _is_true(self, client: Client, status: dict) -> None:
        """A task that is told to be dead is dead, or its agent is away for too long or gone."""
        task_id, state = status["task_id"]["value"], status["state"]
        record = self.world.state.record(client.agents[task_id])
        if state in DEAD and record is not None and record.state == "admitted":
            assert not any(
                one.runs(client.id, task_id) for one in self.agents if not one.refused
            ), f"{task_id} runs and was told {state}"

    @precondition(lambda self: len(self.agents) < 3)
    @rule()
    def an_agent_starts(self) -> None:
        agent = RealAgent(self.world, f"host{len(self.agents)}")
        self.agents.append(agent)
        agent.connect()
        self._listen()

    @precondition(lambda self: len(self.clients) < 2)
    @rule(aware=st.booleans())
    def a_framework_subscribes(self, aware: bool) -> None:
        self.clients.append(Client(self.world, f"f{len(self.clients)}", aware=aware))
        self._listen()

    @precondition(lambda self: any(one.connected and one.scheduler.offers for one in self.clients))
    @rule(data=st.data(), lost=st.booleans())
    def a_task_is_launched(self, data, lost: bool) -> None:
        client = data.draw(
            st.sampled_from([one for one in self.clients if one.connected and one.scheduler.offers])
        )
        agent_id = client.launch(f"t{self.world.number()}")
        if lost:  # with the link, on the way
            agent = next(one for one in self.agents if one.id == agent_id)
            agent.read = len(self.world.links[agent.link_id])
            agent.drop()
        self._listen()

    @precondition(lambda self: any(one.under_way for one in self.agents))
    @rule(data=st.data())
    def a_container_goes_on(self, data) -> None:
        data.draw(st.sampled_from([one for one in self.agents if one.under_way])).go_on()
        self._listen()

    @precondition(lambda self: any(one.alive for one in self.agents))
    @rule(data=st.data(), how=st.sampled_from([OK, BROKEN]))
    def a_command_ends(self, data, how: int) -> None:
        agent = data.draw(st.sampled_from([one for one in self.agents if one.alive]))
        agent.end(data.draw(st.sampled_from(sorted(agent.alive))), how)
        agent.go_on()
        self._listen()

    @precondition(lambda self: any(one.connected and one.owed for one in self.clients))
    @rule(data=st.data())
    def an_update_is_acknowledged(self, data) -> None:
        data.draw(
            st.sampled_from([one for one in self.clients if one.connected and one.owed])
        ).acknowledge_next()
        self._listen()

    @precondition(lambda self: any(one.connected and one.agents for one in self.clients))
    @rule(data=st.data(), kill=st.booleans())
    def a_framework_kills_or_reconciles(self, data, kill: bool) -> None:
        client = data.draw(
            st.sampled_from([one for one in self.clients if one.connected and one.agents])
        )
        if kill:
            client.scheduler.kill(data.draw(st.sampled_from(sorted(client.agents))))
        else:
            client.reconcile()
        self._listen()

    @precondition(lambda self: any(one.link_id for one in self.agents))
    @rule(data=st.data())
    def an_agents_link_breaks(self, data) -> None:
        data.draw(st.sampled_from([one for one in self.agents if one.link_id])).drop()

    @precondition(lambda self: any(not one.link_id and not one.refused for one in self.agents))
    @rule(data=st.data())
    def an_agent_comes_back(self, data) -> None:
        data.draw(
            st.sampled_from([one for one in self.agents if not one.link_id and not one.refused])
        ).connect()
        self._listen()

    @precondition(lambda self: any(not one.connected for one in self.clients))
    @rule(data=st.data())
    def a_framework_comes_back(self, data) -> None:
        data.draw(st.sampled_from([one for one in self.clients if not one.connected])).come_back()
        self._listen()

    @precondition(lambda self: any(one.id for one in self.agents))
    @rule(
        data=st.data(),
        call=st.sampled_from(["DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT"]),
    )
    def an_operator_acts(self, data, call: str) -> None:
        agent_id = data.draw(st.sampled_from([one.id for one in self.agents if one.id]))
        token = self.world.number()
        self.asked[token] = (call, agent_id)
        self.world.feed(Operator(token, call, agent_id))
        self._listen()

    @rule(slow=st.booleans())
    def the_registry_is_slow_or_quick(self, slow: bool) -> None:
        self.world.hold_stores = slow
        if not slow:
            self.world.store()
            self._listen()

    @rule(seconds=st.sampled_from([1.0, 5.0, 15.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(data=st.data())
    def the_leader_dies(self, data) -> None:
        written = data.draw(st.integers(0, len(self.world.held)))
        for (
            call,
            agent_id,
        ) in self.asked.values():  # nobody was answered: it may have been done or not
            if call == "REACTIVATE_AGENT":
                self.off.pop(agent_id, None)
        self.asked.clear()
        self.world.succeed(written)
        for agent in self.agents:
            if agent.link_id is not None:
                agent.drop(heard=False)

    # --- what always holds

    @invariant()
    def what_operators_were_answered_holds(self) -> None:
        reactivating = {
            agent_id for call, agent_id in self.asked.values() if call == "REACTIVATE_AGENT"
        }
        for agent_id, drains in self.off.items():
            if agent_id in reactivating:
                continue
            assert self.world.state.is_deactivated(agent_id), f"{agent_id} is active again"
            agent = next(one for one in self.agents if one.id == agent_id)
            if (
                drains
                and agent.link_id
                and agent.link_id not in self.world.cut
                and agent_id in self.world.state.agents
            ):
                assert agent.core.meta.draining is not None, (
                    f"{agent_id} does not know that it drains"
                )

    def teardown(self) -> None:
        """Peace: everybody comes back and is heard. Then everybody knows the truth."""
        self.world.hold_stores = False
        self.world.store()
        for client in self.clients:
            if not client.connected:
                client.come_back()
        self._settle()
        for client in self.clients:
            client.reconcile()
        self._settle()
        for client in self.clients:
            for task_id in client.agents:
                runs = any(one.runs(client.id, task_id) for one in self.agents)
                assert runs == (client.told[task_id] not in DEAD), (
                    f"{task_id} runs: {runs}, told {client.told[task_id]}"
                )
                assert runs == (task_id in self.world.state.frameworks[client.id].tasks), (
                    f"{task_id} runs: {runs}, the master differs"
                )

    def _settle(self) -> None:
        for _ in range(8):
            for agent in self.agents:
                if agent.link_id is None and not agent.refused:
                    agent.connect()
            self._listen()
            for agent in self.agents:
                while agent.go_on():
                    self._listen()
            for client in self.clients:
                while client.owed:
                    client.acknowledge_next()
                    self._listen()
            self._pass(10.0)

    def _pass(self, seconds: float) -> None:
        self.world.tick(seconds)
        for agent in self.agents:
            agent.tick()
        self._listen()


Succession.TestCase.settings = settings(
    max_examples=examples(100),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSuccession = Succession.TestCase

"""Operator calls that come from machines of agents, whose tasks share the machine's address.

Such a call may change nothing but what concerns the machine itself, with the machine's proof: a
machine that terminates itself marks its agent as gone. The rule needs source addresses that tell
machines apart, so it has no effect between processes of one host (127.0.0.0/8).
"""

from __future__ import annotations

from collections.abc import Sequence

from mesaform.engine.master.state import State
from mesaform.topology.instance_identity import (
    InstanceVerifier,
    Unproven,
    identity_from_header,
)

OWN_CALL = "MARK_AGENT_GONE"


def why_refused(
    state: State,
    verifier: InstanceVerifier | None,
    sources: Sequence[str],
    proof: str,
    call: tuple[str, str],
) -> str | None:
    """Why a call that changes something is refused; None if it may be carried out.

    Args:
        state: has the agents.
        verifier: verifies the proof; None refuses nothing.
        sources: the address of the caller, and those for which it passes the call on. A task can
            call through a standby, whose address is no agent's.
        proof: the header with the caller's proof, or nothing.
        call: the type of the call, and the id of its agent or framework.

    """
    if verifier is None or not any(_is_agents(state, source) for source in sources):
        return None
    type_, target = call
    try:
        document = verifier.verify(identity_from_header(proof), sources[0])
    except Unproven as error:
        return f"{type_} from an agent's machine is refused: {error}"
    record = state.record(target)
    is_own = record is not None and record.instance_id == document.instance_id
    if type_ == OWN_CALL and is_own:
        return None
    return f"{type_} of {target} is refused to {document.instance_id}"


def _is_agents(state: State, source: str) -> bool:
    return any(agent.address.rpartition(":")[0] == source for agent in state.agents.values())

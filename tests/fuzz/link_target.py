"""The agents' link: encoded messages on a gRPC stream, and the status that ends the stream."""

from __future__ import annotations

import time
from dataclasses import replace

import grpc
from hypothesis import strategies as st

from mesaform.engine import link
from tests.fuzz.exchange import Answer, NoAnswer
from tests.fuzz.inputs import Messages, placeholder
from tests.fuzz.ports import OVERRIDES
from tests.support.struct_strategies import Document, as_msgpack, damaged, documents, mistaken

DEADLINE_S = 0.2
"""How long the end of a stream is awaited. A rejected stream ends after a pause of up to 10 s; a
fault of the master ends it at once."""
AGENT_IDS = st.sampled_from([placeholder("agent"), "", "a/b", "no-such-agent"])
_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.DEADLINE_EXCEEDED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""HTTP's status for each of gRPC's; others, such as UNKNOWN for an exception, are 500."""


def streams() -> st.SearchStrategy[Messages]:
    """A stream that registers an agent more often than not, with mistakes in any message."""
    overrides = dict(OVERRIDES)
    overrides["agent_id"] = st.just({"value": placeholder("agent")})  # of a task
    overrides["task_id"] = st.fixed_dictionaries({"value": st.just(placeholder("task"))})
    overrides["uuid"] = st.binary(min_size=16, max_size=16) | st.binary(max_size=4)
    del overrides["framework_id"], overrides["id"]
    register = _with_agent_id(documents(link.Register, overrides), st.none())
    others = _with_agent_id(documents(link.FromAgent, overrides), AGENT_IDS)
    first = damaged(mistaken(register | register | others).map(as_msgpack))
    following = st.lists(damaged(mistaken(others).map(as_msgpack)), max_size=3)
    return st.tuples(first, following).map(lambda it: Messages((it[0], *it[1])))


def _with_agent_id(
    messages: st.SearchStrategy[Document], ids: st.SearchStrategy[str | None]
) -> st.SearchStrategy[Document]:
    """The messages with one of these ids as the agent's own, where they have one."""
    return st.tuples(messages, ids).map(
        lambda it: {**it[0], "agent_id": it[1]} if "agent_id" in it[0] else it[0]
    )


def perform(address: tuple[str, int], messages: Messages, deadline_s: float = DEADLINE_S) -> Answer:
    """Send the messages on a stream of its own, end its sending side, and say how it ended.

    Raises:
        NoAnswer: the port does not answer.

    """
    target = f"{address[0]}:{address[1]}"
    with grpc.insecure_channel(target, options=link.CLIENT_OPTIONS) as channel:
        began = time.monotonic()
        call = channel.stream_stream(link.METHOD)(iter(messages.messages), timeout=deadline_s)
        try:
            answer = Answer(200, b"", b"".join(call)[:1000])
        except grpc.RpcError as error:
            answer = _answer(error)
        return replace(answer, seconds=time.monotonic() - began)


def _answer(error: grpc.RpcError) -> Answer:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "refused" in details:
        raise NoAnswer(details)
    return Answer(_STATUS.get(code, 500), str(code).encode(), details.encode())

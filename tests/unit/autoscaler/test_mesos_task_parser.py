"""Reading GET_TASKS in pieces gives the result of one read, for all cuts and strings."""

from __future__ import annotations

import json
import time
from typing import Any, Self

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mesaform.autoscaler.accounting.resource_usage import Tasks as Holdings
from mesaform.autoscaler.accounting.resource_usage import ended
from mesaform.autoscaler.model.cluster_tasks import Seen, Tasks
from mesaform.autoscaler.observation import mesos_task_parser
from mesaform.autoscaler.observation.mesos_task_parser import Splitter, TaskReader, from_json
from mesaform.common.errors import ClusterUnreachable, Permanent
from mesaform.mesos.operator import OperatorClient

NASTY = st.text(st.sampled_from('{}[],":\\ab'), max_size=12) | st.sampled_from(
    ['"tasks":[', "},{", '],"completed_tasks":[', "}]}}", '\\"', "{" * 40]
)


def a_task(
    task_id: str = "web.instance-1._app.1", state: str = "TASK_RUNNING", /, **fields: Any
) -> dict[str, Any]:
    return {
        "name": "web",
        "task_id": {"value": task_id},
        "framework_id": {"value": "F-1"},
        "agent_id": {"value": "S-1"},
        "state": state,
        "resources": [
            {
                "name": "cpus",
                "type": "SCALAR",
                "scalar": {"value": 0.5},
                "allocation_info": {"role": "ads"},
            },
            {
                "name": "ports",
                "type": "RANGES",
                "ranges": {"range": [{"begin": 31000, "end": 31001}]},
                "allocation_info": {"role": "ads"},
            },
        ],
        "statuses": [{"timestamp": 110.0}, {"timestamp": 100.0}],
        **fields,
    }


def body(**sections: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"type": "GET_TASKS", "get_tasks": sections})


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def read_in(pieces: list[bytes], enough: int) -> Tasks:
    reading = TaskReader().begin()
    reading._splitter._enough = enough  # so small that every piece is a chance to cut
    for piece in pieces:
        reading.feed(piece)
        reading._splitter._enough = 1
    return reading.end()


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    labels = [{"key": draw(NASTY), "value": draw(NASTY)} for _ in range(draw(st.integers(0, 2)))]
    name = f"t{draw(st.integers(0, 10**9))}"
    return a_task(
        name,
        draw(st.sampled_from(["TASK_RUNNING", "TASK_FINISHED"])),
        name=draw(NASTY),
        labels={"labels": labels},
    )


@pytest.mark.slow
@given(
    running=st.lists(tasks(), max_size=8),
    unreachable=st.lists(tasks(), max_size=2),
    completed=st.lists(tasks(), max_size=5),
    places=st.lists(st.integers(0, 10**6), max_size=12),
)
def test_pieces_give_what_the_whole_gives(running, unreachable, completed, places):
    data = body(tasks=running, unreachable_tasks=unreachable, completed_tasks=completed)
    result = read_in(cut(data, places), 1)
    assert result == TaskReader().read(data)
    assert [seen.task_id for seen in result.running] == [
        t["task_id"]["value"] for t in running if t["state"] == "TASK_RUNNING"
    ]
    over = [t for t in running if t["state"] == "TASK_FINISHED"] + completed
    assert [seen.task_id for seen in result.over] == [t["task_id"]["value"] for t in over]


def test_most_of_a_long_answer_is_released_before_its_end():
    data = body(tasks=[a_task(f"t{n}") for n in range(4000)], completed_tasks=[])
    splitter, most, result = Splitter(), 0, 0
    for start in range(0, len(data), 65_536):
        result += sum(len(items) for _, items in splitter.feed(data[start : start + 65_536]))
        most = max(most, splitter.buffered_bytes)
    assert len(data) > 1_500_000
    assert most < 2.5 * mesos_task_parser.DECODE_AT_BYTES
    assert result > 3000
    assert result + sum(len(items) for _, items in splitter.end()) == 4000


def test_a_task_is_what_it_says_of_itself():
    labels = {
        "labels": [
            {"key": "mesaform/protect", "value": "true"},
            {"key": "mesaform/runs-for-s", "value": "60"},
        ]
    }
    (seen,) = from_json({"tasks": [a_task("web_api.instance-1._app.1", labels=labels)]}).running
    assert seen == Seen(
        "web_api.instance-1._app.1",
        "S-1",
        "F-1",
        "/web/api",
        (500, 0, 0, 0, 2),
        "ads",
        100.0,
        0.0,
        protected=True,
        runs_for_s=60.0,
    )


def test_a_task_with_little_known_has_defaults():
    (seen,) = from_json({"tasks": [{"task_id": {"value": "x"}}]}).running
    assert seen == Seen("x", "", "", None, (0, 0, 0, 0, 0))


def test_ended_tasks_are_listed_apart_with_their_time():
    result = from_json(
        {"tasks": [a_task("a", "TASK_KILLED")], "completed_tasks": [a_task("b", "TASK_FINISHED")]}
    )
    assert result.running == ()
    assert [(seen.task_id, seen.ended) for seen in result.over] == [("a", 110.0), ("b", 110.0)]


def test_what_was_read_before_is_the_same_object_and_what_changed_is_read_again():
    reader = TaskReader()
    (first,) = reader.read(body(tasks=[a_task("a")])).running
    assert reader.read(body(tasks=[a_task("a")])).running[0] is first
    (moved,) = reader.read(body(tasks=[a_task("a", agent_id={"value": "S-2"})])).running
    assert moved.agent_id == "S-2"
    (other,) = reader.read(body(tasks=[a_task("a", framework_id={"value": "F-9"})])).running
    assert other.framework_id == "F-9"
    (begun,) = reader.read(body(tasks=[a_task("b", statuses=[])])).running
    assert begun.since == 0.0
    assert reader.read(body(tasks=[a_task("b")])).running[0].since == 100.0
    (over,) = reader.read(body(tasks=[a_task("b", "TASK_FAILED")])).over
    assert over.ended == 110.0


def test_agents_are_named_by_one_string():
    item, two = from_json({"tasks": [a_task("a"), a_task("b")]}).running
    assert item.agent_id is two.agent_id


def test_a_reading_that_breaks_off_changes_nothing():
    reader = TaskReader()
    (first,) = reader.read(body(tasks=[a_task("a")])).running
    broken = reader.begin()
    broken.feed(body(tasks=[a_task("b")])[:-20])
    with pytest.raises(msgspec.DecodeError):
        broken.end()
    assert reader.read(body(tasks=[a_task("a")])).running[0] is first


@pytest.mark.parametrize(
    "text", [b"", b"no leader", b"<html>tasks</html>", b'{"type":"GET_TASKS","get_tasks":']
)
def test_what_is_no_answer_is_an_error_and_not_an_empty_cluster(text):
    with pytest.raises(msgspec.DecodeError):
        TaskReader().read(text)


def test_json_with_spaces_is_read_as_well():
    compact = body(tasks=[a_task("a"), a_task("b")], completed_tasks=[a_task("c", "TASK_FINISHED")])
    spaced = json.dumps(json.loads(compact), indent=1).encode()
    assert TaskReader().read(spaced) == TaskReader().read(compact)
    assert len(TaskReader().read(spaced).running) == 2


@pytest.mark.parametrize("answer", [{}, {"tasks": []}, {"tasks": [], "completed_tasks": []}])
def test_a_cluster_without_tasks_has_none(answer):
    assert from_json(answer) == Tasks()


def test_holders_are_made_once_for_each_task():
    reader, holdings = TaskReader(), Holdings()
    frameworks = {
        "frameworks": [
            {"framework_info": {"id": {"value": "F-1"}, "name": "batch", "roles": ["ads"]}}
        ]
    }
    data = body(tasks=[a_task("x")], completed_tasks=[a_task("y", "TASK_FINISHED")])
    first = holdings.running(reader.read(data), frameworks)["x"]
    assert (first.app, first.role, first.shape[4]) == ("batch", "ads", 2)
    again = reader.read(data)
    assert holdings.running(again, frameworks)["x"] is first
    assert [task.task_id for task in ended(again, frameworks, 109.0)] == ["y"]
    assert ended(again, frameworks, 110.0) == []


# over HTTP


class Masters:
    """A standby and a leader, or whatever the test answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.bases: list[str] = []
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> Self:
        for answer in self.answers:
            app = web.Application()
            app.router.add_post("/api/v1", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.bases.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
            self._runners.append(runner)
        return self

    async def __aexit__(self, *_: object) -> None:
        for runner in self._runners:
            await runner.cleanup()


async def broken_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(body(tasks=[a_task("a")])[:50])
    request.transport.close()
    return response


async def test_a_stream_that_breaks_off_begins_anew_with_the_next_master():
    async def whole(_: web.Request) -> web.Response:
        return web.Response(body=body(tasks=[a_task("b")]))

    readings = []

    def begin():
        readings.append(TaskReader().begin())
        return readings[-1].feed

    async with Masters(broken_off, whole) as masters, aiohttp.ClientSession() as session:
        await OperatorClient(masters.bases, session).stream("GET_TASKS", begin)
    assert len(readings) == 2
    assert [seen.task_id for seen in readings[-1].end().running] == ["b"]


@pytest.mark.parametrize(("status", "error"), [(503, ClusterUnreachable), (400, Permanent)])
async def test_a_refused_stream_is_the_error_that_a_call_gives(status, error):
    async def refuses(_: web.Request) -> web.Response:
        return web.Response(status=status, text="not the leader")

    async with Masters(refuses) as masters, aiohttp.ClientSession() as session:
        with pytest.raises(error):
            await OperatorClient(masters.bases, session).stream("GET_TASKS", lambda: lambda _: None)


@pytest.mark.slow
def test_thirty_thousand_tasks_that_were_read_before_are_read_in_a_moment():
    data = body(
        tasks=[json.loads(json.dumps(a_task(f"web.instance-{n}._app.1"))) for n in range(30_000)]
    )
    reader = TaskReader()
    reader.read(data)
    started = time.process_time()
    assert len(reader.read(data).running) == 30_000
    assert time.process_time() - started < 0.5

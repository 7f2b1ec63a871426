"""The watch on an agent: what its metadata says of its end, told to whoever leads until that one remembers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from mesaform.node.imds import Metadata
from mesaform.node.interruption_monitor import (
    InterruptionMonitor,
    Settings,
    settings_from,
    tell_leader,
)
from mesaform.node.notices import ACTION, REBALANCE, SCHEDULED, read
from mesaform.topology.user_data import MachineNotice
from tests.integration.node.metadata import MetadataServer
from tests.support.zookeeper import free_port

NOW = 1_795_262_400.0  # 2026-11-21T12:00:00Z
HOST, AGENT = "127.71.0.9", "127.71.0.10"
MAINTENANCE = {
    "NotBefore": "21 Nov 2026 13:00:00 GMT",
    "Code": "system-reboot",
    "EventId": "e-1",
    "State": "active",
}


def standing(**texts: str) -> list[MachineNotice]:
    paths = {"action": ACTION, "rebalance": REBALANCE, "scheduled": SCHEDULED}
    values = {paths[name]: text for name, text in texts.items()}
    return read("i-1", values.get, NOW)


def test_a_machine_without_trouble_has_nothing_to_tell():
    assert standing() == standing(scheduled="[]") == []


def test_an_interruption_is_told_with_its_second():
    (notice,) = standing(action='{"action": "terminate", "time": "2026-11-21T12:02:00Z"}')
    assert notice == MachineNotice(
        "i-1", "interruption", NOW, NOW + 120, "spot interruption (terminate)"
    )


def test_advice_has_the_time_when_it_was_given_and_no_end():
    (notice,) = standing(rebalance='{"noticeTime": "2026-11-21T11:59:00Z"}')
    assert (notice.kind, notice.at, notice.ends_at) == ("rebalance", NOW - 60, 0.0)


def test_of_scheduled_events_the_next_that_still_stands_is_told():
    done = {**MAINTENANCE, "NotBefore": "21 Nov 2026 12:30:00 GMT", "State": "completed"}
    later = {**MAINTENANCE, "NotBefore": "22 Nov 2026 12:30:00 GMT", "Code": "instance-stop"}
    (notice,) = standing(scheduled=json.dumps([later, done, MAINTENANCE]))
    assert notice == MachineNotice("i-1", "scheduled", NOW, NOW + 3600, "system reboot")


def test_the_gravest_comes_first():
    found = standing(
        rebalance='{"noticeTime": "2026-11-21T11:59:00Z"}',
        scheduled=json.dumps([MAINTENANCE]),
        action='{"action": "stop", "time": "2026-11-21T12:02:00Z"}',
    )
    assert [notice.kind for notice in found] == ["interruption", "scheduled", "rebalance"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "7",
        "null",
        '{"action": "stop"}',
        '{"action": "stop", "time": "soon"}',
        '{"time": 7}',
    ],
)
def test_what_cannot_be_understood_is_not_told_and_harms_nothing(text):
    assert standing(action=text, rebalance=text.replace("7", "8"), scheduled='{"a": 1}') == []


class Leader:
    """Autoscalers that answer as told; what each was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, MachineNotice]] = []
        self.answers: list[tuple[int, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.told.append(
                    (self.client_address[0], msgspec.json.decode(body, type=MachineNotice))
                )
                status, answer = outer.answers.pop(0) if outer.answers else (200, {"known": True})
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.place = f"{HOST}:{self.server.server_port}"


@pytest.fixture
def leader() -> Iterator[Leader]:
    made = Leader()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


NOTICE = MachineNotice("i-1", "interruption", NOW, NOW + 120, "spot interruption (terminate)")


def settings(*places: str) -> Settings:
    return Settings("i-1", AGENT, places)


def test_it_is_told_from_the_machines_own_address(leader):
    assert tell_leader(settings(leader.place), NOTICE)
    assert leader.told == [(AGENT, NOTICE)]


def test_whoever_does_not_answer_or_does_not_lead_is_passed_over(leader):
    leader.answers = [(503, {}), (200, {"known": False})]
    silent = f"{HOST}:{free_port(HOST)}"
    assert not tell_leader(settings(silent, leader.place, leader.place), NOTICE)
    assert len(leader.told) == 2


@pytest.mark.parametrize("answer", [(400, {}), (403, {}), (200, ["odd"]), (200, {"known": "odd"})])
def test_an_answer_that_is_none_is_no_knowledge(leader, answer):
    leader.answers = [answer]
    assert not tell_leader(settings(leader.place), NOTICE)


def test_a_notice_is_said_once_and_told_until_it_is_known():
    said: list[str] = []
    answers = [False, False, True]
    watch = InterruptionMonitor(lambda: [NOTICE], lambda _: answers.pop(0), said.append)
    for _ in range(5):
        watch.look()
    assert answers == []
    assert said == [
        "spot interruption (terminate), at 12:02:00 UTC",
        "spot interruption (terminate): the autoscaler knows",
    ]


def test_another_end_is_news():
    told: list[MachineNotice] = []
    watch = InterruptionMonitor(
        lambda: [NOTICE, msgspec.structs.replace(NOTICE, ends_at=NOW + 60)],
        lambda one: not told.append(one),
        lambda _: None,
    )
    watch.look()
    watch.look()
    assert len(told) == 2


def test_metadata_is_read_over_imds_with_a_token():
    with MetadataServer(
        {ACTION: '{"action": "terminate", "time": "2026-11-21T12:02:00Z"}'}
    ) as server:
        metadata = Metadata(server.endpoint, patience_s=1.0)
        (notice,) = read("i-1", metadata.get, NOW)
        assert notice.kind == "interruption"
        assert len(server.tokens) == 1


def test_its_settings_come_from_the_environment_that_the_node_writes():
    found = settings_from(
        {"MESAFORM_MACHINE": "i-1", "MESAFORM_ADDRESS": AGENT, "MESAFORM_AUTOSCALERS": "a:1,b:2"}
    )
    assert found == Settings("i-1", AGENT, ("a:1", "b:2"))


@pytest.mark.slow
def test_the_watch_stays_light():
    program = "import sys, mesaform.node.interruption_monitor; print([m for m in ('asyncio', 'boto3', 'aiohttp', 'kazoo', 'pydantic') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"

"""The interruption monitor: parsing of metadata, and delivery to the leading autoscaler."""

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

from harness.ports import free_port
from mesaform.node.imds import Metadata
from mesaform.node.interruption_monitor import (
    InterruptionMonitor,
    Settings,
    send_to_leader,
    settings_from,
)
from mesaform.node.notices import ACTION, REBALANCE, SCHEDULED, read
from mesaform.topology.user_data import MachineNotice
from tests.integration.node.metadata import MetadataServer

NOW = 1_795_262_400.0  # 2026-11-21T12:00:00Z
HOST, AGENT = "127.71.0.9", "127.71.0.10"
MAINTENANCE = {
    "NotBefore": "21 Nov 2026 13:00:00 GMT",
    "Code": "system-reboot",
    "EventId": "e-1",
    "State": "active",
}


def present_notices(**texts: str) -> list[MachineNotice]:
    paths = {"action": ACTION, "rebalance": REBALANCE, "scheduled": SCHEDULED}
    values = {paths[name]: text for name, text in texts.items()}
    return read("i-1", values.get, NOW)


def test_a_machine_without_notices_has_none_to_send():
    assert present_notices() == present_notices(scheduled="[]") == []


def test_an_interruption_notice_has_its_time():
    (notice,) = present_notices(action='{"action": "terminate", "time": "2026-11-21T12:02:00Z"}')
    assert notice == MachineNotice(
        "i-1", "interruption", NOW, NOW + 120, "spot interruption (terminate)"
    )


def test_a_rebalance_recommendation_has_its_time_and_no_end():
    (notice,) = present_notices(rebalance='{"noticeTime": "2026-11-21T11:59:00Z"}')
    assert (notice.kind, notice.at, notice.ends_at) == ("rebalance", NOW - 60, 0.0)


def test_only_the_next_active_scheduled_event_is_a_notice():
    done = {**MAINTENANCE, "NotBefore": "21 Nov 2026 12:30:00 GMT", "State": "completed"}
    later = {**MAINTENANCE, "NotBefore": "22 Nov 2026 12:30:00 GMT", "Code": "instance-stop"}
    (notice,) = present_notices(scheduled=json.dumps([later, done, MAINTENANCE]))
    assert notice == MachineNotice("i-1", "scheduled", NOW, NOW + 3600, "system reboot")


def test_the_most_severe_notice_comes_first():
    present = present_notices(
        rebalance='{"noticeTime": "2026-11-21T11:59:00Z"}',
        scheduled=json.dumps([MAINTENANCE]),
        action='{"action": "stop", "time": "2026-11-21T12:02:00Z"}',
    )
    assert [notice.kind for notice in present] == ["interruption", "scheduled", "rebalance"]


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
def test_unreadable_metadata_is_ignored(text):
    assert (
        present_notices(action=text, rebalance=text.replace("7", "8"), scheduled='{"a": 1}') == []
    )


class Leader:
    """Autoscalers with scripted answers; `received` holds the notices."""

    def __init__(self) -> None:
        self.received: list[tuple[str, MachineNotice]] = []
        self.answers: list[tuple[int, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append(
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
        self.address = f"{HOST}:{self.server.server_port}"


@pytest.fixture
def leader() -> Iterator[Leader]:
    server = Leader()
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.server.shutdown()
    thread.join()
    server.server.server_close()


NOTICE = MachineNotice("i-1", "interruption", NOW, NOW + 120, "spot interruption (terminate)")


def settings(*addresses: str) -> Settings:
    return Settings("i-1", AGENT, addresses)


def test_a_notice_is_sent_from_the_machines_own_address(leader):
    assert send_to_leader(settings(leader.address), NOTICE)
    assert leader.received == [(AGENT, NOTICE)]


def test_standbys_and_silent_autoscalers_are_skipped(leader):
    leader.answers = [(503, {}), (200, {"known": False})]
    silent = f"{HOST}:{free_port(HOST)}"
    assert not send_to_leader(settings(silent, leader.address, leader.address), NOTICE)
    assert len(leader.received) == 2


@pytest.mark.parametrize("answer", [(400, {}), (403, {}), (200, ["odd"]), (200, {"known": "odd"})])
def test_an_unreadable_answer_does_not_count_as_stored(leader, answer):
    leader.answers = [answer]
    assert not send_to_leader(settings(leader.address), NOTICE)


def test_a_notice_is_logged_once_and_sent_until_it_is_stored():
    lines: list[str] = []
    answers = [False, False, True]
    monitor = InterruptionMonitor(lambda: [NOTICE], lambda _: answers.pop(0), lines.append)
    for _ in range(5):
        monitor.poll()
    assert answers == []
    assert lines == [
        "spot interruption (terminate), at 12:02:00 UTC",
        "spot interruption (terminate): stored by the autoscaler",
    ]


def test_a_notice_with_another_end_is_sent():
    sent: list[MachineNotice] = []
    monitor = InterruptionMonitor(
        lambda: [NOTICE, msgspec.structs.replace(NOTICE, ends_at=NOW + 60)],
        lambda notice: not sent.append(notice),
        lambda _: None,
    )
    monitor.poll()
    monitor.poll()
    assert len(sent) == 2


def test_metadata_is_read_over_imds_with_a_token():
    with MetadataServer(
        {ACTION: '{"action": "terminate", "time": "2026-11-21T12:02:00Z"}'}
    ) as server:
        metadata = Metadata(server.endpoint, retry_for_s=1.0)
        (notice,) = read("i-1", metadata.get, NOW)
        assert notice.kind == "interruption"
        assert len(server.tokens) == 1


def test_settings_are_read_from_the_environment():
    parsed = settings_from(
        {"MESAFORM_MACHINE": "i-1", "MESAFORM_ADDRESS": AGENT, "MESAFORM_AUTOSCALERS": "a:1,b:2"}
    )
    assert parsed == Settings("i-1", AGENT, ("a:1", "b:2"))


@pytest.mark.slow
def test_the_monitor_imports_no_large_library():
    program = (
        "import sys, mesaform.node.interruption_monitor\n"
        "print([m for m in ('asyncio', 'boto3', 'aiohttp', 'kazoo', 'pydantic')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"

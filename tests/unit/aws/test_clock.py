"""The cloud's clock, from the dates of its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mesaform.aws import client
from mesaform.aws.clock import SAMPLES, CloudClock

LOCAL = 1_800_000_000.0


def clock_after(*offsets_s: float) -> CloudClock:
    clock = CloudClock(lambda: LOCAL)
    for offset_s in offsets_s:
        clock.add_sample(formatdate(LOCAL + offset_s, usegmt=True))
    return clock


def test_a_correct_clock_is_not_changed():
    assert CloudClock(lambda: LOCAL).now() == LOCAL
    assert clock_after(0, 1, -2, 2).now() == LOCAL


@pytest.mark.parametrize("offset_s", [120, -120])
def test_a_clock_that_is_minutes_apart_is_corrected(offset_s: float):
    assert clock_after(offset_s).now() == pytest.approx(LOCAL + offset_s, abs=1)


def test_one_delayed_answer_does_not_move_the_clock():
    assert clock_after(0, 0, -300, 0, 0).now() == LOCAL


def test_a_corrected_clock_counts_after_some_answers():
    assert clock_after(*[200] * SAMPLES, *[0] * (SAMPLES // 2)).offset_s == pytest.approx(
        200, abs=1
    )
    assert clock_after(*[200] * SAMPLES, *[0] * (SAMPLES // 2 + 1)).offset_s == 0


@pytest.mark.parametrize("jump_s", [-36_000.0, -60.0, 60.0, 36_000.0])
def test_a_jump_of_the_machines_clock_moves_nothing_also_before_the_next_answer(jump_s: float):
    times = {"local": LOCAL, "steady": 100.0}
    clock = CloudClock(lambda: times["local"], lambda: times["steady"])
    clock.add_sample(formatdate(LOCAL, usegmt=True))
    times["local"] += jump_s
    assert clock.now() == pytest.approx(LOCAL, abs=1)
    times["local"] += 500.0
    times["steady"] += 500.0
    assert clock.now() == pytest.approx(LOCAL + 500.0, abs=1)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026"])
def test_a_header_that_is_no_date_is_ignored(date: str):
    clock = clock_after(100)
    clock.add_sample(date)
    assert clock.offset_s == pytest.approx(100, abs=1)


class _Ahead(BaseHTTPRequestHandler):
    """Answers any AWS query as STS would, from a world two minutes ahead."""

    def do_POST(self) -> None:
        answer = (
            "<GetCallerIdentityResult><Account>000000000000</Account></GetCallerIdentityResult>"
        )
        body = f"<GetCallerIdentityResponse>{answer}</GetCallerIdentityResponse>".encode()
        self.send_response_only(200)
        self.send_header("Date", formatdate(time.time() + 120, usegmt=True))
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), _Ahead)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_clock_follows_the_dates_of_a_clients_answers(ahead: None):
    clock = CloudClock()
    clock.observe(client.client("sts", "us-east-1"))
    assert client.account_bucket("us-east-1")
    assert clock.now() - time.time() == pytest.approx(120, abs=3)

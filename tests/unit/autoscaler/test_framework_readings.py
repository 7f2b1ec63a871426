"""Reading frameworks over HTTP: which are asked, where, and what silence or lies of one change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from harness.autoscaler_builders import a_framework
from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.model.framework_demand import FrameworkDemand, WantedShape
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.adapters.address_guard import Guard
from mesaform.autoscaler.observation.adapters.answers import MAX_BYTES, AdapterError
from mesaform.autoscaler.observation.adapters.choice import TRIED, choose
from mesaform.autoscaler.observation.adapters.client import GuardedResolver
from mesaform.autoscaler.observation.adapters.credentials import Credentials, header_of
from mesaform.autoscaler.observation.adapters.readings import (
    MAX_AGE_S,
    MAX_ALL_SHAPES,
    OWN_PORTS,
    Allowance,
    FrameworkReadings,
    fresh,
    within_limits,
)
from mesaform.common.errors import Permanent
from mesaform.config.frameworks import FrameworkAdapter
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import Constraint

HANG_S = 60.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEMAND = {"version": 1, "demand": [{"name": "a", "count": 2, "cpus": 1, "mem_mib": 64}]}


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A framework's API at a free port; its URL."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(
    spec: ClusterSpec, frameworks: list[Framework], **fields: Any
) -> AsyncIterator[FrameworkReadings]:
    """Readings of these frameworks."""
    credentials = fields.pop("credentials", Credentials("toy", lambda name: f"parameter:{name}"))
    readings = FrameworkReadings(frozenset({"127.0.0.9"}), credentials, **fields)
    readings.see(frameworks, spec)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(readings.run())
        try:
            yield readings
        finally:
            task.cancel()


async def until(condition: Callable[[], Any]) -> Any:
    """The first value of a condition that is true."""
    async with asyncio.timeout(HANG_S):
        while not (value := condition()):
            await asyncio.sleep(0.01)
        return value


def a_spec(**fields: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"name": "toy", **fields})


def an_entry(**fields: Any) -> FrameworkAdapter:
    return FrameworkAdapter.model_validate({"name": "*", "adapter": "hook", **fields})


async def demand_hook(request: web.Request) -> web.Response:
    if request.path != "/demand":
        raise web.HTTPNotFound
    return web.json_response(DEMAND)


# which adapter


def test_an_entry_of_cluster_yaml_counts_before_names_and_webui_urls():
    marathon = a_framework("marathon", webui_url="http://10.0.0.1:8080", roles=("web",))
    found = choose(marathon, ())
    assert found is not None
    assert (found.adapters, found.is_configured) == (("marathon",), False)
    hook = choose(marathon, [an_entry(name="mara*", url="http://h:1/")])
    assert hook is not None
    assert (hook.adapters, hook.url, hook.is_configured) == (("hook",), "http://h:1", True)
    by_role = choose(marathon, [an_entry(name=None, role="web")])
    assert by_role is not None
    assert by_role.url == "http://10.0.0.1:8080"
    assert choose(marathon, [an_entry(adapter="none")]) is None


def test_a_framework_of_another_name_is_tried_as_spark_and_as_the_hook():
    unknown = choose(a_framework("wordcount", webui_url="http://10.0.0.1:4040"), ())
    assert unknown is not None
    assert unknown.adapters == TRIED
    assert choose(a_framework("wordcount"), ()) is None


# which addresses

GUARD = Guard(frozenset({"10.0.0.10"}), OWN_PORTS)
LOCAL = Guard(frozenset({"127.42.0.10"}), OWN_PORTS, allows_loopback=True)
FORBIDDEN = [
    "http://169.254.169.254/latest",
    "http://169.254.170.2/",
    "http://[fd00:ec2::254]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fe80::1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[::ffff:0:169.254.169.254]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:4136:e378:8000:63bf:5601:5601]/",
    "http://0.0.0.0:4040",
    "http://224.0.0.1:4040",
    "http://255.255.255.255:80",
    "file:///etc/passwd",
    "ftp://10.0.0.1/",
    "gopher://10.0.0.1:70/",
    "http://user:word@10.0.0.1:4040",
    "http://",
    "http://10.0.0.1:0/",
    "http://10.0.0.1:99999/",
    "//10.0.0.1/",
    "",
    "http://10.0.0.1:4040/" + "a" * 3000,
]


@pytest.mark.parametrize("url", FORBIDDEN)
@pytest.mark.parametrize("is_configured", [True, False])
def test_the_metadata_service_and_what_is_no_url_is_never_asked(url, is_configured):
    with pytest.raises(AdapterError):
        LOCAL.require_url(url, is_configured=is_configured)


@pytest.mark.parametrize(
    ("guard", "url"),
    [
        (GUARD, "http://127.0.0.1:4040"),
        (GUARD, "http://[::1]:4040"),
        (GUARD, "http://localhost:4040"),
        (GUARD, "http://[::ffff:127.0.0.1]:4040"),
        (GUARD, "http://10.0.0.10:8080"),
        (LOCAL, "http://127.0.0.1:9550"),
        (LOCAL, "http://127.42.0.10:5050"),
        (GUARD, "http://203.0.113.7:5050"),
        (GUARD, "http://10.0.0.11:5051"),
        (GUARD, "http://[64:ff9b::a00:a]:8080"),
    ],
)
def test_ports_of_masters_are_asked_only_where_an_operator_configures_them(guard, url):
    with pytest.raises(AdapterError):
        guard.require_url(url, is_configured=False)
    assert guard.require_url(url, is_configured=True)


@pytest.mark.parametrize(
    ("guard", "url"),
    [
        (GUARD, "http://10.0.0.11:4040"),
        (GUARD, "http://10.0.0.10:4040"),
        (GUARD, "https://spark.internal:4440/"),
        (LOCAL, "http://127.0.0.1:4040"),
        (LOCAL, "http://localhost:4040"),
    ],
)
def test_other_machines_are_asked_and_loopback_on_the_local_target(guard, url):
    assert guard.require_url(url, is_configured=False)


@pytest.mark.parametrize("is_configured", [True, False])
async def test_a_name_counts_by_the_addresses_that_it_resolves_to(is_configured):
    resolver = GuardedResolver(lambda: GUARD, is_configured=is_configured)
    if is_configured:
        assert await resolver.resolve("localhost", 31234)
        return
    with pytest.raises(AdapterError, match="31234 is on this master"):
        await resolver.resolve("localhost", 31234)


# readings


async def test_the_demand_of_an_unknown_framework_is_found_by_its_webui_url():
    seen: list[tuple[str, str]] = []
    async with serving(demand_hook) as url:
        framework = a_framework("trainer", webui_url=url, tasks=3)
        counted = running(a_spec(), [framework], counted=lambda *item: seen.append(item))
        async with counted as readings:
            assert not readings.has_news
            await until(lambda: readings.has_news)
            demand = readings.answers()["F-trainer"]
            assert not readings.has_news
    assert (demand.adapter, demand.state, demand.tasks) == ("hook", "wants_more", 3)
    assert demand.wanted[0].count == 2
    assert ("hook", "answered") in seen


async def test_a_framework_that_hangs_or_lies_does_not_delay_another():
    async def hangs(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def lies(_: web.Request) -> web.Response:
        return web.json_response({"version": 1, "demand": "all"})

    async with serving(hangs) as slow, serving(lies) as wrong, serving(demand_hook) as right:
        names = {"slow": slow, "wrong": wrong, "right": right}
        frameworks = [a_framework(name) for name in names]
        entries = [
            {"name": name, "adapter": "hook", "url": url, "timeout_s": 0.3}
            for name, url in names.items()
        ]
        async with running(a_spec(frameworks=entries), frameworks) as readings:
            await until(lambda: len(readings.failures()) == 2 and readings.answers())
            failures, answers = readings.failures(), readings.answers()
    assert list(answers) == ["F-right"]
    assert failures["F-slow"].params["error"] == "no answer within 0.3 s"
    assert "demand" in str(failures["F-wrong"].params["error"])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: web.Response(status=500), "answered with 500"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.8:1/"}), "another"),
        (lambda: web.Response(status=302, headers={"Location": "/demand"}), "more than 2 times"),
        (lambda: web.Response(body=b" " * (MAX_BYTES + 1)), "more than"),
        (lambda: web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "/demand"),
    ],
)
async def test_answers_that_are_no_answer_are_refused(answer, error):
    async def handler(_: web.Request) -> web.Response:
        response: web.Response = answer()
        return response

    async with serving(handler) as url:
        spec = a_spec(frameworks=[{"name": "f", "adapter": "hook", "url": url}])
        async with running(spec, [a_framework("f")]) as readings:
            failure = (await until(readings.failures))["F-f"]
    assert error in str(failure.params["error"])


async def never_ends(request: web.Request) -> web.StreamResponse:
    """A body without an end, as fast as it is read."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" " * 65536)
    return response


async def test_a_body_without_an_end_and_deep_json_concern_their_framework_only():
    async def deep(_: web.Request) -> web.Response:
        return web.Response(body=b"[" * 100_000)

    async with (
        serving(never_ends) as endless,
        serving(deep) as nested,
        serving(demand_hook) as good,
    ):
        names = {"endless": endless, "nested": nested, "good": good}
        frameworks = [a_framework(name) for name in names]
        entries = [
            {"name": name, "adapter": "hook", "url": url, "timeout_s": 10}
            for name, url in names.items()
        ]
        async with running(a_spec(frameworks=entries), frameworks) as readings:
            await until(lambda: len(readings.failures()) == 2 and readings.answers())
            failures = readings.failures()
    assert "more than" in str(failures["F-endless"].params["error"])
    assert "nested" in str(failures["F-nested"].params["error"])
    assert not readings.faults


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/iam/",
        "http://127.0.0.1:9550/machines",
        "//127.0.0.1:1/demand",
        "http://[::1/",
        "file:///etc/passwd",
        "",
    ],
)
async def test_no_redirect_leads_to_the_metadata_service_or_to_another_port(location):
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    async with serving(handler) as url:
        spec = a_spec(frameworks=[{"name": "f", "adapter": "hook", "url": url}])
        async with running(spec, [a_framework("f")]) as readings:
            assert (await until(readings.failures))["F-f"]
            assert not readings.faults


async def test_what_a_framework_says_in_an_error_is_printable():
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"version": 1, "demand": [], "\x1b]0;title\x07": 1})

    async with serving(handler) as url:
        spec = a_spec(frameworks=[{"name": "f", "adapter": "hook", "url": url}])
        async with running(spec, [a_framework("f")]) as readings:
            failure = (await until(readings.failures))["F-f"]
    assert "unknown field" in str(failure.params["error"])
    assert str(failure.params["error"]).isprintable()


def a_demand(name: str, shapes: int, constraints: int = 0) -> FrameworkDemand:
    stated = tuple(Constraint("zone", "IS", f"z{n}") for n in range(constraints))
    wanted = tuple(
        WantedShape(make(1, n + 1), 1, f"w{n}", constraints=stated) for n in range(shapes)
    )
    return FrameworkDemand(name, "wants_more", 1.0, "hook", wanted)


def test_of_many_frameworks_the_largest_answers_do_not_count():
    answers = {f"F-{n}": a_demand(f"F-{n}", 200) for n in range(10)}
    answers |= {"F-small": a_demand("F-small", 1), "F-odd": a_demand("F-odd", 40, 3)}
    kept = within_limits(answers)
    assert {"F-small", "F-odd"} <= kept.keys()
    assert sum(len(item.wanted) for item in kept.values()) <= MAX_ALL_SHAPES


async def test_small_answers_are_read_first_and_large_ones_by_their_length():
    allowance = Allowance(1000)
    assert allowance.is_left(0.0)
    allowance.take(3000)
    assert not allowance.is_left(1.0)
    assert allowance.is_left(3.5)
    allowance.take(0)
    assert allowance.is_left(100.0)
    allowance.take(2000)
    assert not allowance.is_left(100.0)


async def test_a_redirect_within_the_host_is_followed():
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/demand":
            raise web.HTTPTemporaryRedirect("/v2/demand")
        return web.json_response(DEMAND)

    async with serving(handler) as url:
        spec = a_spec(frameworks=[{"name": "f", "adapter": "hook", "url": url}])
        async with running(spec, [a_framework("f")]) as readings:
            assert await until(readings.answers)


async def test_credentials_go_to_configured_urls_only(tmp_path: Path):
    sent: list[tuple[str, str]] = []
    secret = tmp_path / "secret"
    secret.write_text("reader:word\n")

    async def handler(request: web.Request) -> web.Response:
        sent.append((request.path, request.headers.get("Authorization", "")))
        return web.json_response(DEMAND)

    async with serving(handler) as url:
        entries = [
            {"name": "a", "adapter": "hook", "url": f"{url}/a", "credential_file": str(secret)},
            {"name": "b", "adapter": "hook", "url": f"{url}/b", "credential_parameter": "b"},
            {"name": "c", "adapter": "hook"},
        ]
        known = [a_framework("a"), a_framework("b"), a_framework("c", webui_url=f"{url}/c")]
        async with running(a_spec(frameworks=entries), known) as readings:
            await until(lambda: len(readings.answers()) == 3)
    headers = dict(sent)
    assert headers["/a/demand"] == header_of("reader:word")
    assert headers["/b/demand"] == header_of("parameter:/mesaform/toy/frameworks/b")
    assert headers["/c/demand"] == ""


async def test_a_credential_that_cannot_be_read_is_named_and_nothing_is_sent():
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(DEMAND)

    def read(name: str) -> str:
        raise Permanent("AccessDenied", where=name)

    async with serving(handler) as url:
        entry = {"name": "a", "adapter": "hook", "url": url, "credential_parameter": "a"}
        credentials = Credentials("toy", read)
        spec = a_spec(frameworks=[entry])
        async with running(spec, [a_framework("a")], credentials=credentials) as readings:
            failure = (await until(readings.failures))["F-a"]
    assert "its credential cannot be read" in str(failure.params["error"])
    assert asked == []


@pytest.mark.parametrize("text", ["", "word", ":word", "a:b\nX-Other: 1", "Bearer a\r\nb"])
def test_what_is_no_credential_is_refused(text):
    with pytest.raises(AdapterError):
        header_of(text)


def test_a_bearer_token_is_sent_as_it_is():
    assert header_of("Bearer abc\n") == "Bearer abc"


async def test_a_framework_that_is_gone_or_inactive_is_no_more_asked():
    async with serving(demand_hook) as url:
        framework = a_framework("f", webui_url=url)
        async with running(a_spec(), [framework]) as readings:
            await until(readings.answers)
            readings.see([a_framework("f", webui_url=url, active=False)], a_spec())
            assert readings.answers() == {}


async def test_answers_of_the_last_leader_count_until_there_is_a_new_one():
    old = FrameworkDemand("F-f", "satisfied", 1000.0, "hook")
    readings = FrameworkReadings(
        frozenset(), Credentials("toy", lambda _: ""), clock=lambda: 1010.0
    )
    readings.restore({"F-f": old, "F-gone": old})
    readings.see([a_framework("f", webui_url="http://10.0.0.1:1")], a_spec())
    assert readings.answers() == {"F-f": old}


def test_old_answers_do_not_count():
    answer = FrameworkDemand("F-f", "satisfied", 1000.0, "hook")
    assert fresh({"F-f": answer}, 1000.0 + MAX_AGE_S) == {"F-f": answer}
    assert fresh({"F-f": answer}, 1001.0 + MAX_AGE_S) == {}

"""What is sent to each port: its calls with documents of the port's own types.

Depends on the product's types and route tables only, so that a new call or field is fuzzed without
a change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import msgspec
from hypothesis import strategies as st

from mesaform.engine.master import http_routes
from mesaform.mesos import messages, operator_api, scheduler_api
from mesaform.services import api_apps, api_cluster
from mesaform.services.model import App
from tests.fuzz.exchange import Request
from tests.fuzz.http_inputs import Headers, odd_texts, paths, requests
from tests.fuzz.inputs import placeholder
from tests.support.struct_strategies import Document, documents, json_values, one_of_values

COMMANDS = ("true", "false", "sleep 1", "exit 3", "kill -9 $$", "echo out; echo err >&2")
"""What fuzzed tasks may run: fuzzed commands would run on this machine."""
STREAM: Headers = (("Mesos-Stream-Id", placeholder("stream").encode()),)


def _ids(*names: str) -> st.SearchStrategy[Document]:
    """`{"value": …}` of something that exists, more often than not."""
    real = st.sampled_from([placeholder(name) for name in names])
    return st.fixed_dictionaries({"value": real | real | odd_texts})


def _command() -> st.SearchStrategy[Document]:
    derived = documents(
        messages.CommandInfo,
        {
            "value": st.sampled_from(COMMANDS),
            "arguments": st.just(["true"]),
            "uris": st.lists(st.just({"value": "file:///etc/hostname"}), max_size=1),
            "user": st.sampled_from(["root", "nobody", "no such user"]),
        },
    )
    return st.one_of(st.fixed_dictionaries({"value": st.sampled_from(COMMANDS)}), derived)


def _resources() -> st.SearchStrategy[Document]:
    """Amounts that fit an offer, and any other resources."""
    amounts = {"cpus": (0.01, 0.1, 1), "mem": (1, 32, 64), "disk": (0, 10)}
    scalars = [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}}
        for name, values in amounts.items()
        for value in values
    ]
    ports = {
        "name": "ports",
        "type": "RANGES",
        "ranges": {"range": [{"begin": 31005, "end": 31006}]},
    }
    usual = st.lists(st.sampled_from([*scalars, ports]), max_size=4)
    return usual | usual | st.lists(documents(messages.Resource), max_size=3)


OVERRIDES: Mapping[str, st.SearchStrategy[Document]] = {
    "agent_id": _ids("agent"),
    "command": _command(),
    "framework_id": _ids("framework"),
    "id": _ids("framework"),
    "offer_ids": st.lists(_ids("offer"), min_size=1, max_size=2),
    "resources": _resources(),
    "task_id": _ids("task"),
    "uuid": st.sampled_from([placeholder("uuid"), "AAAAAAAAAAAAAAAAAAAAAA==", "!", ""]),
}


@st.composite
def scheduler_documents(draw: st.DrawFn) -> Document:
    """A call of the scheduler API that names its own body."""
    types = sorted(scheduler_api.CALL_TYPES - {"TEARDOWN"})
    type_ = draw(st.sampled_from(["ACCEPT"] * 10 + types * 2 + ["TEARDOWN"]))
    return draw(_calls(type_))


@cache
def _calls(type_: str) -> st.SearchStrategy[Document]:
    hints = _hints(scheduler_api.Call)
    name = type_.lower()
    fields: dict[str, st.SearchStrategy[Document]] = {"type": st.just(type_)}
    if type_ != "SUBSCRIBE":
        fields["framework_id"] = _ids("framework")
    if type_ == "SUBSCRIBE":
        # Without an id: the framework of the live scheduler must not move to another connection.
        info = documents(messages.FrameworkInfo, {"id": st.just({"value": ""})})
        fields["subscribe"] = st.fixed_dictionaries({"framework_info": info})
    elif name in hints:
        fields[name] = documents(hints[name], OVERRIDES).filter(lambda body: body is not None)
    return st.fixed_dictionaries(fields)


def _hints(struct: type) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


@st.composite
def operator_documents(draw: st.DrawFn) -> Document:
    """A call of the operator API. Only calls that can be undone name a real agent."""
    return draw(_operator_calls(draw(st.sampled_from(sorted(operator_api.CALL_TYPES)))))


@cache
def _operator_calls(type_: str) -> st.SearchStrategy[Document]:
    reversible = {"DEACTIVATE_AGENT", "REACTIVATE_AGENT"}
    overrides = {
        "agent_id": _ids("agent") if type_ in reversible else st.just({"value": "no-such-agent"}),
        "framework_id": st.just({"value": "no-such-framework"}),
    }
    hints = _hints(operator_api.OperatorCall)
    body = documents(hints[type_.lower()], overrides) if type_.lower() in hints else json_values
    return st.fixed_dictionaries({"type": st.just(type_)}, optional={type_.lower(): body})


def master() -> st.SearchStrategy[Request]:
    """Port 5050: scheduler and operator calls, legacy reads."""
    scheduler = requests(
        "POST",
        st.sampled_from([b"/api/v1/scheduler", b"/master/api/v1/scheduler"]),
        body=scheduler_documents(),
        headers=STREAM,
    )
    # SUBSCRIBE has no stream id yet.
    subscribe = requests("POST", st.just(b"/api/v1/scheduler"), body=_calls("SUBSCRIBE"))
    operator = requests("POST", st.just(b"/api/v1"), body=operator_documents())
    known = sorted(http_routes._OWN_PATHS | http_routes._LEADER_PATHS | {"", "static/x"})
    reads = requests(
        "GET",
        st.sampled_from(known).map(lambda path: f"/{path}".encode()),
        query=("jsonp", "limit", "offset", "order", "timeout", "framework_id", "task_id"),
    )
    anything = requests("GET", odd_paths())
    return st.one_of(scheduler, scheduler, scheduler, subscribe, operator, reads, anything)


def agent() -> st.SearchStrategy[Request]:
    """Port 5051: reads, files, and v1 calls."""
    reads = ("health", "state", "version", "flags", "containers", "monitor/statistics")
    files = ("files/browse", "files/read", "files/download", "files/debug")
    get = requests(
        "GET",
        st.sampled_from([f"{prefix}/{path}".encode() for path in reads for prefix in _AGENT]),
        query=("jsonp", "timeout"),
    )
    file = requests(
        "GET",
        st.sampled_from([f"{prefix}/{path}".encode() for path in files for prefix in _AGENT]),
        query=("path", "offset", "length", "jsonp"),
    )
    types = sorted(operator_api.CALL_TYPES | {"GET_AGENT", "GET_CONTAINERS", "LAUNCH_CONTAINER"})
    call = requests(
        "POST",
        st.just(b"/api/v1"),
        body=st.fixed_dictionaries(
            {"type": st.sampled_from(types)}, optional={"get_metrics": json_values}
        ),
    )
    return st.one_of(get, file, file, call, requests("GET", odd_paths()))


_AGENT = ("", "/slave(1)")


def services() -> st.SearchStrategy[Request]:
    """Port 8080: every route of Marathon's API, with app definitions."""
    apps = documents(
        App,
        {
            "id": st.sampled_from(["/a", "/a/b", "web", "fuzz", "/x-1"]),
            "cmd": st.sampled_from(COMMANDS),
            "args": st.none() | st.just(["true"]),
            "fetch": st.lists(st.just({"uri": "file:///etc/hostname"}), max_size=1),
            "instances": st.integers(0, 3),
            "cpus": st.sampled_from([0.01, 0.1, 1]),
            "mem": st.sampled_from([16, 32]),
        },
    )
    bodies = {
        "POST /v2/apps": apps,
        "PUT /v2/apps": st.lists(apps, max_size=2),
        "PATCH /v2/apps": st.lists(apps, max_size=2),
        "POST /v2/tasks/delete": st.fixed_dictionaries(
            {"ids": st.lists(st.just(placeholder("task")) | odd_texts, max_size=3)}
        ),
    }
    names = st.sampled_from(
        ["a", "a/b", "web", "fuzz", placeholder("app"), placeholder("deployment"),
         placeholder("agent"), placeholder("task")]
    ) | odd_texts  # fmt: skip
    query = ("force", "scale", "embed", "partialUpdate", "host", "status", "cmd", "id", "label",
             "path", "offset", "length", "wipe")  # fmt: skip
    every = []
    routes = [(route.method, route.path) for route in (*api_apps.routes(), *api_cluster.routes())]
    for method, path in (*routes, *_OTHER_SERVICES):
        default = apps if method in {"PUT", "PATCH"} else json_values if method == "POST" else None
        body = bodies.get(f"{method} {path}", default)
        every.append(requests(method, paths(path, names), query=query, body=body))
    return st.one_of(*every, bodies_only(apps), bodies_only(apps), requests("GET", odd_paths()))


_OTHER_SERVICES = (
    ("GET", "/ping"),
    ("GET", "/"),
    ("GET", "/static/{name:.+}"),
    ("GET", "/agents/{agent_id}/files/read"),
    ("GET", "/agents/{agent_id}/files/browse"),
    ("GET", "/agents/{agent_id}/state"),
    ("POST", "/v2/groups"),
    ("GET", "/v2/events"),
)


def bodies_only(apps: st.SearchStrategy[Document]) -> st.SearchStrategy[Request]:
    """Definitions of apps without other oddities: the call that most depends on its body."""
    return requests("POST", st.just(b"/v2/apps"), body=apps)


def autoscaler() -> st.SearchStrategy[Request]:
    """Port 9550: reads, and notices of machines."""
    reads = ("/", "/view", "/series", "/decisions", "/health", "/metrics", "/static/{name:.+}")
    get = st.one_of(
        *(
            requests("GET", paths(path, odd_texts), query=("hours", "since", "kind"))
            for path in reads
        )
    )
    from mesaform.topology.user_data import MachineNotice

    notices = documents(
        MachineNotice, {"instance_id": st.just(placeholder("instance")) | odd_texts}
    )
    post = requests("POST", st.just(b"/notices"), body=notices)
    return st.one_of(get, post, requests("GET", odd_paths()))


def metadata() -> st.SearchStrategy[Request]:
    """The instance metadata service: tokens, and every path with one."""
    lifetimes = st.sampled_from([b"1", b"60", b"21600", b"0", b"-1", b"21601", b"", b"nan", b"1e3",
                                 b"9" * 400, b"\xff", b"0x10", "٣".encode(), b" 5 "])  # fmt: skip
    token = lifetimes.flatmap(
        lambda value: requests(
            "PUT",
            st.just(b"/latest/api/token"),
            headers=(("X-aws-ec2-metadata-token-ttl-seconds", value),),
        )
    )
    known = ("", "meta-data/", "meta-data/instance-id", "meta-data/iam/security-credentials/",
             "meta-data/iam/security-credentials/x", "meta-data/placement/region", "user-data",
             "meta-data/tags/instance/Name", "meta-data/spot/instance-action",
             "meta-data/events/maintenance/scheduled", "meta-data/events/recommendations/rebalance",
             "dynamic/instance-identity/document", "dynamic/instance-identity/signature",
             "dynamic/instance-identity/pkcs7", "meta-data/public-keys/0/openssh-key")  # fmt: skip
    versions = st.sampled_from(["latest", "2021-07-15", "1.0", "2099-01-01"])
    path = st.builds("/{}/{}".format, versions, st.sampled_from(known)).map(str.encode)
    headers = (("X-aws-ec2-metadata-token", placeholder("token").encode()),)
    get = requests("GET", path, headers=headers)
    return st.one_of(token, get, get, requests("GET", path), requests("GET", odd_paths()))


def odd_paths() -> st.SearchStrategy[bytes]:
    """Paths of no route."""
    fixed = (
        b"//", b"/..", b"/%2e%2e/%2e%2e/etc/passwd", b"/%00", b"/%", b"/%zz", b"/\xff", b"*",
        b"http://evil.example/", b"/" + b"a" * 300, b"/" + b"a/" * 3000, b"/a b", b"/;x=1",
        b"/moto-api/reset", b"/_mesaform/health", b"/__admin__", b"", b"/?", b"/#f",
    )  # fmt: skip
    return one_of_values(fixed) | st.binary(max_size=30).map(_as_path)


def _as_path(raw: bytes) -> bytes:
    return b"/" + bytes(byte for byte in raw if byte not in b" \r\n\t")

"""Calls of AWS for the local cloud, derived from botocore's service models.

A document has the shape of the call's input. It is encoded by the service's protocol, with
mistakes that no AWS client would send.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

import botocore.session
from botocore import xform_name
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import strategies as st

from mesaform.localcloud.faults import Fault
from tests.fuzz.exchange import Request, quoted
from tests.fuzz.http_inputs import odd_texts, odd_words, queries, requests
from tests.fuzz.inputs import placeholder
from tests.fuzz.ports import odd_paths
from tests.support.struct_strategies import (
    Document,
    as_json,
    damaged,
    documents,
    json_values,
    mistaken,
    wild_values,
)

SERVICES = ("ec2", "s3", "iam", "ssm", "sqs", "sts", "events", "pricing")
_SOURCES = ("cluster", "images", "stacks")
_REPOSITORY = Path(__file__).parents[2]
_DESTRUCTIVE = ("Terminate", "Stop", "Reboot", "Delete", "Detach", "Disassociate", "Release",
                "Revoke", "Deregister", "Purge", "Put", "Remove", "Modify", "Replace")  # fmt: skip
"""Calls that name nothing real: the campaign goes on with what they would remove."""
_REAL = {"InstanceId": "instance", "InstanceIds": "instance", "ImageId": "image", "VpcId": "vpc",
         "SubnetId": "subnet", "Bucket": "bucket"}  # fmt: skip
_DEPTH = 4


@cache
def _used_words() -> frozenset[str]:
    """Every word of the product's sources: names of the calls that it makes are among them."""
    words: set[str] = set()
    for folder in _SOURCES:
        for path in (_REPOSITORY / folder).rglob("*.py"):
            words.update(
                path.read_text(encoding="utf-8").replace("(", " ").replace(".", " ").split()
            )
    return frozenset(word.strip("\"',:") for word in words)


@cache
def _operations(service: str) -> tuple[tuple[OperationModel, ...], tuple[OperationModel, ...]]:
    """Every operation of a service, and those that the product calls."""
    model = botocore.session.get_session().get_service_model(service)
    every = tuple(model.operation_model(name) for name in model.operation_names)
    used = tuple(item for item in every if xform_name(item.name) in _used_words())
    return every, used or every


def documents_of(shape: Shape | None, *, names_real: bool, depth: int = 0) -> st.SearchStrategy:
    """Documents in a shape of botocore; deep structures stay empty."""
    if isinstance(shape, StructureShape):
        return _structures(shape, names_real=names_real, depth=depth)
    if isinstance(shape, ListShape):
        member = documents_of(shape.member, names_real=names_real, depth=depth + 1)
        return st.lists(member, max_size=2)
    if isinstance(shape, MapShape):
        value = documents_of(shape.value, names_real=names_real, depth=depth + 1)
        return st.dictionaries(st.sampled_from(["a", "Name"]), value, max_size=2)
    return _scalars(shape)


def _structures(shape: StructureShape, *, names_real: bool, depth: int) -> st.SearchStrategy:
    if depth > _DEPTH:
        return st.just({})
    members = {
        name: _member(name, member, names_real=names_real, depth=depth)
        for name, member in shape.members.items()
        if name != "DryRun"
    }
    required = {name: members[name] for name in shape.required_members if name in members}
    optional = {name: value for name, value in members.items() if name not in required}
    if not optional:
        return st.fixed_dictionaries(required)
    # Few of the optional members: a call with all of them fails at the first.
    chosen = st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True)
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries(
            {**required, **{name: optional[name] for name in names}}
        )
    )


def _member(name: str, shape: Shape, *, names_real: bool, depth: int) -> st.SearchStrategy:
    derived = st.deferred(lambda: documents_of(shape, names_real=names_real, depth=depth + 1))
    if names_real and name in _REAL:
        real = st.just(placeholder(_REAL[name]))
        return (real.map(lambda item: [item]) if isinstance(shape, ListShape) else real) | derived
    return derived


def _scalars(shape: Shape | None) -> st.SearchStrategy[Document]:
    if shape is None:
        return st.just({})
    if enum := getattr(shape, "enum", None):
        return st.sampled_from(list(enum)) | odd_texts
    match shape.type_name:
        case "integer" | "long":
            return st.integers(0, 5) | st.sampled_from([-1, 2**31, 2**63, 10**30])
        case "float" | "double":
            return st.floats()
        case "boolean":
            return st.booleans()
        case "timestamp":
            return st.sampled_from(["2026-01-01T00:00:00Z", "0", "99999-99-99", ""])
        case "blob":
            return st.sampled_from(["e30=", "!", ""])
    return st.sampled_from(["a", "10.0.0.0/16", "us-east-1a", "i-0123456789abcdef0"]) | odd_texts


def calls() -> st.SearchStrategy[Request]:
    """Calls of every service: more often those that the product makes than others."""
    return st.sampled_from(SERVICES * 2 + ("ec2",) * 6).flatmap(_calls_of)


def _calls_of(service: str) -> st.SearchStrategy[Request]:
    every, used = _operations(service)
    operation = st.one_of(st.sampled_from(used), st.sampled_from(used), st.sampled_from(every))
    return operation.flatmap(_requests_of)


@cache
def _inputs_of(operation: OperationModel) -> st.SearchStrategy[Document]:
    names_real = not operation.name.startswith(_DESTRUCTIVE)
    return documents_of(operation.input_shape, names_real=names_real)


@st.composite
def _requests_of(draw: st.DrawFn, operation: OperationModel) -> Request:
    document = draw(_inputs_of(operation))
    service = operation.service_model
    protocol = str(service.metadata["protocol"])
    headers = [("Authorization", _authorization(service.endpoint_prefix, service.signing_name))]
    if protocol == "json":
        body = draw(damaged(mistaken(st.just(document)).map(as_json)))
        target = f"{service.metadata['targetPrefix']}.{operation.name}"
        version = service.metadata.get("jsonVersion", "1.0")
        headers += [("X-Amz-Target", target.encode())]
        headers += [("Content-Type", f"application/x-amz-json-{version}".encode())]
        return Request("POST", b"/", tuple(headers), body)
    if protocol in {"query", "ec2"}:
        pairs = {"Action": operation.name, "Version": service.api_version, **_flat(document)}
        changed = draw(_changed_pairs(pairs))
        headers += [("Content-Type", b"application/x-www-form-urlencoded; charset=utf-8")]
        body = draw(damaged(st.just(urlencode(changed, errors="surrogatepass").encode())))
        return Request("POST", b"/", tuple(headers), body)
    return draw(_rest(operation, document, tuple(headers)))


def _authorization(_endpoint: str, signing_name: str) -> bytes:
    scope = f"local/20260101/us-east-1/{signing_name}/aws4_request"
    text = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
    return text.encode()


def _flat(document: Document, prefix: str = "") -> dict[str, str]:
    """The pairs of the query protocol: `Filter.1.Value.1=x`."""
    if isinstance(document, dict):
        pairs: dict[str, str] = {}
        for name, value in document.items():
            pairs |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
        return pairs
    if isinstance(document, list):
        pairs = {}
        for number, value in enumerate(document, 1):
            # EC2's lists are named by their member: InstanceIds is InstanceId.1 on the wire.
            pairs |= _flat(value, f"{prefix.removesuffix('s')}.{number}")
        return pairs
    return {prefix: json.dumps(document) if isinstance(document, bool) else str(document)}


@st.composite
def _changed_pairs(draw: st.DrawFn, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
    items = list(pairs.items())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(items) - 1))
        name, value = items[at]
        change = draw(st.sampled_from(("value", "value", "name", "remove", "repeat")))
        if change == "value":
            items[at] = (name, draw(odd_words))
        elif change == "name":
            items[at] = (
                name + draw(st.sampled_from([".1", ".0", ".x", ".-1", ".99999999999"])),
                value,
            )
        elif change == "remove" and name != "Action":
            items.pop(at)
        else:
            items.append((name, draw(odd_words)))
    return items


@st.composite
def _rest(draw: st.DrawFn, operation: OperationModel, document: Document,
          headers: tuple[tuple[str, bytes], ...]) -> Request:  # fmt: skip
    """A call of S3: its name is in the method and the path."""
    path = str(operation.http["requestUri"]).partition("?")
    bucket = draw(st.just(placeholder("bucket")) | odd_texts)
    key = draw(st.sampled_from(["key", "a/b", "bundles/x"]) | odd_texts)
    target = path[0].replace("{Bucket}", "\0").replace("{Key+}", "\1")
    encoded = target.encode().replace(
        b"\0", quoted(bucket).replace(b"%7B", b"{").replace(b"%7D", b"}")
    )
    encoded = encoded.replace(b"\1", quoted(key))
    query = draw(st.just(b"?" + path[2].encode()) | queries(("versionId", "uploads", "list-type")))
    body = draw(
        st.just(b"") | st.just(_xml(document).encode("utf-8", "replace")) | st.binary(max_size=40)
    )
    return Request(
        str(operation.http["method"]), encoded + query, headers, draw(damaged(st.just(body)))
    )


def _xml(document: Document) -> str:
    if isinstance(document, dict):
        return "".join(f"<{name}>{_xml(value)}</{name}>" for name, value in document.items())
    if isinstance(document, list):
        return "".join(f"<member>{_xml(value)}</member>" for value in document)
    return str(document).replace("&", "&amp;").replace("<", "&lt;")


def control() -> st.SearchStrategy[Request]:
    """The local cloud's own routes: faults, machines, images."""
    faults = documents(
        Fault,
        {
            "zone": st.just("us-east-1z"),
            "instance_id": st.just("i-0123456789abcdef0"),
            "for_s": st.floats(0, 1),
            "seconds": st.floats(0, 0.1),
            "actions": st.just(["NoSuchAction"]),
        },
    )
    prefix = "/_mesaform/"
    names = ("health", "faults", "machines", "images", "x", "")
    path = st.tuples(st.sampled_from(names), st.just("") | odd_texts.map(lambda text: "/" + text))
    some = path.map(lambda it: f"{prefix}{it[0]}".encode() + quoted(it[1]).replace(b"%2F", b"/"))
    query = ("wait_s", "after")
    return st.one_of(
        requests("GET", some, query=query),
        requests("POST", st.just(b"/_mesaform/faults"), body=faults),
        requests("POST", some, body=json_values | wild_values),
        requests("DELETE", some),
        requests("GET", odd_paths()),
    )

"""Strategies of HTTP requests: a call with its body, and the oddities that any request may have."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.fuzz.exchange import Request, quoted
from tests.support.struct_strategies import (
    NUMBERS,
    TEXTS,
    Document,
    as_json,
    compressed,
    damaged,
    mistaken,
    one_of_values,
)

JSON_TYPE = ("Content-Type", b"application/json")
Headers = tuple[tuple[str, bytes], ...]

_ODD_HEADERS: tuple[Headers, ...] = (
    (("Accept", b"application/x-protobuf"),),
    (("Accept", b"*/*;q=nan, ,"),),
    (("Accept", b"a" * 4000),),
    (("Accept-Encoding", b"gzip;q=1e400"),),
    (("Host", b"evil.example"),),
    (("Host", b""),),
    (("Host", b"127.0.0.1:99999"),),
    (("Host", b"[::1]:x"),),
    (("Origin", b"http://evil.example"), ("Sec-Fetch-Site", b"cross-site")),
    (("Origin", b"null"),),
    (("Range", b"bytes=0-0,5-,-1"),),
    (("Range", b"bytes=" + b"9" * 400 + b"-"),),
    (("If-None-Match", b'"a'),),
    (("If-Modified-Since", b"Thu, 99 Foo 99999 99:99:99 GMT"),),
    (("Cookie", b"a=\xff; =; ;;"),),
    (("Authorization", b"Basic !!!"),),
    (("Transfer-Encoding", b"chunked"),),
    (("Transfer-Encoding", b"gzip, chunked"),),
    (("Content-Length", b"0"),),
    (("Content-Length", b"-1"),),
    (("Expect", b"100-continue"),),
    (("Expect", b"something"),),
    (("Upgrade", b"websocket"), ("Sec-WebSocket-Key", b"x")),
    (("X-Forwarded-For", b"\xff\xfe"),),
    tuple((f"X-{number}", b"v") for number in range(120)),
)
"""Headers that are added to some requests."""

_ODD_TYPES: tuple[bytes, ...] = (
    b"", b"text/plain", b"application/x-protobuf", b"application/json; charset=utf-7",
    b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/recordio", b"\xff",
    b"multipart/form-data; boundary=" + b"x" * 200, b"application/json;;;=",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get")

odd_texts = one_of_values(TEXTS) | st.text(max_size=12)
odd_words = odd_texts | one_of_values(NUMBERS).map(lambda value: as_json(value).decode())


@st.composite
def paths(draw: st.DrawFn, template: str, names: st.SearchStrategy[str]) -> bytes:
    """A path of a route such as `/v2/apps/{app_id:.+}/tasks`; a name takes each brace's place."""
    before, brace, after = template.partition("{")
    path = before.encode()
    while brace:
        _, _, after = after.partition("}")
        path += draw(names.map(quoted) | st.sampled_from([b"..", b"%2e%2e", b"a//b", b"%00", b"%"]))
        before, brace, after = after.partition("{")
        path += before.encode()
    return path or b"/"


@st.composite
def queries(draw: st.DrawFn, names: Sequence[str]) -> bytes:
    """A query with some of the names that a port reads, and others, some of them repeated."""
    known = st.sampled_from([*names, "x"])
    pairs = draw(st.lists(st.tuples(known | odd_texts, odd_words), max_size=3))
    parts = [quoted(name) + b"=" + quoted(value) for name, value in pairs]
    raw = draw(st.sampled_from([b"", b"", b"", b"&&==", b"%", b"a=%zz", b"\xff=1", b"a" * 3000]))
    text = b"&".join([*parts, *([raw] if raw else [])])
    return b"?" + text if text else b""


def requests(
    method: str,
    path: st.SearchStrategy[bytes],
    *,
    query: Sequence[str] = (),
    body: st.SearchStrategy[Document] | None = None,
    headers: Headers = (),
) -> st.SearchStrategy[Request]:
    """A call with some mistakes in it; one in three has none but those of its document."""
    nothing = st.just(b"")
    content = nothing if body is None else damaged(mistaken(body).map(as_json))
    target = st.tuples(path, st.one_of(nothing, nothing, queries(query))).map(b"".join)
    return _requests(method, target, content, headers)


@st.composite
def _requests(
    draw: st.DrawFn,
    method: str,
    targets: st.SearchStrategy[bytes],
    contents: st.SearchStrategy[bytes],
    headers: Headers,
) -> Request:
    target, content = draw(targets), draw(contents)
    sent = list(headers)
    if content:
        sent.append(JSON_TYPE)
    oddity = draw(st.sampled_from(("none", "none", "headers", "type", "method", "gzip")))
    if oddity == "headers":
        sent += draw(one_of_values(_ODD_HEADERS))
    elif oddity == "type":
        sent = [item for item in sent if item[0] != "Content-Type"]
        sent.append(("Content-Type", draw(st.sampled_from(_ODD_TYPES))))
    elif oddity == "method":
        method = draw(st.sampled_from(METHODS))
    elif oddity == "gzip" and content:
        sent.append(("Content-Encoding", draw(st.sampled_from([b"gzip", b"deflate", b"br", b"x"]))))
        content = draw(damaged(st.just(compressed(content))))
    return Request(method, target, tuple(sent), content)

"""Connections that are no proper HTTP: half requests, odd framing, floods of headers."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.inputs import Packets
from tests.support.struct_strategies import one_of_values

_LINES = (
    b"GET / HTTP/1.1\r\n",
    b"POST /api/v1 HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"GET / HTTP/0.9\r\n",
    b"GET / HTTP/2.0\r\n",
    b"GET /\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET  /  HTTP/1.1\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"G\x00T / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"GET / HTTP/1.1\n",
    b"A" * 9000,
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"GET http://[::1 HTTP/1.1\r\n",
)
_HEADERS = (
    b"Host: x\r\n",
    b"Host: x\r\nHost: y\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 0x5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"X: " + b"a" * 70_000 + b"\r\n",
    b"".join(b"X-%d: a\r\n" % n for n in range(3000)),
    b" folded: a\r\n b\r\n",
    b"No-Colon\r\n",
    b"X\x00Y: a\r\n",
    b": empty\r\n",
    b"X: \x00\r\n",
    b"Expect: 100-continue\r\nContent-Length: 9\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n",
)
_BODIES = (
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFFFFF\r\n",
    b"-1\r\n",
    b"g\r\n",
    b"7fffffffffffffff\r\n",
    b"0\r\nTrailer: x\r\n\r\n",
    b"5;ext=" + b"a" * 9000 + b"\r\nhello\r\n",
    b"1\r\na\r\n" * 500,
    b"0x5\r\nhello\r\n",
    b"5\nhello\n0\n\n",
    b"GET / HTTP/1.1\r\n\r\n" * 30,
)


@st.composite
def connections(draw: st.DrawFn) -> Packets:
    """A connection with a request line, headers and body that do not belong together."""
    parts = [
        draw(one_of_values(_LINES)),
        *draw(st.lists(one_of_values(_HEADERS), max_size=3)),
        draw(st.sampled_from([b"\r\n", b"\n", b""])),
        draw(one_of_values(_BODIES)),
    ]
    data = b"".join(parts)
    cut = draw(st.integers(0, len(data)))
    packets = draw(st.sampled_from(((data,), (data[:cut],), (data[:cut], data[cut:]))))
    noise = draw(st.sampled_from([b"", b"", b"\x00" * 50, b"\xff" * 50]))
    half_close = draw(st.sampled_from((False, False, True)))
    return Packets((*packets, *([noise] if noise else [])), half_close)

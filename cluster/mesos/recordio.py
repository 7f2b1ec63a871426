r"""RecordIO, the framing of Mesos' event streams: `<length in ASCII decimal>\n<that many bytes>`, nothing between records.

No I/O here: bytes in any chunks go in, whole records come out.
"""

from __future__ import annotations

MAX_RECORD_BYTES = (
    256 * 1024 * 1024
)  # a snapshot of a very large cluster fits; a runaway length does not take the memory
MAX_LENGTH_DIGITS = 20


class FramingError(ValueError):
    """The bytes are not RecordIO, or a record is above the bound; the stream cannot be used any further."""


def encode(record: bytes) -> bytes:
    """One record, framed."""
    return b"%d\n%b" % (len(record), record)


class Decoder:
    """Turns chunks into records. Once it has raised, it stays broken."""

    def __init__(self, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray()
        self._wanted: int | None = (
            None  # the length of the record under way; None while its header is
        )
        self._error: FramingError | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes; return the records that are complete now, oldest first.

        Raises:
            FramingError: the length is not a number or is above the bound; records completed before it in this chunk are lost.

        """
        if self._error is not None:
            raise self._error
        self._buffer += chunk
        records: list[bytes] = []
        start = 0
        while True:
            if self._wanted is None:
                end = self._buffer.find(b"\n", start, start + MAX_LENGTH_DIGITS + 1)
                if end < 0:
                    self._check_pending_header(start)
                    break
                self._wanted = self._length(bytes(self._buffer[start:end]))
                start = end + 1
            if len(self._buffer) - start < self._wanted:
                break
            records.append(bytes(self._buffer[start : start + self._wanted]))
            start += self._wanted
            self._wanted = None
        del self._buffer[:start]
        return records

    @property
    def at_boundary(self) -> bool:
        """Whether everything fed so far was whole records: an end of stream here cuts nothing off."""
        return self._wanted is None and not self._buffer

    def _check_pending_header(self, start: int) -> None:
        header = bytes(self._buffer[start : start + MAX_LENGTH_DIGITS + 1])
        if len(header) > MAX_LENGTH_DIGITS or (header and not header.isdigit()):
            self._fail(f"a record starts with {header!r} where its length was expected")

    def _length(self, header: bytes) -> int:
        if not header.isdigit():
            self._fail(f"a record starts with {header!r} where its length was expected")
        length = int(header)
        if length > self._max_record_bytes:
            self._fail(f"a record of {length} bytes is above the bound of {self._max_record_bytes}")
        return length

    def _fail(self, why: str) -> None:
        self._error = FramingError(why)
        raise self._error

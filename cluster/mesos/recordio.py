r"""RecordIO, the framing of Mesos' event streams: `<length in ASCII decimal>\n<that many bytes>`.

Nothing separates records. This module does no I/O: it takes chunks of any size and returns
complete records. Standard library only.
"""

from __future__ import annotations

MAX_RECORD_BYTES = 256 * 1024 * 1024
"""A snapshot of a cluster of 10,000 agents fits. A wrong length does not exhaust the memory."""
MAX_LENGTH_DIGITS = 20


class FramingError(ValueError):
    """The bytes are not RecordIO, or a record is above the bound. The stream is unusable."""


def encode(record: bytes) -> bytes:
    """One record with its frame."""
    return b"%d\n%b" % (len(record), record)


class Decoder:
    """Turns chunks into records. After an error it raises the same error for ever.

    Records of more than `skip_above` bytes are not kept: an empty record stands for each.
    """

    def __init__(
        self, max_record_bytes: int = MAX_RECORD_BYTES, skip_above: int | None = None
    ) -> None:
        self._max_record_bytes = max_record_bytes
        self._skip_above = max_record_bytes if skip_above is None else skip_above
        self._buffer = bytearray()
        self._wanted: int | None = None  # the present record's length; None while reading it
        self._is_skipping = False  # the present record is not kept, `_wanted` is the rest of it
        self._error: FramingError | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes; return the records that are complete now, oldest first.

        Raises:
            FramingError: a length is not a number or is above the bound. Records that were complete
                before it in this chunk are lost.

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
            part = len(self._buffer) - start
            if part < self._wanted:
                start += self._skipped(part)
                break
            records.append(self._record(start, start + self._wanted))
            start += self._wanted
            self._wanted, self._is_skipping = None, False
        del self._buffer[:start]
        return records

    def _record(self, start: int, end: int) -> bytes:
        is_kept = not self._is_skipping and end - start <= self._skip_above
        return bytes(self._buffer[start:end]) if is_kept else b""

    def _skipped(self, part: int) -> int:
        """How much of a part of the present record is passed over."""
        if self._wanted is None or not (self._is_skipping or self._wanted > self._skip_above):
            return 0
        self._is_skipping = True
        self._wanted -= part
        return part

    @property
    def is_at_boundary(self) -> bool:
        """Whether all bytes so far were whole records, so that a stream may end here."""
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

    def _fail(self, problem: str) -> None:
        self._error = FramingError(problem)
        raise self._error

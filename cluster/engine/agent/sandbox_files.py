"""The files API: lists, reads and sends files of the sandboxes, and no others (`sandbox_paths`)."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from mesaform.engine.agent.sandbox_paths import OpenedFile, opened_below
from mesaform.engine.documents import Document
from mesaform.http import BadRequest, integer

MAX_READ_BYTES = 1 << 20
_PAGE_BYTES = 1 << 16
_SHOWN = 300
_CALLERS_ERRORS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
"""Errors of a name or an offset that no file has."""


class _SentFile(web.FileResponse):
    """A file that is sent before its handler returns; the server prepares it once more."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await web.StreamResponse.prepare(self, request)
        return await super().prepare(request)


class SandboxFiles:
    """Serves paths below one folder.

    Args:
        root: the folder. Paths are absolute, as /state shows them, or relative to it.

    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def browse(self, request: web.Request) -> web.Response:
        """GET /files/browse?path=: one entry per file, sorted by path."""
        query = _query(request)
        with self._opened(query) as opened:
            if not stat.S_ISDIR(opened.mode):
                raise BadRequest(f"'{opened.path}' is not a directory", 404)
            return web.json_response(await asyncio.to_thread(_list, opened))

    async def read(self, request: web.Request) -> web.Response:
        """GET /files/read?path=&offset=&length=: `{"data", "offset"}`.

        Offsets count bytes; -1 asks for the size. Bytes that are not UTF-8 are replaced. A
        character that is incomplete at the end is left for the next read, so that a client can
        follow a text by adding the length of each answer. /files/download sends the exact bytes.
        """
        query = _query(request)
        with self._opened(query) as opened:
            _check_regular(opened)
            offset = integer(request, "offset", -1)
            length = integer(request, "length", _PAGE_BYTES)
            if offset < -1 or length < -1:
                raise BadRequest(f"Negative offset or length provided: {offset}, {length}")
            size = _PAGE_BYTES if length == -1 else min(length, MAX_READ_BYTES)
            if offset == -1:
                return web.json_response(
                    {"data": "", "offset": os.fstat(opened.descriptor).st_size}
                )
            data = await asyncio.to_thread(_read, opened, offset, size)
        return web.json_response(
            {"data": _whole_characters(data).decode("utf-8", "replace"), "offset": offset}
        )

    async def download(self, request: web.Request) -> web.StreamResponse:
        """GET /files/download?path=: the bytes. Range requests work."""
        query = _query(request)
        with self._opened(query) as opened:
            _check_regular(opened)
            name = quote(opened.path.name.encode("utf-8", "surrogateescape"))
            response = _SentFile(
                opened.source,
                headers={
                    "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
                    "Content-Type": guess_type(opened.path.name)[0] or "application/octet-stream",
                    "X-Content-Type-Options": "nosniff",
                },
            )
            await response.prepare(request)  # it sends the file, which is closed afterwards
        return response

    @contextmanager
    def _opened(self, query: str) -> Iterator[OpenedFile]:
        """The file of a query, open. Files outside the sandboxes are not found."""
        with _file_errors(query), opened_below(self._root, query) as opened:
            yield opened


def _query(request: web.Request) -> str:
    query = request.query.get("path", "")
    if not query or "\0" in query:
        raise BadRequest("Expecting 'path=value' in query.")
    return query


def _check_regular(opened: OpenedFile) -> None:
    if stat.S_ISDIR(opened.mode):
        raise BadRequest("Cannot read a directory.")
    if not stat.S_ISREG(opened.mode):
        raise BadRequest("Cannot read a special file.")


@contextmanager
def _file_errors(path: object) -> Iterator[None]:
    """Answer 404 for a path that does not exist any more, and 403 for one that is not readable."""
    try:
        yield
    except PermissionError:
        raise BadRequest(f"'{str(path)[:_SHOWN]}' is not readable", 403) from None
    except (FileNotFoundError, NotADirectoryError, UnicodeError):
        raise BadRequest(f"'{str(path)[:_SHOWN]}' not found", 404) from None
    except OSError as error:
        if error.errno not in _CALLERS_ERRORS:
            raise
        raise BadRequest(f"'{str(path)[:_SHOWN]}': {error.strerror}", 404) from None


def _read(opened: OpenedFile, offset: int, size: int) -> bytes:
    with os.fdopen(opened.open(), "rb") as file:
        file.seek(offset)
        return file.read(size)


def _whole_characters(data: bytes) -> bytes:
    """The bytes without an incomplete UTF-8 character at the end, unless nothing else is left."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if back >= needed or back == len(data) else data[:-back]
    return data


def _list(folder: OpenedFile) -> list[Document]:
    descriptor = folder.open()
    try:
        return list(_entries(folder.path, descriptor))
    finally:
        os.close(descriptor)


def _entries(path: Path, descriptor: int) -> Iterator[Document]:
    """What a folder has, by name."""
    for entry in sorted(os.scandir(descriptor), key=lambda entry: entry.name):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # removed since the folder was read
            continue
        yield {
            "gid": _name(grp.getgrgid, status.st_gid),
            "mode": stat.filemode(status.st_mode),
            "mtime": int(status.st_mtime),
            "nlink": status.st_nlink,
            "path": str(path / entry.name),
            "size": status.st_size,
            "uid": _name(pwd.getpwuid, status.st_uid),
        }


def _name(look_up: Callable[[int], tuple[object, ...]], number: int) -> str:
    """The first field of a passwd or group entry, which is its name."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)

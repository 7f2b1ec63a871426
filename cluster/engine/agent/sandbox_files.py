"""The files API: lists, reads and sends files of the sandboxes, and no others."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from mesaform.engine.documents import Document
from mesaform.http import BadRequest, integer

MAX_READ_BYTES = 1 << 20
_PAGE_BYTES = 1 << 16
_SHOWN = 300
_CALLERS_ERRORS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
"""Errors of a name or an offset that no file has."""


class SandboxFiles:
    """Serves paths below one folder.

    Args:
        root: the folder. Paths are absolute, as /state shows them, or relative to it.

    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def browse(self, request: web.Request) -> web.Response:
        """GET /files/browse?path=: one entry per file, sorted by path."""
        path = self._path(request)
        with _file_errors(path):
            if not path.is_dir():
                raise BadRequest(f"'{path}' is not a directory", 404)
            return web.json_response(await asyncio.to_thread(_list, path))

    async def read(self, request: web.Request) -> web.Response:
        """GET /files/read?path=&offset=&length=: `{"data", "offset"}`.

        Offsets count bytes; -1 asks for the size. Bytes that are not UTF-8 are replaced. A
        character that is incomplete at the end is left for the next read, so that a client can
        follow a text by adding the length of each answer. /files/download sends the exact bytes.
        """
        path = self._file(request)
        offset = integer(request, "offset", -1)
        length = integer(request, "length", _PAGE_BYTES)
        if offset < -1 or length < -1:
            raise BadRequest(f"Negative offset or length provided: {offset}, {length}")
        size = _PAGE_BYTES if length == -1 else min(length, MAX_READ_BYTES)
        with _file_errors(path):
            if offset == -1:
                return web.json_response({"data": "", "offset": path.stat().st_size})
            data = await asyncio.to_thread(_read, path, offset, size)
        return web.json_response(
            {"data": _whole_characters(data).decode("utf-8", "replace"), "offset": offset}
        )

    async def download(self, request: web.Request) -> web.StreamResponse:
        """GET /files/download?path=: the bytes. Range requests work."""
        path = self._file(request)
        name = quote(path.name.encode("utf-8", "surrogateescape"))
        return web.FileResponse(
            path,
            headers={
                "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
                "X-Content-Type-Options": "nosniff",
            },
        )

    def _file(self, request: web.Request) -> Path:
        path = self._path(request)
        with _file_errors(path):
            if path.is_dir():
                raise BadRequest("Cannot read a directory.")
            if not path.is_file():
                raise BadRequest("Cannot read a special file.")
        return path

    def _path(self, request: web.Request) -> Path:
        """The file of the query, with links resolved. Files outside the sandboxes are not found."""
        query = request.query.get("path", "")
        if not query or "\0" in query:
            raise BadRequest("Expecting 'path=value' in query.")
        with _file_errors(query):
            path = (self._root / query).resolve()
            if path.is_relative_to(self._root) and path.exists():
                return path
        raise BadRequest(f"'{query[:_SHOWN]}' not found", 404)


@contextmanager
def _file_errors(path: object) -> Iterator[None]:
    """Answer 404 for a path that cannot exist or ceased to, and 403 for one that is not readable.

    RuntimeError is `Path.resolve`'s error for a loop of links.
    """
    try:
        yield
    except PermissionError:
        raise BadRequest(f"'{str(path)[:_SHOWN]}' is not readable", 403) from None
    except (FileNotFoundError, NotADirectoryError, UnicodeError, RuntimeError):
        raise BadRequest(f"'{str(path)[:_SHOWN]}' not found", 404) from None
    except OSError as error:
        if error.errno not in _CALLERS_ERRORS:
            raise
        raise BadRequest(f"'{str(path)[:_SHOWN]}': {error.strerror}", 404) from None


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
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


def _list(folder: Path) -> list[Document]:
    entries: list[Document] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.path):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # removed since the folder was read
            continue
        entries.append(
            {
                "gid": _name(grp.getgrgid, status.st_gid),
                "mode": stat.filemode(status.st_mode),
                "mtime": int(status.st_mtime),
                "nlink": status.st_nlink,
                "path": entry.path,
                "size": status.st_size,
                "uid": _name(pwd.getpwuid, status.st_uid),
            }
        )
    return entries


def _name(look_up: Callable[[int], tuple[object, ...]], number: int) -> str:
    """The first field of a passwd or group entry, which is its name."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)

"""Fetches the URIs of a command into its sandbox: file paths, http and https.

Archives are extracted unless the URI says otherwise. Depends on aiohttp.
"""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from mesaform.engine.agent.identity import Identity
from mesaform.mesos.messages import Uri

STALL_TIMEOUT_S = 60.0  # Mesos' default of --fetcher_stall_timeout
_CHUNK_BYTES = 1 << 16
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ZIP_ENDINGS = (".zip",)


class FetchFailed(Exception):
    """A URI could not be fetched. The text names it."""


async def fetch(uri: Uri, sandbox: Path, identity: Identity | None) -> None:
    """Fetch one URI into a sandbox that still belongs to the agent alone.

    The agent writes with its own rights. In a folder of the task's user another task could replace
    the file by a link while it is written. `identity` only reads local files.

    Raises:
        FetchFailed: it cannot be read, its name is outside the sandbox, or the archive is invalid.

    """
    target = _target(uri, sandbox)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scheme = urlsplit(uri.value).scheme.lower()
        if scheme in {"http", "https"}:
            await _download(uri.value, target)
        elif scheme in {"file", ""}:
            await _copy(Path(unquote(urlsplit(uri.value).path)), target, identity)
        else:
            raise FetchFailed(
                f"Failed to fetch '{uri.value}': scheme {scheme!r} is not supported; "
                "use file, http or https"
            )
        await asyncio.to_thread(_finish, uri, target, sandbox)
    except (
        OSError,
        aiohttp.ClientError,
        TimeoutError,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        raise FetchFailed(
            f"Failed to fetch '{uri.value}': {error or type(error).__name__}"
        ) from error


def _target(uri: Uri, sandbox: Path) -> Path:
    name = uri.output_file or Path(unquote(urlsplit(uri.value).path)).name
    target = (sandbox / name).resolve()
    if not name or Path(name).is_absolute() or not _is_below(target, sandbox.resolve()):
        raise FetchFailed(
            f"Failed to fetch '{uri.value}': {name!r} is not a file name inside the sandbox"
        )
    return target


def _is_below(path: Path, folder: Path) -> bool:
    return path != folder and path.is_relative_to(folder)


async def _download(url: str, target: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=STALL_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, raise_for_status=True) as response,
    ):
        with target.open("wb") as out:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                out.write(chunk)


async def _copy(source: Path, target: Path, identity: Identity | None) -> None:
    """Copy what the task's user, who may have fewer rights than the agent, can read."""
    if identity is None:
        await asyncio.to_thread(shutil.copyfile, source, target)
        return
    with target.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            "cat",
            "--",
            str(source),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.PIPE,
            **identity.for_subprocess(),
        )
        _, problem = await process.communicate()
    if process.returncode != 0:
        raise OSError(problem.decode("utf-8", "replace").strip())


def _finish(uri: Uri, target: Path, sandbox: Path) -> None:
    if uri.executable:
        target.chmod(0o755)
    elif uri.extract is not False and target.name.endswith(_TAR_ENDINGS):
        with tarfile.open(target) as archive:
            archive.extractall(sandbox, filter="data")
    elif uri.extract is not False and target.name.endswith(_ZIP_ENDINGS):
        with zipfile.ZipFile(target) as archive:
            archive.extractall(sandbox)  # noqa: S202 zipfile removes absolute names and `..`

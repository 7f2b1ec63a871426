"""A task that changes its sandbox between any two steps of a request gets no other file read.

The task's change happens inside a system call of the request, so the order is certain.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mesaform.engine.agent.sandbox_files import SandboxFiles
from mesaform.engine.agent.sandbox_paths import opened_below
from mesaform.http import AcceptedHosts, HttpPort, HttpServer, Limits

SECRET = "the machine's own"
CALLS = ("open", "fstat", "readlink", "stat", "scandir")
"""Functions of `os` with which a request reads files."""

PAGES = ("browse", "read", "download")


def link_folder(sandbox: Path, outside: Path) -> None:
    shutil.rmtree(sandbox / "dir")
    (sandbox / "dir").symlink_to(outside)


def link_file(sandbox: Path, outside: Path) -> None:
    (sandbox / "dir/file").unlink()
    (sandbox / "dir/file").symlink_to(outside / "file")


def link_compressed_file(sandbox: Path, outside: Path) -> None:
    (sandbox / "dir/file.gz").symlink_to(outside / "file")


def replace_by_pipe(sandbox: Path, _outside: Path) -> None:
    (sandbox / "dir/file").unlink()
    os.mkfifo(sandbox / "dir/file")


class Task:
    """Changes its sandbox once, right before the given call of a request."""

    def __init__(self, change: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        self._change = change
        self.left = -1
        for name in CALLS:
            monkeypatch.setattr(os, name, self._before(getattr(os, name)))

    def _before(self, function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                self.left = -1
                self._change()
            elif self.left > 0:
                self.left -= 1
            return function(*args, **kwargs)

        return called


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text(SECRET)
    return tmp_path / "sandboxes"


@pytest.fixture
async def url(root: Path) -> AsyncIterator[str]:
    root.mkdir()
    files, app = SandboxFiles(root), web.Application()
    for page in PAGES:
        app.router.add_get(f"/{page}", getattr(files, page))
    server = HttpServer(app, HttpPort("5051", Limits()), AcceptedHosts())
    port = await server.listen("127.0.0.1", 0, fix="")
    yield f"http://127.0.0.1:{port}"
    await server.stop()


def fill(sandbox: Path) -> None:
    shutil.rmtree(sandbox, ignore_errors=True)
    (sandbox / "dir").mkdir(parents=True)
    (sandbox / "dir/file").write_text("the task's")


@pytest.mark.parametrize("attack", [link_folder, link_file, link_compressed_file, replace_by_pipe])
@pytest.mark.parametrize("page", PAGES)
async def test_no_other_file_is_read_whenever_the_task_changes_its_sandbox(
    url: str, root: Path, page: str, attack: Any, monkeypatch: pytest.MonkeyPatch
):
    sandbox = root / "task"
    task = Task(lambda: attack(sandbox, root.parent / "outside"), monkeypatch)
    path = "task/dir" if page == "browse" else "task/dir/file"
    async with aiohttp.ClientSession(headers={"Accept-Encoding": "gzip"}) as session:
        for number in range(100):
            fill(sandbox)
            task.left = number
            answer = await session.get(f"{url}/{page}", params={"path": path, "offset": "0"})
            text = await answer.text()
            assert answer.status < 500, text
            assert SECRET not in text
            assert str(root.parent / "outside") not in text
            if task.left >= 0:  # the request made fewer calls
                break
        assert number > 3
        assert answer.status == 200
        task.left = -1


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_links_are_followed_as_far_as_they_stay_below_the_folder(tmp_path: Path) -> None:
    root, link = tmp_path / "root", tmp_path / "link"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("x")
    link.symlink_to(root)
    (root / "relative").symlink_to("a/b")
    (root / "absolute").symlink_to(root / "a")
    (root / "a/b/up").symlink_to("../../relative/file")
    (root / "other").symlink_to(link / "a")
    for query in (
        "a/b/file",
        "a/./b//file",
        "a/../a/b/file",
        str(root / "a/b/file"),
        str(link / "a/b/file"),
        "relative/file",
        "absolute/b/file",
        "a/b/up",
        "other/b/up",
    ):
        for folder in (root, link):
            if str(folder) == str(root) and query in {str(link / "a/b/file"), "other/b/up"}:
                continue  # the folder is not known by that name
            with opened_below(folder, query) as opened:
                assert opened.path == root / "a/b/file", query


@pytest.mark.parametrize("target", ["..", "../outside", "/etc/passwd", "/", "loop", "a/../.."])
def test_what_leads_out_of_the_folder_is_not_found(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "outside").write_text("x")
    (root / "loop").symlink_to("loop")
    (root / "link").symlink_to(target)
    for query in (target, "link"):
        before = open_files()
        with (
            pytest.raises(OSError, match=r"not below|No such|symbolic links"),
            opened_below(root, query),
        ):
            pass
        assert open_files() == before, "nothing stays open"


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with opened_below(tmp_path, "pipe") as opened, pytest.raises(OSError, match="no regular file"):
        opened.open()

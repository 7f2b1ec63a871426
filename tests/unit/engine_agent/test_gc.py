"""Old sandboxes are removed, and those of known tasks stay."""

from __future__ import annotations

import os

import pytest

from mesaform.engine.agent.gc import collect, max_age_s


@pytest.mark.parametrize(("used", "age_s"), [(0.0, 90.0), (0.5, 40.0), (0.9, 0.0), (1.0, 0.0)])
def test_the_fuller_the_disk_the_sooner_sandboxes_go(used, age_s):
    assert max_age_s(100.0, used) == pytest.approx(age_s)


def test_only_sandboxes_that_are_old_and_unused_go_and_empty_folders_with_them(tmp_path):
    sandboxes = tmp_path / "sandboxes"
    for name, changed_at in (("f/t/old", 100), ("f/u/old-in-use", 100), ("f/u/new", 1000)):
        folder = sandboxes / name
        folder.mkdir(parents=True)
        (folder / "stdout").touch()
        os.utime(folder, (changed_at, changed_at))
    collect(sandboxes, 500.0, {"old-in-use"}, now=1100.0)
    assert {
        str(path.relative_to(sandboxes)) for path in sandboxes.glob("**/*") if path.is_dir()
    } == {
        "f",
        "f/u",
        "f/u/old-in-use",
        "f/u/new",
    }

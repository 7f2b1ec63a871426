"""`mesaform run --user`: as whom the tasks run."""

from __future__ import annotations

import pytest

from mesaform.cli.run import RunOptions, _job
from mesaform.common.errors import BadInput
from mesaform.config.parser import parse
from mesaform.config.schema import ClusterSpec


def a_cluster(tasks: str = "") -> ClusterSpec:
    return parse(f"name: demo\n{tasks}")


@pytest.mark.parametrize("command", [["id"], ["id", "-un"]])
def test_tasks_run_as_the_user_of_the_option_or_of_the_cluster(command: list[str]) -> None:
    def user(spec: ClusterSpec, **options: str) -> str | None:
        return _job(RunOptions(command=command, **options), spec).command_info().user  # type: ignore[arg-type]

    assert user(a_cluster()) == "nobody"
    assert user(a_cluster("tasks: {user: worker}")) == "worker"
    assert user(a_cluster(), user="games") == "games"
    assert user(a_cluster("tasks: {allow_root: true}"), user="root") == "root"


def test_root_is_refused_with_the_setting_that_allows_it() -> None:
    with pytest.raises(BadInput, match="may not run as root") as caught:
        _job(RunOptions(command=["id"], user="root"), a_cluster())
    assert "tasks.allow_root: true" in str(caught.value.fix)


@pytest.mark.parametrize(
    "tasks", ["tasks: {user: root}", "tasks: {user: 'a b'}", "tasks: {root: true}"]
)
def test_a_cluster_file_names_a_user_and_root_only_with_permission(tasks: str) -> None:
    with pytest.raises(BadInput, match="tasks"):
        a_cluster(tasks)
    assert a_cluster("tasks: {user: root, allow_root: true}").tasks.user == "root"

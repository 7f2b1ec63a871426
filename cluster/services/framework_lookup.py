"""The id of this framework by the leading master, for when its record cannot be read.

A scheduler that subscribed without the id would become a second framework beside its own tasks.
Depends on `mesaform.mesos.operator`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mesaform.common.json_types import Json, JsonObject, as_list, as_object
from mesaform.mesos.operator import OperatorClient

FRAMEWORK_NAME = "marathon"


async def find_framework_id(operator: OperatorClient, task_ids: Collection[str]) -> str | None:
    """The framework that runs one of the tasks, or else the last one with this name, or None.

    Raises:
        MesaformError: no master answers.

    """
    tasks = as_object((await operator.call("GET_TASKS")).get("get_tasks"))
    for task in _objects(tasks.get("tasks")):
        if _value(task, "task_id") in task_ids:
            return _value(task, "framework_id") or None
    answer = as_object((await operator.call("GET_FRAMEWORKS")).get("get_frameworks"))
    named = [
        (_registered_at(item), _value(as_object(item.get("framework_info")), "id"))
        for item in _objects(answer.get("frameworks"))
        if as_object(item.get("framework_info")).get("name") == FRAMEWORK_NAME
    ]
    return max(named)[1] or None if named else None


def _objects(value: Json) -> Iterator[JsonObject]:
    return (as_object(item) for item in as_list(value))


def _value(item: JsonObject, field: str) -> str:
    value = as_object(item.get(field)).get("value")
    return value if isinstance(value, str) else ""


def _registered_at(item: JsonObject) -> float:
    nanoseconds = as_object(item.get("registered_time")).get("nanoseconds")
    return float(nanoseconds) if isinstance(nanoseconds, int | float) else 0.0

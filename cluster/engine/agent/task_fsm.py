"""A task's life on its agent, as a table.

`TASK_KILLING` here means that a kill was asked for; frameworks without the TASK_KILLING_STATE capability are never told of it.
"""

from __future__ import annotations

from enum import StrEnum

STAGING = "TASK_STAGING"
STARTING = "TASK_STARTING"
RUNNING = "TASK_RUNNING"
KILLING = "TASK_KILLING"
FINISHED = "TASK_FINISHED"
FAILED = "TASK_FAILED"
KILLED = "TASK_KILLED"
DROPPED = "TASK_DROPPED"
ERROR = "TASK_ERROR"


class Stimulus(StrEnum):
    """What can happen to a task."""

    STARTED = "started"  # its runner exists
    RAN = "ran"  # its command exists
    CHECKED = "checked"  # a health check said something new
    KILL = "kill"  # a framework, a health check or a drain wants it dead
    SUCCEEDED = "succeeded"  # its command exited with 0
    BROKE = "broke"  # its command exited otherwise, or nobody knows how
    NOT_LAUNCHED = "not launched"  # its sandbox, files or runner could not be made
    REJECTED = "rejected"  # this agent can never run it
    DROPPED = "dropped"  # this agent takes no tasks now


_TABLE: dict[tuple[str, Stimulus], str] = {
    (STAGING, Stimulus.STARTED): STARTING,
    (STAGING, Stimulus.KILL): KILLED,  # nothing of it exists yet
    (STAGING, Stimulus.NOT_LAUNCHED): FAILED,
    (STAGING, Stimulus.REJECTED): ERROR,
    (STAGING, Stimulus.DROPPED): DROPPED,
    (STARTING, Stimulus.STARTED): STARTING,  # launched again after the agent died in between
    (STARTING, Stimulus.RAN): RUNNING,
    (STARTING, Stimulus.KILL): KILLING,
    (STARTING, Stimulus.NOT_LAUNCHED): FAILED,
    (STARTING, Stimulus.SUCCEEDED): FINISHED,  # both happened while the agent was away
    (STARTING, Stimulus.BROKE): FAILED,
    (RUNNING, Stimulus.STARTED): RUNNING,  # adopted by a restarted agent
    (RUNNING, Stimulus.RAN): RUNNING,  # adopted by a restarted agent
    (RUNNING, Stimulus.CHECKED): RUNNING,
    (RUNNING, Stimulus.KILL): KILLING,
    (RUNNING, Stimulus.SUCCEEDED): FINISHED,
    (RUNNING, Stimulus.BROKE): FAILED,
    (KILLING, Stimulus.STARTED): KILLING,
    (KILLING, Stimulus.RAN): KILLING,  # the kill overtook the runner's word
    (KILLING, Stimulus.CHECKED): KILLING,
    (KILLING, Stimulus.KILL): KILLING,  # a shorter grace
    (
        KILLING,
        Stimulus.SUCCEEDED,
    ): KILLED,  # Mesos calls a task that was asked to die killed, however it exits
    (KILLING, Stimulus.BROKE): KILLED,
    (KILLING, Stimulus.NOT_LAUNCHED): KILLED,
}


class IllegalTransition(Exception):
    """Something happened to a task that cannot happen in its state: a bug of the agent."""


def next_state(state: str, stimulus: Stimulus, history: str) -> str:
    """The state that follows; IllegalTransition, with the task's history in its text, where the table knows none."""
    try:
        return _TABLE[state, stimulus]
    except KeyError:
        raise IllegalTransition(f"{stimulus.value!r} in {state} ({history})") from None

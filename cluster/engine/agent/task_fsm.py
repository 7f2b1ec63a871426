"""States of a task on its agent, as a transition table.

TASK_KILLING means here that a kill was requested. Frameworks without the TASK_KILLING_STATE
capability get no status of it. Depends on `common.transitions`.
"""

from __future__ import annotations

from enum import StrEnum

from mesaform.common.transitions import TransitionTable

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
    CHECKED = "checked"  # a health check has a new result
    KILL = "kill"  # a framework, a health check or a drain requests its end
    SUCCEEDED = "succeeded"  # its command exited with 0
    BROKE = "broke"  # its command exited otherwise, or its status is unknown
    NOT_LAUNCHED = "not launched"  # its sandbox, files or runner could not be created
    REJECTED = "rejected"  # this agent can never run it
    DROPPED = "dropped"  # this agent takes no tasks now
    FAULT = "fault"  # the agent failed to handle an event of it


TASKS: TransitionTable[str, Stimulus] = TransitionTable(
    "task",
    {
        (STAGING, Stimulus.STARTED): STARTING,
        (STAGING, Stimulus.KILL): KILLED,  # it has no process yet
        (STAGING, Stimulus.NOT_LAUNCHED): FAILED,
        (STAGING, Stimulus.REJECTED): ERROR,
        (STAGING, Stimulus.DROPPED): DROPPED,
        (STAGING, Stimulus.FAULT): FAILED,
        (STARTING, Stimulus.FAULT): FAILED,
        (RUNNING, Stimulus.FAULT): FAILED,
        (KILLING, Stimulus.FAULT): KILLED,
        (STARTING, Stimulus.STARTED): STARTING,  # launched again after the agent crashed
        (STARTING, Stimulus.RAN): RUNNING,
        (STARTING, Stimulus.KILL): KILLING,
        (STARTING, Stimulus.NOT_LAUNCHED): FAILED,
        (STARTING, Stimulus.SUCCEEDED): FINISHED,  # it ran while the agent was down
        (STARTING, Stimulus.BROKE): FAILED,
        (RUNNING, Stimulus.STARTED): RUNNING,  # adopted by a restarted agent
        (RUNNING, Stimulus.RAN): RUNNING,  # adopted by a restarted agent
        (RUNNING, Stimulus.CHECKED): RUNNING,
        (RUNNING, Stimulus.KILL): KILLING,
        (RUNNING, Stimulus.SUCCEEDED): FINISHED,
        (RUNNING, Stimulus.BROKE): FAILED,
        (KILLING, Stimulus.STARTED): KILLING,
        (KILLING, Stimulus.RAN): KILLING,  # the kill overtook the runner's report
        (KILLING, Stimulus.CHECKED): KILLING,
        (KILLING, Stimulus.KILL): KILLING,  # a shorter grace
        # As in Mesos, a task whose end was requested is killed, whatever its exit code is.
        (KILLING, Stimulus.SUCCEEDED): KILLED,
        (KILLING, Stimulus.BROKE): KILLED,
        (KILLING, Stimulus.NOT_LAUNCHED): KILLED,
    },
)

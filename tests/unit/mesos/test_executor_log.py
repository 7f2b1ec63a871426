"""Lines of Apache Mesos' executor and of its task are separated, however the text is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesaform.mesos.executor_log import ExecutorLogFilter

LOG = (
    "I1127 15:20:07.477919 26940 exec.cpp:164] Version: 1.12.0\n",
    "I1127 15:20:07.532218 26958 executor.cpp:740] Forked command at 26966\n",
    "W1127 15:20:07.532218     8 fetcher.cpp:12] Slow\n",
)
OWN = (
    "I1127 15:20:07.532218 26958 my_program.cpp:740] a line of a task that logs by glog\n",
    "I am no log\n",
    "Error: x\n",
    "\n",
    "I1127\n",
    "F" * 100 + "\n",
)


@given(
    st.lists(st.sampled_from(LOG + OWN)),
    st.sampled_from(("", "I", "I1127 15:2", "no end", LOG[0][:30])),
    st.lists(st.integers(1, 40)),
)
def test_the_tasks_lines_pass_and_the_executors_do_not(lines, rest, cuts):
    text, own = "".join(lines) + rest, ExecutorLogFilter()
    pieces = []
    for cut in cuts:
        piece, text = text[:cut], text[cut:]
        pieces.append(own.feed(piece))
    shown = "".join(pieces) + own.feed(text) + own.flush()
    assert shown == "".join(line for line in lines if line in OWN) + rest


def test_a_prompt_without_an_end_is_shown_at_once():
    assert ExecutorLogFilter().feed("Password: ") == "Password: "


def test_a_line_of_the_log_without_an_end_is_not_shown():
    own = ExecutorLogFilter()
    assert own.feed(LOG[0].rstrip("\n")) == ""
    assert own.flush() == ""

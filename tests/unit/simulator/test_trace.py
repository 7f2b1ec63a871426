"""Traces: read by a map or a header, windowed, synthetic; errors name their line."""

from __future__ import annotations

import pytest

from mesaform.autoscaler.model.shape import make
from mesaform.common.errors import BadInput
from mesaform.simulator.synthetic import KINDS, make_trace
from mesaform.simulator.trace import all_resumable, load, parse, parse_map, window

OPENB = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,\
creation_time,deletion_time,scheduled_time
pod-1,16500,51200,0,0,,LS,Running,1060,1360,1061
pod-2,8000,30517,1,500,,BE,Running,1000,1200,1001
pod-3,8000,30517,0,0,,BE,Running,1010,1200,1011
"""


def test_the_public_trace_is_recognised_by_its_header_and_its_gpu_tasks_are_counted_as_left_out():
    trace = parse(OPENB, "openb.csv")
    assert [
        (task.name, task.at, task.runs_s, task.shape, task.keeps_work) for task in trace.tasks
    ] == [
        ("pod-3", 0.0, 190.0, make(8, 30517), False),
        ("pod-1", 50.0, 300.0, make(16.5, 51200), True),
    ]
    assert trace.left_out == 1
    assert trace.span_s == 350.0


def test_a_map_says_which_column_is_which_and_in_what_unit():
    columns = parse_map("cpus=vcpu, mem=gib:1024, start=began, duration=minutes:60, app=team")
    trace = parse(
        "vcpu,gib,began,minutes,team\n2,4,2026-01-01T00:00:30+00:00,5,blue\n1,1,2026-01-01T00:00:00+00:00,1,red\n",
        "x",
        columns,
    )
    assert [(task.app, task.shape, task.at, task.runs_s) for task in trace.tasks] == [
        ("red-1c-1024m", make(1, 1024), 0.0, 60.0),
        ("blue-2c-4096m", make(2, 4096), 30.0, 300.0),
    ]


@pytest.mark.parametrize(
    ("map_", "text", "complaint"),
    [
        ("cpu=a", "", "no field 'cpu'; nearest: cpus"),
        ("cpus=a:x", "", "'x' is not a factor"),
        ("cpus=a,mem=b", "a,b\n1,1\n", "the map lacks start, end or duration"),
        (
            "cpus=vcpu,mem=mem,start=s,end=e",
            "vcpus,mem,s,e\n1,1,1,2\n",
            "no column 'vcpu'; nearest: vcpus",
        ),
        (
            "cpus=c,mem=m,start=s,end=e",
            "c,m,s,e\n1,1,5,2\n",
            "trace:2: it ends 3 s before it starts",
        ),
        (
            "cpus=c,mem=m,start=s,end=e",
            "c,m,s,e\n1,1,1,2\nmany,1,1,2\n",
            "trace:3: c 'many' is not a number",
        ),
        ("cpus=c,mem=m,start=s,end=e", "c,m,s,e\n1,1,1,inf\n", "e 'inf' is not a number"),
        ("cpus=c,mem=m,start=s,end=e", "c,m,s,e\n0,0,1,2\n", "0 cpus and 0 MiB are no task"),
        ("cpus=c,mem=m,start=s,end=e", "c,m,s,e\n" + "-1,1,1,2\n" * 9, "and 4 more"),
        ("cpus=c,mem=m,start=s,end=e", "c,m,s,e\n", "the trace has no task"),
        ("", "what,is,this\n1,2,3\n", "of no known format"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_its_line(map_, text, complaint):
    with pytest.raises(BadInput) as refused:
        parse(text, "x", parse_map(map_) if map_ else None)
    assert complaint in str(refused.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        load(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        load(tmp_path / "bad.csv")


def test_a_window_counts_from_the_first_arrival_and_starts_again_at_zero():
    trace = make_trace("diurnal", 1)
    part = window(trace, from_s=3600, until_s=7200, limit=5)
    assert len(part.tasks) == 5
    assert part.tasks[0].at == 0.0
    assert part.tasks[-1].at < 3600
    assert all(task.runs_s <= 600 for task in window(trace, longest_s=600).tasks)


def test_a_window_has_the_task_at_its_start_and_not_the_one_at_its_end():
    text = "name,c,m,s,e\n" + "".join(f"at-{at},1,1,{at},{at + 9}\n" for at in (0, 60, 120))
    trace = parse(text, "x", parse_map("name=name,cpus=c,mem=m,start=s,end=e"))
    assert [task.name for task in window(trace, from_s=60, until_s=120).tasks] == ["at-60"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_synthetic_trace_is_the_same_for_the_same_seed_and_another_for_another(kind):
    assert make_trace(kind, 7) == make_trace(kind, 7)
    assert make_trace(kind, 7) != make_trace(kind, 8)
    assert all(task.keeps_work for task in all_resumable(make_trace(kind, 7)).tasks)


def test_an_unknown_kind_of_trace_names_those_there_are():
    with pytest.raises(BadInput, match="burst, diurnal, batch"):
        make_trace("weekly", 1)

"""What adapters read of frameworks: answers of real products in shape, and answers of no product.

`fixtures/spark_3_5_9.json` has the fields that are read, as drivers of PySpark 3.5.9 on Apache
Mesos 1.12.0 with one agent of 4 cpus answered them: before and after they took it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesaform.autoscaler.model.framework_demand import WantedShape
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.observation.adapters import (
    airflow,
    chronos,
    demand_hook,
    marathon,
    metronome,
    spark,
)
from mesaform.autoscaler.observation.adapters.answers import (
    MAX_CONSTRAINTS,
    MAX_ENTRIES,
    MAX_PIECES,
    MAX_SHAPES,
    AdapterError,
    Reading,
    Subject,
    constraint_of,
)
from mesaform.autoscaler.observation.adapters.choice import ADAPTERS
from mesaform.common.patterns import compiled
from mesaform.placement.constraints import Constraint, host_port

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "spark_3_5_9.json").read_text())
ID = "6a5941f0-0100-49e6-a65d-269a797265ef-0000"
SUBJECT = Subject(ID, "wordcount")


class Answers:
    """A framework's API: bodies by path. Other paths are answered with 404."""

    def __init__(self, bodies: Mapping[str, Any]) -> None:
        self._bodies = bodies

    async def get(self, path: str) -> bytes:
        if path not in self._bodies:
            raise AdapterError(f"{path} is answered with 404")
        body = self._bodies[path]
        return body if isinstance(body, bytes) else msgspec.json.encode(body)


def read(adapter: str, bodies: Mapping[str, Any], subject: Subject = SUBJECT) -> Reading:
    async def answer() -> Reading:
        return await ADAPTERS[adapter](Answers(bodies), subject)

    return asyncio.run(answer())


def driver(answer: Mapping[str, Any]) -> dict[str, Any]:
    base = f"/api/v1/applications/{ID}"
    return {
        "/api/v1/applications": answer["applications"],
        f"{base}/environment": answer["environment"],
        f"{base}/executors": answer["executors"],
        f"{base}/stages?status=active": answer["active"],
        f"{base}/stages?status=pending": answer["pending"],
    }


def a_driver(
    properties: Mapping[str, str], tasks: int = 100, executors: tuple[int, ...] = (), age_s: int = 0
) -> Reading:
    """What a driver wants with these properties, remaining tasks and executors by their cpus."""
    stage = {"status": "ACTIVE", "numTasks": tasks + 5, "numCompletedIndices": 5}
    answer = {
        "applications": [{"id": ID, "attempts": [{"duration": age_s * 1000}]}],
        "environment": {"sparkProperties": [list(item) for item in properties.items()]},
        "executors": [
            {"id": "driver", "totalCores": 0},
            *({"id": str(n), "totalCores": cores} for n, cores in enumerate(executors)),
        ],
        "active": [stage] if tasks else [],
        "pending": [],
    }
    return read("spark", driver(answer))


# Spark


@pytest.mark.parametrize(
    ("mode", "cpus", "counts"),
    [("static", 2, (6, 4)), ("dynamic", 2, (6, 4)), ("no_executor_cores", 1, (12, 8))],
)
def test_a_real_driver_wants_what_spark_cores_max_leaves_before_and_after_it_took_an_agent(
    mode, cpus, counts
):
    readings = [read("spark", driver(answer)) for answer in RECORDED[mode]]
    wanted = [reading.wanted[0] for reading in readings]
    assert tuple(shape.count for shape in wanted) == counts
    assert {shape.shape for shape in wanted} == {make(cpus, 512 + 384)}
    assert all(shape.since > 0 for shape in wanted)
    assert readings[0].tasks == 0
    assert wanted[0].divisible == (mode == "no_executor_cores")


def test_an_executor_s_memory_has_a_tenth_of_overhead_at_least_384_mib_or_the_configured_one():
    sizes = {
        "12g": 12288 + 1228,
        "512m": 512 + 384,
        "1024k": 1 + 384,
        str(2 * 1024**3): 2048 + 384,
    }
    for text, mib in sizes.items():
        (wanted,) = a_driver({"spark.executor.cores": "1", "spark.executor.memory": text}).wanted
        assert wanted.shape == make(1, mib)
    exact = {"spark.executor.cores": "1", "spark.mesos.executor.memoryOverhead": "100"}
    assert a_driver(exact).wanted[0].shape == make(1, 1024 + 100)


def test_static_allocation_wants_no_more_executors_than_the_remaining_tasks_can_use():
    properties = {"spark.executor.cores": "4", "spark.task.cpus": "2", "spark.cores.max": "40"}
    assert a_driver(properties, tasks=5).wanted[0].count == 3
    assert a_driver(properties, tasks=100).wanted[0].count == 10
    assert a_driver(properties, tasks=5, executors=(4, 4)).wanted[0].count == 1
    assert a_driver(properties, tasks=5, executors=(4, 4, 4)).wanted == ()
    assert a_driver(properties, tasks=0).wanted == ()


def test_spark_cores_max_counts_in_whole_executors():
    properties = {"spark.executor.cores": "4", "spark.cores.max": "11"}
    assert a_driver(properties).wanted[0].count == 2


def test_dynamic_allocation_stays_within_its_bounds_and_its_ratio():
    base = {"spark.executor.cores": "2", "spark.dynamicAllocation.enabled": "true"}
    more = {**base, "spark.dynamicAllocation.maxExecutors": "7"}
    assert a_driver(base, tasks=40).wanted[0].count == 20
    assert a_driver(more, tasks=40).wanted[0].count == 7
    half = {**base, "spark.dynamicAllocation.executorAllocationRatio": "0.5"}
    assert a_driver(half, tasks=40).wanted[0].count == 10
    least = {**base, "spark.dynamicAllocation.minExecutors": "3"}
    assert a_driver(least, tasks=0, age_s=900).wanted[0].count == 3


def test_the_initial_executors_are_wanted_until_they_have_been_idle_for_long():
    properties = {
        "spark.executor.cores": "2",
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.initialExecutors": "5",
        "spark.dynamicAllocation.executorIdleTimeout": "1min",
    }
    assert a_driver(properties, tasks=0, age_s=10).wanted[0].count == 5
    assert a_driver(properties, tasks=0, age_s=61).wanted == ()


def test_pending_stages_count_while_no_stage_is_active():
    answer = json.loads(json.dumps(RECORDED["static"][0]))
    answer["active"] = []
    assert read("spark", driver(answer)).wanted[0].count == 4  # 8 tasks of the pending stage


def test_spark_s_constraints_and_its_fixed_port_are_of_the_shape():
    properties = {
        "spark.executor.cores": "1",
        "spark.mesos.constraints": "zone:us-east-1a,us-east-1b;rack:r.1;ssd:",
        "spark.blockManager.port": "31005",
    }
    (wanted,) = a_driver(properties).wanted
    assert wanted.constraints == (
        Constraint("zone", "LIKE", r"us\-east\-1a|us\-east\-1b"),
        Constraint("rack", "IS", "r.1"),
        Constraint("ssd", "LIKE", ".*"),
        host_port(31005),
    )
    assert wanted.shape == make(1, 1024 + 384, ports=1)


@pytest.mark.parametrize(
    "properties",
    [
        {"spark.executor.memory": "much"},
        {"spark.executor.cores": "-1"},
        {"spark.executor.cores": "99999999999999"},
        {"spark.executor.memory": "999999999999999t"},
        {"spark.dynamicAllocation.executorAllocationRatio": "half"},
    ],
)
def test_properties_that_spark_would_refuse_give_no_demand(properties):
    with pytest.raises(AdapterError):
        a_driver(properties)


def test_a_driver_that_lists_another_application_is_not_believed():
    with pytest.raises(AdapterError, match="no application with this framework's id"):
        read("spark", driver(RECORDED["static"][0]), Subject("another", "wordcount"))


# Marathon


def an_entry(**fields: Any) -> dict[str, Any]:
    app = {
        "id": "/web",
        "cpus": 1.5,
        "mem": 512,
        "disk": 10,
        "gpus": 0,
        "constraints": [["zone", "GROUP_BY", "2"]],
        "portDefinitions": [{"port": 0, "protocol": "tcp"}, {"port": 31000}],
        "requirePorts": True,
        "role": "web",
    }
    entry: dict[str, Any] = {
        "count": 3,
        "delay": {"timeLeftSeconds": 0, "overdue": True},
        "since": "2026-11-27T10:00:00.000Z",
        "processedOffersSummary": {
            "processedOffersCount": 9,
            "rejectSummaryLastOffers": [
                {"reason": "InsufficientCpus", "declined": 7, "processed": 9},
                {"reason": "UnfulfilledRole", "declined": 0, "processed": 9},
            ],
        },
        "app": app,
    }
    return {**entry, **fields}


def test_marathon_s_queue_has_shapes_ports_constraints_and_refused_offers():
    reading = read("marathon", {"/v2/queue": {"queue": [an_entry()]}})
    (wanted,) = reading.wanted
    assert (wanted.name, wanted.count, wanted.role) == ("/web", 3, "web")
    assert wanted.shape == make(1.5, 512, 10, 0, 2)
    assert wanted.constraints == (Constraint("zone", "GROUP_BY", "2"), host_port(31000))
    assert wanted.since == 1795773600.0
    assert reading.evidence[1].params["refusals"] == ("InsufficientCpus 7",)


def test_marathon_s_apps_that_back_off_are_no_demand():
    delayed = an_entry(delay={"timeLeftSeconds": 60, "overdue": False})
    assert read("marathon", {"/v2/queue": {"queue": [delayed]}}).wanted == ()


def test_a_pod_s_shape_is_the_sum_of_its_containers_and_its_executor():
    pod = {
        "id": "/pod",
        "executorResources": {"cpus": 0.1, "mem": 32, "disk": 10},
        "containers": [
            {"name": "a", "resources": {"cpus": 1, "mem": 64}, "endpoints": [{"hostPort": 0}]},
            {"name": "b", "resources": {"cpus": 2, "mem": 128, "gpus": 1}},
        ],
        "scheduling": {
            "placement": {
                "constraints": [{"fieldName": "rack", "operator": "UNIQUE"}],
                "acceptedResourceRoles": [],
            }
        },
    }
    entry = {**an_entry(), "pod": pod}
    del entry["app"]
    (wanted,) = read("marathon", {"/v2/queue": {"queue": [entry]}}).wanted
    assert wanted.shape == make(3.1, 224, 10, 1, 1)
    assert wanted.constraints == (Constraint("rack", "UNIQUE"),)


# Chronos and Metronome

CHRONOS_JOBS = [
    {"name": "nightly", "cpus": 2.0, "mem": 1024.0, "disk": 0.0, "schedule": "R/…/PT1H"},
    {"name": "plain job", "cpus": 0.0, "mem": 0.0, "disk": 0.0, "parents": ["nightly"]},
    {"name": "off", "cpus": 1.0, "mem": 64.0, "disabled": True},
]
CHRONOS_GRAPH = (
    b"node,nightly,failure,queued\nnode,plain job,fresh,queued\nnode,off,success,queued\n"
    b"node,other,success,2 running\nlink,nightly,plain job\n"
)


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_queued_jobs_of_chronos_have_their_own_resources_or_the_configured_ones(prefix):
    bodies = {
        f"{prefix}/scheduler/jobs": CHRONOS_JOBS,
        f"{prefix}/scheduler/graph/csv": CHRONOS_GRAPH,
    }
    reading = read("chronos", bodies, Subject("F", "chronos", (None, 200.0, None)))
    assert reading.wanted == (
        WantedShape(make(2, 1024, 256), 1, "nightly"),
        WantedShape(make(0.1, 200, 256), 1, "plain job"),
    )


def test_chronos_constraints_are_translated_and_unknown_ones_give_no_demand():
    jobs = [{**CHRONOS_JOBS[0], "constraints": [["rack", "EQUALS", "r1"]]}]
    bodies = {"/v1/scheduler/jobs": jobs, "/v1/scheduler/graph/csv": CHRONOS_GRAPH}
    assert read("chronos", bodies).wanted[0].constraints == (Constraint("rack", "IS", "r1"),)
    jobs[0]["constraints"] = [["rack", "NEAR", "r1"]]
    with pytest.raises(AdapterError, match="not one of Chronos"):
        read("chronos", bodies)


@pytest.mark.parametrize("text", [b"<html>", b"node,a,fresh,queued\nhello", b"\xff\xfe"])
def test_what_is_not_chronos_graph_gives_no_demand(text):
    with pytest.raises(AdapterError):
        chronos.queued_names(text)


def test_queued_runs_of_metronome_have_their_job_s_resources():
    job = {
        "id": "prod.report",
        "run": {
            "cpus": 0.5,
            "mem": 64,
            "disk": 0,
            "placement": {
                "constraints": [
                    {"attribute": "rack", "operator": "EQ", "value": "r1"},
                    {"attribute": "zone", "operator": "IN", "value": "[a, b]"},
                ]
            },
        },
        "activeRuns": [
            {
                "id": "1",
                "status": "ACTIVE",
                "createdAt": "2026-11-27T09:00:00.000+0000",
                "tasks": [{"id": "t"}],
            },
            {
                "id": "2",
                "status": "INITIAL",
                "createdAt": "2026-11-27T10:00:00.000+0000",
                "tasks": [],
            },
        ],
    }
    queue = [
        {"jobId": "prod.report", "runs": [{"runId": "2"}, {"runId": "3"}]},
        {"jobId": "gone", "runs": [{"runId": "9"}]},
    ]
    bodies = {"/v1/queue": queue, "/v1/jobs?embed=activeRuns": [job]}
    (wanted,) = read("metronome", bodies).wanted
    assert (wanted.shape, wanted.count) == (make(0.5, 64), 2)
    assert wanted.constraints == (Constraint("rack", "IS", "r1"), Constraint("zone", "LIKE", "a|b"))
    assert wanted.since == 1795773600.0
    documented = [{"job": "prod.report", "runs": ["/prod.report/1"]}]
    assert read("metronome", {**bodies, "/v1/queue": documented}).wanted[0].count == 1


# Airflow


def test_airflow_s_queue_is_grouped_by_shape_with_the_provider_s_defaults():
    def task(config: Any) -> dict[str, Any]:
        return {"dag_id": "d", "task_id": "t", "run_id": "r", "try_number": 1,
                "MesosExecutor": config}  # fmt: skip

    queue = [
        task({"cpus": 7.5, "mem_limit": "32768m", "airflow_task_id": None}),
        task({"cpus": 7.5, "mem_limit": "32g"}),
        task({"cpus": 2.0, "mem_limit": 2048, "disk": 5}),
        task(None),
        task({"cpus": 1, "mem_limit": "1g", "instance_type": "r5.large"}),
    ]
    wanted = {shape.shape: shape for shape in read("airflow", {"/v0/dags": queue}).wanted}
    assert {shape: item.count for shape, item in wanted.items()} == {
        make(7.5, 32768, 1000): 2,
        make(2, 2048, 5): 1,
        make(0.1, 256, 1000): 1,
        make(1, 1024, 1000): 1,
    }
    pinned = wanted[make(1, 1024, 1000)]
    assert pinned.constraints == (Constraint("instance_type", "IS", "r5.large"),)
    ours = Subject("F", "Airflow", (1.0, 512.0, 100.0))
    assert read("airflow", {"/v0/dags": [task(None)]}, ours).wanted[0].shape == make(1, 512, 100)


# the hook

HOOK = {
    "version": 1,
    "tasks": 2,
    "demand": [
        {
            "name": "train",
            "count": 3,
            "cpus": 4,
            "mem_mib": 8192,
            "role": "ml",
            "constraints": [["zone", "is", "us-east-1a"]],
            "waiting_since": 1795773600,
        }
    ],
}


def test_the_hook_states_shapes_roles_constraints_and_tasks():
    reading = read("hook", {"/demand": HOOK})
    (wanted,) = reading.wanted
    assert (wanted.shape, wanted.count, wanted.role) == (make(4, 8192), 3, "ml")
    assert wanted.constraints == (Constraint("zone", "IS", "us-east-1a"),)
    assert (wanted.since, reading.tasks) == (1795773600.0, 2)
    assert read("hook", {"/demand": {"version": 1, "demand": []}}).wanted == ()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, "version"),
        ({"demnd": []}, "unknown field `demnd`"),
        ({"demand": [{**HOOK["demand"][0], "name": "a\x1b[2J"}]}, "name"),  # type: ignore[index]
        ({"demand": [{**HOOK["demand"][0], "count": -1}]}, "count"),  # type: ignore[index]
        ({"demand": [{**HOOK["demand"][0], "cpus": 1e300}]}, "cpus"),  # type: ignore[index]
        ({"demand": [{**HOOK["demand"][0], "memory": 1}]}, "memory"),  # type: ignore[index]
        ({"demand": [{**HOOK["demand"][0], "constraints": [["a", "NEAR"]]}]}, "NEAR"),  # type: ignore[index]
        ({"demand": [{**HOOK["demand"][0], "constraints": [["a"]]}]}, "no operator"),  # type: ignore[index]
    ],
)
def test_the_hook_refuses_what_its_schema_does_not_have(change, error):
    with pytest.raises(AdapterError, match=error):
        read("hook", {"/demand": {**HOOK, **change}})


def test_the_published_schema_is_that_of_the_decoder():
    page = Path(__file__).parents[3] / "docs" / "demand.schema.json"
    assert json.loads(page.read_text()) == demand_hook.schema()


# any answer

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
VALID: dict[str, dict[str, Any]] = {
    "spark": driver(RECORDED["dynamic"][1]),
    "marathon": {"/v2/queue": {"queue": [an_entry()]}},
    "chronos": {"/v1/scheduler/jobs": CHRONOS_JOBS, "/v1/scheduler/graph/csv": CHRONOS_GRAPH},
    "metronome": {
        "/v1/queue": [{"jobId": "a", "runs": [{"runId": "1"}]}],
        "/v1/jobs?embed=activeRuns": [{"id": "a", "run": {"cpus": 1, "mem": 32}}],
    },
    "airflow": {
        "/v0/dags": [{"dag_id": "d", "task_id": "t", "MesosExecutor": {"mem_limit": "1g"}}]
    },
    "hook": {"/demand": HOOK},
}


def mutated(value: Any, data: st.DataObject) -> Any:
    """The value with one part of it replaced by anything."""
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: mutated(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        index = data.draw(st.integers(0, len(value) - 1))
        return [*value[:index], mutated(value[index], data), *value[index + 1 :]]
    return data.draw(JSON)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_answer_of_a_framework_ends_in_another_error_or_in_unlimited_demand(data):
    adapter = data.draw(st.sampled_from(sorted(VALID)))
    path = data.draw(st.sampled_from(sorted(VALID[adapter])))
    body = VALID[adapter][path]
    changed = data.draw(st.binary(max_size=40)) if isinstance(body, bytes) else mutated(body, data)
    try:
        reading = read(adapter, {**VALID[adapter], path: changed})
    except AdapterError:
        return
    assert len(reading.wanted) <= MAX_SHAPES
    names = [shape.name for shape in reading.wanted]
    assert len(names) == len(set(names))
    for shape in reading.wanted:
        assert 0 < shape.count <= MAX_PIECES
        assert all(0 <= amount < 2**62 for amount in shape.shape)


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"[" + b"1," * 700_000 + b"1]", b'{"version": 1e999}', b"\xff", b""],
    ids=["deep", "long", "infinite", "no text", "empty"],
)
@pytest.mark.parametrize("adapter", sorted(VALID))
def test_an_answer_that_would_take_much_to_decode_is_refused(adapter, body):
    with pytest.raises(AdapterError):
        read(adapter, dict.fromkeys(VALID[adapter], body))


@pytest.mark.parametrize(
    ("operator", "value"), [("NEAR", "a"), ("LIKE", "("), ("IS", ""), ("MAX_PER", "two")]
)
def test_a_constraint_that_the_matcher_does_not_have_is_refused(operator, value):
    with pytest.raises(AdapterError):
        constraint_of("rack", operator, value)


def test_the_most_shapes_and_pieces_are_bounded():
    queue = [an_entry(count=10**9, app={"id": f"/{n}", "cpus": 1, "mem": 32}) for n in range(1000)]
    reading = read("marathon", {"/v2/queue": {"queue": queue}})
    assert len(reading.wanted) == MAX_SHAPES
    assert {shape.count for shape in reading.wanted} == {MAX_PIECES}


def patterns(count: int, name: str = "") -> list[list[str]]:
    return [["zone", "LIKE", f"(a|b)*{name}{number}"] for number in range(count)]


def test_no_pattern_is_compiled_of_shapes_that_do_not_count():
    queue = [
        an_entry(count=9 if n < 20 else 1, app={"id": f"/{n}", "constraints": patterns(20, str(n))})
        for n in range(2000)
    ]
    compiled_before = compiled.cache_info().misses
    reading = read("marathon", {"/v2/queue": {"queue": queue}})
    assert len(reading.wanted) == MAX_CONSTRAINTS // 20
    assert compiled.cache_info().misses - compiled_before <= MAX_CONSTRAINTS + 20


def test_a_list_of_more_entries_than_any_framework_has_is_refused():
    with pytest.raises(AdapterError, match="length"):
        read("marathon", {"/v2/queue": {"queue": [{}] * (MAX_ENTRIES + 1)}})


HOSTILE = "\x1b]0;title\x07\u202eexe"
"""It sets a terminal's title, and shows what follows from right to left."""


@pytest.mark.parametrize(
    ("adapter", "bodies"),
    [
        ("marathon", {"/v2/queue": {"queue": [an_entry(app={"id": HOSTILE})]}}),
        (
            "chronos",
            {
                "/v1/scheduler/jobs": [{"name": HOSTILE}],
                "/v1/scheduler/graph/csv": f"node,{HOSTILE},fresh,queued\n".encode(),
            },
        ),
        (
            "metronome",
            {
                "/v1/queue": [{"jobId": HOSTILE, "runs": [{}]}],
                "/v1/jobs?embed=activeRuns": [{"id": HOSTILE, "run": {}}],
            },
        ),
    ],
)
def test_a_name_that_a_terminal_would_obey_is_made_printable(adapter, bodies):
    (wanted,) = read(adapter, bodies).wanted
    assert wanted.name.isprintable()


@pytest.mark.parametrize("parts", [["zone\x1b", "IS", "a"], ["zone", "IS", "a\nb"]])
def test_constraints_with_control_characters_are_refused(parts):
    with pytest.raises(AdapterError, match="control characters"):
        constraint_of(*parts)


@pytest.mark.parametrize(
    "text", ["a:b;" * 401, "a:" + "b," * 50_000, "zone:a\x1b"], ids=["many", "long", "control"]
)
def test_constraints_of_spark_are_bounded(text):
    with pytest.raises(AdapterError):
        a_driver({"spark.executor.cores": "1", "spark.mesos.constraints": text})


def test_a_driver_wants_no_more_pieces_than_count():
    reading = a_driver({"spark.executor.cores": "1"}, tasks=10**9 - 5)
    assert [shape.count for shape in reading.wanted] == [MAX_PIECES]


def test_every_adapter_module_is_in_the_table():
    modules = (airflow, chronos, demand_hook, marathon, metronome, spark)
    assert {module.read for module in modules} == set(ADAPTERS.values())

"""Rendering of reasons for people: one template for each `ReasonCode`.

A template is a format string, or a function where a part depends on a value. This is the only place
that turns a reason into text; the command line, the page and the log call `render`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Self

from mesaform.autoscaler.model.reason import Param, Reason, ReasonCode
from mesaform.common.printable import printable

Template = str | Callable[[Mapping[str, Param]], str]

LISTED = 3
"""Values named in a sentence; the rest are counted."""


def render(reason: Reason) -> str:
    """A reason as one clause, without a capital letter and a full stop."""
    template, params = TEMPLATES[reason.code], reason.params
    return printable(template(params) if callable(template) else template.format_map(params))


def render_optional(reason: Reason | None) -> str:
    """A reason, or an empty text for none."""
    return "" if reason is None else render(reason)


def reason_view(reason: Reason | None) -> dict[str, object] | None:
    """A reason as JSON: its code, its parameters and its text; None for none."""
    if reason is None:
        return None
    return {"code": reason.code, "params": reason.params, "text": render(reason)}


def render_all(reasons: Iterable[Reason]) -> str:
    """Reasons as one line."""
    return "; ".join(render(reason) for reason in reasons)


class NumberRange(float):
    """Numbers of equal reasons in one text: formatted as `6 to 8`, or as one number if equal."""

    numbers: tuple[float, ...]

    def __new__(cls, numbers: Iterable[float]) -> Self:
        ordered = tuple(sorted(numbers))
        value = super().__new__(cls, ordered[0])
        value.numbers = ordered
        return value

    def __format__(self, spec: str) -> str:
        low, high = format(self.numbers[0], spec), format(self.numbers[-1], spec)
        return low if low == high else f"{low} to {high}"


def render_range(reasons: Sequence[Reason]) -> str:
    """Reasons that differ only in numbers, as one clause with the range of each number."""
    params = {
        name: _merged([reason.params[name] for reason in reasons]) for name in reasons[0].params
    }
    return render(Reason(reasons[0].code, params))


def _merged(values: Sequence[Param]) -> Param:
    numbers = [value for value in values if isinstance(value, int | float)]
    is_range = len(set(numbers)) > 1
    return NumberRange(numbers) if is_range else values[0]


def listed(values: Param) -> str:
    """Values as a list, cut after a few: `a, b, c and 2 more`."""
    names = values if isinstance(values, tuple | list) else (str(values),)
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def duration(seconds: Param) -> str:
    """A length of time: seconds below 10 minutes, then minutes, then hours."""
    length_s = max(0.0, float(_number(seconds)))
    if length_s < 600:
        return f"{length_s:.0f} s"
    return f"{length_s / 60:.0f} min" if length_s < 7200 else f"{length_s / 3600:.3g} h"


def _number(value: Param) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _joined(values: Param, separator: str = ", ") -> str:
    return separator.join(values) if isinstance(values, tuple | list) else str(values)


def _instances(params: Mapping[str, Param]) -> str:
    noun = "instance" if params["count"] == 1 else "instances"
    is_known = _number(params["wait_s"]) > 0
    wait = f"for {params['wait_s']:.0f} s" if is_known else "for an offer"
    return f"{params['app']}: {params['count']} {noun} waiting {wait}"


def _origin(params: Mapping[str, Param]) -> str:
    """Who set an override, until when, and the note."""
    until = datetime.fromtimestamp(_number(params["until_epoch_s"]), UTC)
    note = f": {params['note']}" if params["note"] else ""
    return f"by {params['by']} until {until:%m-%d %H:%M:%S} UTC{note}"


def _moment(value: Param) -> str:
    return f"{datetime.fromtimestamp(_number(value), UTC):%Y-%m-%d %H:%M} UTC"


def _hint(params: Mapping[str, Param]) -> str:
    pool = f" in pool {params['pool']}" if params["pool"] else ""
    size = f"({params['cpus']:g} cpus, {params['mem_mib']:g} MiB)"
    arrived = f"; {params['arrived']} of them arrived" if params["arrived"] else ""
    return f"hint: capacity for {params['count']} x {size}{pool}, {_origin(params)}{arrived}"


def _refuses_long(params: Mapping[str, Param]) -> str:
    refusal_s = float(str(params["refusal_s"]))
    known = f"for about {refusal_s:.0f} s" if refusal_s >= 0 else "for long"
    return f"{params['framework']} refuses offers {known}, as one that has what it wants"


def _rates(params: Mapping[str, Param]) -> str:
    revived = f", revived {params['revived']} times" if params["revived"] else ""
    return (
        f"{params['sent']} offers sent, {params['accepted']} accepted, "
        f"{params['declined']} declined{revived} in the last {params['window_s']:.0f} s"
    )


def _values(params: Mapping[str, Param]) -> str:
    return f"no pool satisfies {params['constraint']} (the pools have {listed(params['values'])})"


def _machine_refused(params: Mapping[str, Param]) -> str:
    """Which machine was refused, in what it differs, and which offers were refused."""
    where = f"{params['instance_id']} (agent {params['agent_id']})"
    differences = _joined(params["differences"], "; ")
    offers = f"; refused offers: {_joined(params['refusals'])}" if params["refusals"] else ""
    return (
        f"purchases for it are STOPPED: {where} was bought, registered and was not used: "
        f"{differences or 'it has what was expected'}{offers}; "
        f"one machine is tried in {duration(params['retry_s'])}"
    )


def _exceeds(params: Mapping[str, Param]) -> str:
    required, capacity, shortfall = (
        _joined(params[name], " and ") for name in ("required", "capacity", "shortfall")
    )
    return (
        f"needs {required}; the nearest allowed type, {params['instance_type']}, "
        f"has {capacity}: {shortfall} short"
    )


def _pools_full(params: Mapping[str, Param]) -> str:
    pools, maxima = params["pools"], params["maxima"]
    if not isinstance(pools, tuple | list) or not isinstance(maxima, tuple | list):
        return f"pool {pools} is full"
    return f"pool {', '.join(f'{p} (max {m})' for p, m in zip(pools, maxima, strict=True))} is full"


def _attributes(params: Mapping[str, Param]) -> str:
    registered, actual = _joined(params["registered"]), _joined(params["actual"])
    return f"registered with {registered}, the instance has {actual}"


def _interruption(params: Mapping[str, Param]) -> str:
    ends_in_s = _number(params["ends_in_s"])
    if ends_in_s < 0:
        return f"{params['event']}, it was due {-ends_in_s:.0f} s ago"
    return f"{params['event']}, the instance ends in {params['ends_in_s']:.0f} s"


def _event(params: Mapping[str, Param]) -> str:
    return f"{params['event']}, in {duration(params['starts_in_s'])}"


def _source(params: Mapping[str, Param]) -> str:
    sources = {"queue": "EventBridge", "machine": "the instance itself", "ec2": "EC2"}
    return f"reported by {sources.get(str(params['source']), 'an unknown source')}"


def _tasks_running(params: Mapping[str, Param]) -> str:
    tasks = "1 task runs on it" if params["tasks"] == 1 else f"{params['tasks']} tasks run on it"
    return tasks + (
        f", {params['ending_before']} of them end before" if params["ending_before"] else ""
    )


def _tasks_lost(params: Mapping[str, Param]) -> str:
    return f"{params['tasks']} {'task was' if params['tasks'] == 1 else 'tasks were'} still on it"


def _spark(params: Mapping[str, Param]) -> str:
    """What a Spark driver does, has and wants."""
    stages = f"{params['tasks']} tasks remain in {params['stages']} stages"
    work = stages if params["stages"] else "no stage is active"
    has = f"{params['executors']} executors with {params['cores']} cpus"
    most = f", at most {params['max_cores']} cpus" if params["max_cores"] else ""
    target = f"{params['target']} {params['unit']}{most}"
    return f"Spark's driver reports: {work}; it has {has} and can use {target}"


def _queue(params: Mapping[str, Param]) -> str:
    if not params["count"]:
        return f"its queue ({params['path']}) is empty"
    return f"its queue ({params['path']}) has {params['count']} waiting"


def _on_same_agent(params: Mapping[str, Param]) -> str:
    return f"its {params['count']} instances have to be on one agent ({params['constraint']})"


TEMPLATES: Mapping[ReasonCode, Template] = {
    ReasonCode.TEXT: "{text}",
    ReasonCode.SPARK_WAITS: _spark,
    ReasonCode.SPARK_SATISFIED: _spark,
    ReasonCode.QUEUE_REPORTED: _queue,
    ReasonCode.ADAPTER_FAILED: (
        "its API cannot be read (adapter {adapter}, {attempts} attempts): {error}"
    ),
    ReasonCode.EXECUTE_SUPPRESSED: (
        "mesos-execute suppresses offers once it declined its first ones, and never asks again: "
        "no machine bought later serves it; start it when an agent is large enough, or give a hint "
        "before"
    ),
    ReasonCode.FRAMEWORK_SILENT: "no adapter answers for it, and its offers show no need",
    ReasonCode.ALREADY_STARTED: "{count} of them started since",
    ReasonCode.DEMAND_QUEUED: _instances,
    ReasonCode.OFFERS_REFUSED: lambda p: f"offers refused: {_joined(p['refusals'])}",
    ReasonCode.DEMAND_LABELS: lambda p: f"labels {_joined(p['labels'])}",
    ReasonCode.DEMAND_DISPLACED: "{app} has to leave {instance_id}",
    ReasonCode.HEADROOM_PERCENT: "{percent:g} % above the {used_cpus:g} cpus in use",
    ReasonCode.HEADROOM_SLOTS: (
        "autoscaler.headroom_slots keeps {count} slots of {cpus:g} cpus and {mem_mib:g} MiB free"
    ),
    ReasonCode.HINT: _hint,
    ReasonCode.CALENDAR: (
        "the calendar has {count} x ({resources}) {days} {hours} UTC; "
        "{present} are in use, waiting or reserved"
    ),
    ReasonCode.WEEKLY_PROFILE: (
        "the last {weeks} {slot} UTC used {used_cpus:g} cpus and {used_mem_mib:g} MiB at "
        "p{percentile:g} in pool {pool}; {present_cpus:g} cpus and {present_mem_mib:g} MiB "
        "are in use, waiting or reserved"
    ),
    ReasonCode.POOL_MINIMUM: "pool {pool} keeps at least its min",
    ReasonCode.FRAMEWORK_STARVING: (
        "{framework} finds no agent with {resources} free since {wait_s:.0f} s"
    ),
    ReasonCode.FRAMEWORK_DECLINES_ALL: (
        "{framework} declines all offers, and no agent has the {resources} of its tasks free, "
        "since {wait_s:.0f} s"
    ),
    ReasonCode.FRAMEWORK_UNSERVED: (
        "{framework} gets no offer, though {resources} seems free, since {wait_s:.0f} s"
    ),
    ReasonCode.OFFER_RATES: _rates,
    ReasonCode.PROBE_NOT_OFFERED: "the probe framework got no such offer either",
    ReasonCode.FRAMEWORK_MINIMUM_OFFER: "the framework declares this as its smallest useful offer",
    ReasonCode.FRAMEWORK_REVIVED: "the framework revived offers, and its tasks have this size",
    ReasonCode.FRAMEWORK_REVIVED_AGAIN: "the framework revived offers since the last purchase",
    ReasonCode.FRAMEWORK_REFUSES_SIZES: (
        "{framework} runs nothing and declines all offers with short refusals, so it may need "
        "machines with more than is free (tried: {resources}), since {wait_s:.0f} s"
    ),
    ReasonCode.FRAMEWORK_REFUSES_LARGEST: (
        "{framework} runs nothing and declines all offers, up to {resources}, "
        "since {wait_s:.0f} s; no allowed type has more"
    ),
    ReasonCode.FRAMEWORK_REFUSES_LONG: _refuses_long,
    ReasonCode.FRAMEWORK_HOLDS_OFFERS: "{framework} holds {held:g} offers and uses none of them",
    ReasonCode.FRAMEWORK_SUPPRESSED: "{framework} suppressed offers in all its roles",
    ReasonCode.FRAMEWORK_DISCONNECTED: "{framework} is not connected to the master",
    ReasonCode.FRAMEWORK_WATCHED: "the refusals of {framework} are not known for long enough yet",
    ReasonCode.OFFERS_SUFFICE: "{framework} uses none of the free resources that hold its tasks",
    ReasonCode.EXPERIMENT_FIRST: "one machine tests whether the framework uses it",
    ReasonCode.EXPERIMENT_ACCEPTED: (
        "the framework used {accepted} of {bought} pieces bought for it"
    ),
    ReasonCode.PURCHASE_PENDING: "the last purchase for the framework has not registered yet",
    ReasonCode.PURCHASE_ACCEPTED: "the framework used the last purchase of {count}",
    ReasonCode.PURCHASE_DECLINED: (
        "the framework used nothing of the last purchase; "
        "it has to revive offers or accept some first"
    ),
    ReasonCode.EXPERIMENT_REFUSED: (
        "{framework} refused the machine bought for it ({count} in a row); "
        "the next one is bought in {retry_s:.0f} s"
    ),
    ReasonCode.INFERENCE_LIMIT: (
        "autoscaler.inference.usd_per_hour {limit_usd_per_hour:g} leaves too little for a machine "
        "of ${cheapest_usd_per_hour:.3f}/h: ${spent_usd_per_hour:.3f}/h of the last hour's "
        "machines for this framework are not used by it"
    ),
    ReasonCode.QUOTA_EXHAUSTED: lambda p: (
        f"role {p['role']} has {_joined(p['limits'])} of its quota: "
        "the master offers it no more on any number of machines"
    ),
    ReasonCode.MATCHES_NO_OFFER: lambda p: (
        f"its {_joined(p['causes'], ' and ')} ({p['role']}) matches no offer; "
        "a new machine would offer the same"
    ),
    ReasonCode.MASTER_ELECTED_RECENTLY: (
        "a master was elected {elected_s:.0f} s ago: counters and offers have only begun"
    ),
    ReasonCode.ALLOCATOR_LATE: (
        "the allocator is {lag_s:.0f} s late: every framework seems to lack offers"
    ),
    ReasonCode.PROBE_OFFERED: (
        "the probe framework was offered as much on {agent} {age_s:.0f} s ago"
    ),
    ReasonCode.CATALOGUE_UNKNOWN: "the catalogue of offerings is not known yet",
    ReasonCode.CONSTRAINT_VALUES_UNAVAILABLE: _values,
    ReasonCode.CONSTRAINT_ATTRIBUTE_MISSING: (
        "no pool satisfies {constraint} (no pool has the attribute {field})"
    ),
    ReasonCode.HOST_PORT_NOT_OFFERED: lambda p: (
        f"no pool's agents offer host port {p['port']} "
        f"(they offer {_joined(p['offered']) or 'none'}): use a port of these, or 0 for any"
    ),
    ReasonCode.CONSTRAINT_HOSTNAME_UNKNOWN: (
        "no pool satisfies {constraint} (the name of a new machine is not known before it exists)"
    ),
    ReasonCode.CONSTRAINTS_CONFLICT: lambda p: (
        f"no pool satisfies {_joined(p['constraints'], '; ')} "
        "(each can be satisfied, but not all by one machine)"
    ),
    ReasonCode.CONSTRAINT_AGENT_FULL: (
        "{constraint}: all its instances belong on {agent}, which has no capacity left"
    ),
    ReasonCode.CONSTRAINT_LOCATIONS_TAKEN: (
        "every location that its constraints allow has all the instances that they permit there"
    ),
    ReasonCode.EXCEEDS_LARGEST_TYPE: _exceeds,
    ReasonCode.INSTANCES_ON_SAME_AGENT: _on_same_agent,
    ReasonCode.LARGER_TYPE_EXCLUDED: lambda p: (
        f"{p['instance_type']} of pool {p['pool']} is large enough, "
        f"but its constraints ({_joined(p['constraints'], '; ')}) exclude it"
    ),
    ReasonCode.POOLS_FULL: _pools_full,
    ReasonCode.CAPACITY_BACKOFF: (
        "the cloud had no capacity of any offering that is large enough; "
        "next request in {retry_s:.0f} s"
    ),
    ReasonCode.LAUNCH_FAILED: "the last launch failed: {cause}; next request in {retry_s:.0f} s",
    ReasonCode.TEMPLATE_MISSING: lambda p: (
        f"launch template {_joined(p['templates'], ' and ')} is missing; create it again: "
        "mesaform up"
    ),
    ReasonCode.POOL_STOPPED: (
        "pool {pool} is STOPPED: {count} machines in a row failed ({cause}), the last one "
        "{instance_id}; one machine is tried in {retry_s:.0f} s"
    ),
    ReasonCode.MACHINE_REFUSED: _machine_refused,
    ReasonCode.PURCHASES_UNUSED: lambda p: (
        f"purchases for it are STOPPED: {p['count']} launches in a row were given back without a "
        f"task within {duration(p['within_s'])}; one machine is tried in {duration(p['retry_s'])}"
    ),
    ReasonCode.DEMAND_WITHDRAWN: lambda p: (
        f"purchases for it PAUSE: {p['count']} times in a row its demand ended before its machines "
        f"came; they go on in {duration(p['retry_s'])}"
    ),
    ReasonCode.AGENTS_REFUSED: lambda p: (
        f"it fits on {listed(p['agents'])} and does not start there; one machine is bought to test"
    ),
    ReasonCode.PURCHASE_OF_USE: "a machine bought for it has a task, or its app has changed",
    ReasonCode.APP_FAILING: lambda p: (
        f"tasks of {p['app']} fail; machines are bought once one has run for "
        f"{duration(p['lived_s'])}"
    ),
    ReasonCode.LABEL_INVALID: "{problem}",
    ReasonCode.MAX_WAIT: lambda p: (
        "it may wait for capacity that exists (label mesaform.max-wait): machines are bought in "
        f"{duration(p['left_s'])}"
    ),
    ReasonCode.AGENTS_REGISTER_AGAIN: "its machines register, or its launch template is new",
    ReasonCode.LAUNCH_RAMP_UP: (
        "offerings that are large enough lacked capacity lately: "
        "a few are requested at a time, twice as many after each success"
    ),
    ReasonCode.COST_CAP: (
        "cost.max_usd_per_hour {max_usd_per_hour:g} leaves ${left_usd_per_hour:.4f}; "
        "the cheapest offering that is large enough costs ${cheapest_usd_per_hour:.4f}"
    ),
    ReasonCode.OTHER_DEMAND_FIRST: (
        "the rest of the pools' max or of the cost cap went to other demand"
    ),
    ReasonCode.NO_MASTER: "no master is elected",
    ReasonCode.AGENTS_EXPECTED: "{count} agents are expected back after a change of leader",
    ReasonCode.LAUNCH_SET_ASIDE: (
        "the record of a launch was set aside; EC2 may need {wait_s:.0f} s to list its machines"
    ),
    ReasonCode.AGENTS_MISSING: "{missing} of {known} agents are missing",
    ReasonCode.REPORTS_UNREADABLE: "{count} agents or tasks of the master cannot be read",
    ReasonCode.REPORT_UNREADABLE: "{kind} {subject} cannot be read and is left out: {error}",
    ReasonCode.POOL_LEFT_OUT: "pool {pool} cannot be planned and is left as it is: {error}",
    ReasonCode.CLUSTER_EXPIRES: lambda p: (
        f"the cluster ends at {_moment(p['until_epoch_s'])}, in {_number(p['left_s']) / 60:.0f}"
        " min (ttl); mesaform extend prolongs it"
    ),
    ReasonCode.CLUSTER_EXPIRED: lambda p: (
        f"the cluster's ttl is over since {_moment(p['until_epoch_s'])}: "
        f"{p['machines']:g} machines are terminated, the masters last"
    ),
    ReasonCode.QUEUE_UNREADABLE: "the services' queue cannot be read, so demand is not known",
    ReasonCode.FROZEN: "{note}",
    ReasonCode.AUTOSCALER_DISABLED: "autoscaler.enabled is false",
    ReasonCode.PAUSED: lambda p: f"paused, {_origin(p)}",
    ReasonCode.IDLE: "no task for {idle_s:.0f} s (idle_after_s {idle_after_s:g})",
    ReasonCode.UNDERUSED: lambda p: (
        f"{p['used_percent']:.0f} % in use for {p['underused_s']:.0f} s "
        f"(underused_percent {p['underused_percent']:g}) and its tasks ({_joined(p['apps'])}) "
        f"fit elsewhere; moving them counts as ${p['cost_usd']:.4f}"
    ),
    ReasonCode.REPLACED_CHEAPER: lambda p: (
        f"one {p['instance_type']} at ${p['usd_per_hour']:.4f} replaces {_joined(p['replaced'])} "
        f"at ${p['replaced_usd_per_hour']:.4f} ({_joined(p['apps'])}): "
        f"saves ${p['saving_usd_per_hour']:.4f} an hour, costs ${p['cost_usd']:.4f} once"
    ),
    ReasonCode.MAX_AGE: "runs for {age_hours:.0f} hours (max_age_hours {max_age_hours:g})",
    ReasonCode.TEMPLATE_OUTDATED: (
        "comes from version {version} of its launch template, the newest is {latest}"
    ),
    ReasonCode.ATTRIBUTES_DIFFER: _attributes,
    ReasonCode.DRAIN_REQUESTED: lambda p: f"{p['target']} is drained, {_origin(p)}",
    ReasonCode.AGENT_NEVER_REGISTERED: (
        "its agent did not register for {wait_s:.0f} s (boot_timeout_s {boot_timeout_s:g})"
    ),
    ReasonCode.AGENT_LOST: (
        "its agent is unreachable for {wait_s:.0f} s (boot_timeout_s {boot_timeout_s:g})"
    ),
    ReasonCode.DEMAND_RETURNED: "demand returned",
    ReasonCode.TASKS_FIT_NOWHERE: "its tasks no longer fit elsewhere",
    ReasonCode.TASK_STARTED: "a task started on it before it was deactivated",
    ReasonCode.DRAIN_REQUEST_ENDED: "no override to drain it is in force any more",
    ReasonCode.INSTANCE_STILL_RUNS: "EC2 still runs the instance",
    ReasonCode.DRAIN_UNCONFIRMED: "empty, but still not drained after {wait_s:.0f} s",
    ReasonCode.AGENT_UNREACHABLE: "its agent is unreachable",
    ReasonCode.DRAIN_TIMED_OUT: (
        "still {tasks} tasks after {wait_s:.0f} s (drain_timeout_s {drain_timeout_s:g})"
    ),
    ReasonCode.DRAIN_TIMEOUT_KILLS: "drain_timeout_kills is true",
    ReasonCode.INTERRUPTION_ANNOUNCED: _interruption,
    ReasonCode.EVENT_SCHEDULED: _event,
    ReasonCode.REBALANCE_RECOMMENDED: "{event}",
    ReasonCode.REMOVAL_ANNOUNCED: "its removal was announced",
    ReasonCode.NOTICE_SOURCE: _source,
    ReasonCode.NOTICE_WITHDRAWN: "the announced end did not come",
    ReasonCode.AGENT_NOT_REGISTERED: "its agent is not registered",
    ReasonCode.AGENT_EMPTY: "no task runs on it",
    ReasonCode.TASKS_RUNNING: _tasks_running,
    ReasonCode.TASKS_LOST: _tasks_lost,
    ReasonCode.TASKS_HAVE_CAPACITY: "its tasks fit on other machines",
    ReasonCode.TASKS_MUST_STOP: "its tasks have to stop now to stop in order",
    ReasonCode.DEACTIVATION_REPEATED: "the engine has not deactivated the agent: requested again",
    ReasonCode.DRAIN_REPEATED: "the drain did not begin: requested again",
    ReasonCode.REPLACEMENT_READY: "its replacement has registered",
    ReasonCode.REPLACEMENT_MISSING: "no replacement registered in {wait_s:.0f} s",
    ReasonCode.ENDED_AS_ANNOUNCED: "the instance is {state}, as announced: {event}",
    ReasonCode.ACTION_NONE_MASTER: (
        "THE INSTANCE IS A MASTER: the autoscaler does nothing; replace it with `mesaform up` "
        "once it has ended, before another master ends"
    ),
    ReasonCode.ACTION_NONE_FROZEN: "nothing is done: the autoscaler is frozen or disabled",
    ReasonCode.ACTION_NONE_IGNORED: (
        "nothing is done (autoscaler.interruption.on_rebalance: ignore); "
        "its offering is avoided for a while"
    ),
    ReasonCode.ACTION_REPLACE_IF_PAID_BACK: (
        "it is replaced if its tasks may move and it is old enough to have paid back"
    ),
    ReasonCode.ACTION_MOVE_TASKS: (
        "its tasks move; Terraform owns the machine: "
        "run `mesaform up` for another once it has ended"
    ),
    ReasonCode.ACTION_REPLACE_AND_DRAIN: (
        "it is deactivated, capacity for its tasks is bought at once, and it is drained in time"
    ),
    ReasonCode.REGISTERED_TWICE: lambda p: (
        f"several active agents are registered on it: {_joined(p['agents'])}"
    ),
    ReasonCode.INSTANCE_UNKNOWN: lambda p: (
        f"its instance is {p['instance_id'] or 'not named'}, "
        "which EC2 does not list in this cluster"
    ),
    ReasonCode.CAPACITY_BELOW_EXPECTED: lambda p: (
        f"{_joined(p['missing'])} less than expected; "
        "from now on tasks are packed by what agents of this type advertise"
    ),
    ReasonCode.NOT_EXECUTED: "not executed: {error}",
    ReasonCode.API_ERROR: "{error}",
    ReasonCode.NO_CAPACITY_EARLIER: "another call of this pass found no capacity",
    ReasonCode.NO_CAPACITY: lambda p: f"no capacity of {_joined(p['scopes'])}",
    ReasonCode.BOUGHT_ELSEWHERE: lambda p: (
        f"no capacity of {_joined(p['scopes'])}: bought elsewhere"
    ),
    ReasonCode.LAUNCH_REPEATED: "requested again with the same token",
    ReasonCode.LAUNCH_ANSWER_LOST: "requested {ordered_s:.0f} s before, and the answer was lost",
    ReasonCode.LAUNCH_LISTED: "EC2 lists its machines: nothing is bought again",
    ReasonCode.LEADER_ABSENT: (
        "no leader for {away_s:.0f} s "
        "(term {term} on {holder} after {previous_term} on {previous_holder})"
    ),
    ReasonCode.LEASE_EXPIRED: (
        "no autoscaler renewed its lease for {silent_s:.0f} s (lease_s {lease_s:g})"
    ),
    ReasonCode.NO_TASK_SINCE: "no task for {idle_s:.0f} s",
    ReasonCode.POWERED_OFF: (
        "it powered itself off without a report: its lease ran out while ZooKeeper was "
        "unreachable, or somebody shut it down"
    ),
}
"""The text of each code; see `tests/unit/autoscaler/test_reason_text.py`."""

"""Reasons of decisions, verdicts and refusals: a code with parameters.

A reason is data. `reporting/reason_text.py` renders it for people; nothing below `reporting` does,
and no code parses a rendered reason. Codes are public: they are in the ledger, in `/decisions`, in
`--json` output and in the label `reason` of metrics. A code is never given another meaning.

To add a code: add a member of `ReasonCode` with its parameters, a template in
`reporting/reason_text.py`, and build it with `Reason.of(ReasonCode.X, ...)`.
`tests/unit/autoscaler/test_reason_text.py` compares the two tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

Param = str | int | float | tuple[str, ...]
"""A value of a parameter. Its unit is in the parameter's name."""


class ReasonCode(StrEnum):
    """Every reason, with the names of its parameters. Members are grouped by subject."""

    parameters: tuple[str, ...]

    def __new__(cls, value: str, parameters: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.parameters = tuple(parameters.split())
        return member

    TEXT = "text", "text"
    """Prose of a ledger row or a journal entry written before reasons had codes."""

    # Why demand is there.
    DEMAND_QUEUED = "demand_queued", "app count wait_s"  # wait_s is 0 when it is not known
    OFFERS_REFUSED = "offers_refused", "refusals"
    DEMAND_LABELS = "demand_labels", "labels"
    DEMAND_DISPLACED = "demand_displaced", "app instance_id"
    HEADROOM_PERCENT = "headroom_percent", "percent used_cpus"
    HEADROOM_SLOTS = "headroom_slots", "count cpus mem_mib"
    HINT = "hint", "count cpus mem_mib pool by until_epoch_s note arrived"
    CALENDAR = "calendar", "count resources days hours present"
    WEEKLY_PROFILE = (
        "weekly_profile",
        "weeks slot used_cpus used_mem_mib percentile pool present_cpus present_mem_mib",
    )
    POOL_MINIMUM = "pool_minimum", "pool"

    # Why a framework seems to need resources.
    FRAMEWORK_STARVING = "framework_starving", "framework resources wait_s"
    FRAMEWORK_DECLINES_ALL = "framework_declines_all", "framework resources wait_s"
    FRAMEWORK_UNSERVED = "framework_unserved", "framework resources wait_s"
    OFFER_RATES = "offer_rates", "sent accepted declined revived window_s"
    PROBE_NOT_OFFERED = "probe_not_offered"
    FRAMEWORK_MINIMUM_OFFER = "framework_minimum_offer"
    FRAMEWORK_REVIVED = "framework_revived"
    FRAMEWORK_REVIVED_AGAIN = "framework_revived_again"
    FRAMEWORK_REFUSES_SIZES = "framework_refuses_sizes", "framework resources wait_s"
    FRAMEWORK_REFUSES_LARGEST = "framework_refuses_largest", "framework resources wait_s"
    FRAMEWORK_REFUSES_LONG = "framework_refuses_long", "framework refusal_s"
    FRAMEWORK_HOLDS_OFFERS = "framework_holds_offers", "framework held"
    FRAMEWORK_SUPPRESSED = "framework_suppressed", "framework"
    FRAMEWORK_DISCONNECTED = "framework_disconnected", "framework"
    FRAMEWORK_WATCHED = "framework_watched", "framework"
    OFFERS_SUFFICE = "offers_suffice", "framework"
    EXPERIMENT_FIRST = "experiment_first"
    EXPERIMENT_ACCEPTED = "experiment_accepted", "accepted bought"
    PURCHASE_PENDING = "purchase_pending"
    PURCHASE_ACCEPTED = "purchase_accepted", "count"

    # What a framework reports by its adapter, and verdicts on frameworks.
    SPARK_WAITS = "spark_waits", "tasks stages executors cores target unit max_cores"
    SPARK_SATISFIED = "spark_satisfied", "tasks stages executors cores target unit max_cores"
    QUEUE_REPORTED = "queue_reported", "path count"
    ADAPTER_FAILED = "adapter_failed", "adapter error attempts"
    EXECUTE_SUPPRESSED = "execute_suppressed"
    FRAMEWORK_SILENT = "framework_silent"
    ALREADY_STARTED = "already_started", "count"

    # Why demand gets no machine.
    PURCHASE_DECLINED = "purchase_declined"
    EXPERIMENT_REFUSED = "experiment_refused", "framework count retry_s"
    INFERENCE_LIMIT = (
        "inference_limit",
        "limit_usd_per_hour spent_usd_per_hour cheapest_usd_per_hour",
    )
    QUOTA_EXHAUSTED = "quota_exhausted", "role limits"
    MATCHES_NO_OFFER = "matches_no_offer", "causes role"
    MASTER_ELECTED_RECENTLY = "master_elected_recently", "elected_s"
    ALLOCATOR_LATE = "allocator_late", "lag_s"
    PROBE_OFFERED = "probe_offered", "agent age_s"
    CATALOGUE_UNKNOWN = "catalogue_unknown"
    CONSTRAINT_VALUES_UNAVAILABLE = "constraint_values_unavailable", "constraint values"
    CONSTRAINT_ATTRIBUTE_MISSING = "constraint_attribute_missing", "constraint field"
    HOST_PORT_NOT_OFFERED = "host_port_not_offered", "port offered"
    CONSTRAINT_HOSTNAME_UNKNOWN = "constraint_hostname_unknown", "constraint"
    CONSTRAINTS_CONFLICT = "constraints_conflict", "constraints"
    CONSTRAINT_AGENT_FULL = "constraint_agent_full", "constraint agent"
    CONSTRAINT_LOCATIONS_TAKEN = "constraint_locations_taken"
    EXCEEDS_LARGEST_TYPE = "exceeds_largest_type", "required instance_type capacity shortfall"
    INSTANCES_ON_SAME_AGENT = "instances_on_same_agent", "count constraint"
    LARGER_TYPE_EXCLUDED = "larger_type_excluded", "instance_type pool constraints"
    POOLS_FULL = "pools_full", "pools maxima"
    CAPACITY_BACKOFF = "capacity_backoff", "retry_s"
    LAUNCH_FAILED = "launch_failed", "cause retry_s"
    LAUNCH_RAMP_UP = "launch_ramp_up"
    TEMPLATE_MISSING = "template_missing", "templates"
    POOL_STOPPED = "pool_stopped", "pool count cause instance_id retry_s"
    MACHINE_REFUSED = (
        "machine_refused",
        "instance_id agent_id refusals differences retry_s",
    )
    PURCHASES_UNUSED = "purchases_unused", "count within_s retry_s"
    DEMAND_WITHDRAWN = "demand_withdrawn", "count retry_s"
    AGENTS_REFUSED = "agents_refused", "agents"
    PURCHASE_OF_USE = "purchase_of_use"
    APP_FAILING = "app_failing", "app lived_s"
    LABEL_INVALID = "label_invalid", "problem"
    MAX_WAIT = "max_wait", "left_s"
    COST_CAP = "cost_cap", "max_usd_per_hour left_usd_per_hour cheapest_usd_per_hour"
    OTHER_DEMAND_FIRST = "other_demand_first"

    # What keeps the autoscaler from acting.
    NO_MASTER = "no_master"
    AGENTS_EXPECTED = "agents_expected", "count"
    LAUNCH_SET_ASIDE = "launch_set_aside", "wait_s"
    AGENTS_MISSING = "agents_missing", "missing known"
    QUEUE_UNREADABLE = "queue_unreadable"
    REPORTS_UNREADABLE = "reports_unreadable", "count"
    FROZEN = "frozen", "note"
    AUTOSCALER_DISABLED = "autoscaler_disabled"
    PAUSED = "paused", "by until_epoch_s note"

    # Why a machine is removed.
    IDLE = "idle", "idle_s idle_after_s"
    UNDERUSED = "underused", "used_percent underused_s underused_percent apps cost_usd"
    REPLACED_CHEAPER = (
        "replaced_cheaper",
        (
            "instance_type usd_per_hour replaced replaced_usd_per_hour apps "
            "saving_usd_per_hour cost_usd"
        ),
    )
    MAX_AGE = "max_age", "age_hours max_age_hours"
    TEMPLATE_OUTDATED = "template_outdated", "version latest"
    ATTRIBUTES_DIFFER = "attributes_differ", "registered actual"
    DRAIN_REQUESTED = "drain_requested", "target by until_epoch_s note"
    AGENT_NEVER_REGISTERED = "agent_never_registered", "wait_s boot_timeout_s"
    AGENT_LOST = "agent_lost", "wait_s boot_timeout_s"

    # What happens during a removal.
    DEMAND_RETURNED = "demand_returned"
    TASKS_FIT_NOWHERE = "tasks_fit_nowhere"
    TASK_STARTED = "task_started"
    DRAIN_REQUEST_ENDED = "drain_request_ended"
    INSTANCE_STILL_RUNS = "instance_still_runs"
    DRAIN_UNCONFIRMED = "drain_unconfirmed", "wait_s"
    AGENT_UNREACHABLE = "agent_unreachable"
    DRAIN_TIMED_OUT = "drain_timed_out", "tasks wait_s drain_timeout_s"
    DRAIN_TIMEOUT_KILLS = "drain_timeout_kills"

    # Announcements of the cloud, and what follows from them.
    INTERRUPTION_ANNOUNCED = "interruption_announced", "event ends_in_s"
    EVENT_SCHEDULED = "event_scheduled", "event starts_in_s"
    REBALANCE_RECOMMENDED = "rebalance_recommended", "event"
    REMOVAL_ANNOUNCED = "removal_announced"
    NOTICE_SOURCE = "notice_source", "source"
    NOTICE_WITHDRAWN = "notice_withdrawn"
    AGENT_NOT_REGISTERED = "agent_not_registered"
    AGENT_EMPTY = "agent_empty"
    TASKS_RUNNING = "tasks_running", "tasks ending_before"
    TASKS_LOST = "tasks_lost", "tasks"
    TASKS_HAVE_CAPACITY = "tasks_have_capacity"
    TASKS_MUST_STOP = "tasks_must_stop"
    DEACTIVATION_REPEATED = "deactivation_repeated"
    DRAIN_REPEATED = "drain_repeated"
    REPLACEMENT_READY = "replacement_ready"
    REPLACEMENT_MISSING = "replacement_missing", "wait_s"
    ENDED_AS_ANNOUNCED = "ended_as_announced", "state event"
    ACTION_NONE_MASTER = "action_none_master"
    ACTION_NONE_FROZEN = "action_none_frozen"
    ACTION_NONE_IGNORED = "action_none_ignored"
    ACTION_REPLACE_IF_PAID_BACK = "action_replace_if_paid_back"
    ACTION_MOVE_TASKS = "action_move_tasks"
    ACTION_REPLACE_AND_DRAIN = "action_replace_and_drain"

    # Machines and agents that are not as expected.
    REGISTERED_TWICE = "registered_twice", "agents"
    INSTANCE_UNKNOWN = "instance_unknown", "instance_id"
    REPORT_UNREADABLE = "report_unreadable", "kind subject error"
    POOL_LEFT_OUT = "pool_left_out", "pool error"
    CLUSTER_EXPIRES = "cluster_expires", "until_epoch_s left_s"
    CLUSTER_EXPIRED = "cluster_expired", "until_epoch_s machines"
    CAPACITY_BELOW_EXPECTED = "capacity_below_expected", "missing"

    # What came of an action.
    NOT_EXECUTED = "not_executed", "error"
    API_ERROR = "api_error", "error"
    NO_CAPACITY_EARLIER = "no_capacity_earlier"
    NO_CAPACITY = "no_capacity", "scopes"
    BOUGHT_ELSEWHERE = "bought_elsewhere", "scopes"
    LAUNCH_REPEATED = "launch_repeated"
    LAUNCH_ANSWER_LOST = "launch_answer_lost", "ordered_s"
    LAUNCH_LISTED = "launch_listed"
    AGENTS_REGISTER_AGAIN = "agents_register_again"

    # Leadership and leases.
    LEADER_ABSENT = "leader_absent", "away_s term previous_term holder previous_holder"
    LEASE_EXPIRED = "lease_expired", "silent_s lease_s"
    NO_TASK_SINCE = "no_task_since", "idle_s"
    POWERED_OFF = "powered_off"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is so. `params` has exactly the code's `parameters`; `of` checks this."""

    code: ReasonCode
    params: Mapping[str, Param] = field(default_factory=dict)

    @classmethod
    def of(cls, code: ReasonCode, **params: Param) -> Self:
        """A reason with its parameters.

        Raises:
            TypeError: the parameters are not those that the code declares.

        """
        if params.keys() != set(code.parameters):
            declared = ", ".join(code.parameters) or "none"
            message = f"reason {code}: parameters {sorted(params)} are not the declared: {declared}"
            raise TypeError(message)
        return cls(code, params)

    def __hash__(self) -> int:
        return hash((self.code, tuple(sorted(self.params.items()))))

"""Service Quotas: GetServiceQuota with the values that faults set. moto has quotas of VPCs only."""

from __future__ import annotations

import json

from mesaform.common.json_types import as_object
from mesaform.localcloud.error_responses import (
    Answer,
    ErrorForm,
    Fault,
    error,
    invalid_request,
    unknown_operation,
)
from mesaform.localcloud.faults import FaultRegistry, QuotaValue

JSON_TYPE = [("Content-Type", "application/x-amz-json-1.1")]
GROUP_RULES = 60.0
DEFAULT = 10_000.0
"""Every quota but that of rules: machines are processes, of which a host has enough."""


def value_of(faults: FaultRegistry, code: str, now: float) -> float:
    """A quota's value now."""
    given = [item.value for item in faults.settings(QuotaValue, now) if item.code == code]
    return given[-1] if given else GROUP_RULES if code == "L-0EA8095F" else DEFAULT


def answer(action: str, body: bytes, faults: FaultRegistry, now: float) -> Answer:
    """The answer to GetServiceQuota; every other action is an error."""
    if action != "GetServiceQuota":
        return unknown_operation(ErrorForm.JSON, f"The operation {action[:100]!r} is not supported")
    try:
        request = as_object(json.loads(body or b"{}"))
    except (ValueError, RecursionError, TypeError) as fault:
        return invalid_request(ErrorForm.JSON, str(fault)[:200])
    code = str(request.get("QuotaCode", ""))[:100]
    if not code.startswith("L-"):
        unknown = Fault(400, "NoSuchResourceException", f"There is no quota {code!r}")
        return error(ErrorForm.JSON, unknown)
    quota = {
        "ServiceCode": request.get("ServiceCode"),
        "QuotaCode": code,
        "Value": value_of(faults, code, now),
        "Adjustable": True,
    }
    return Answer(200, JSON_TYPE, json.dumps({"Quota": quota}).encode())

"""Who the caller is, and whether the account is the one that this folder's cluster lives in."""

from __future__ import annotations

from mesaform.aws.client import client
from mesaform.aws.resources.kind import call
from mesaform.common.errors import CloudError, NotAuthenticated
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.subject import Caller, Examination, Subject

IDENTITY, ACCOUNT = "identity", "account"


def identify(subject: Subject) -> tuple[Caller | None, Finding]:
    """The caller, or None; and the finding."""
    try:
        caller = _ask(subject.region)
    except CloudError as fault:
        return None, _unknown_caller(subject, fault)
    return caller, ok(IDENTITY, caller.arn)


def look_at_account(examination: Examination) -> list[Finding]:
    """Compare the account with the pinned one, and say where calls go."""
    return [assess_account(examination)]


def assess_account(examination: Examination) -> Finding:
    """The finding about the account. Pure."""
    pin, account_id = examination.subject.pin, examination.caller.account_id
    if pin is not None and (pin.account_id, pin.region) != (account_id, examination.region):
        return error(
            ACCOUNT,
            f"{account_id} in {examination.region}; this folder's cluster lives in"
            f" {pin.account_id} in {pin.region}",
            "use the credentials and the region of that account, or another folder",
        )
    url = examination.subject.endpoint_url
    if url and examination.spec.target == "aws":
        return warning(
            ACCOUNT,
            f"{account_id}; calls go to {url}, not to AWS",
            "unset AWS_ENDPOINT_URL unless this is wanted",
        )
    known = "as at the first up" if pin else "will be pinned by the first mesaform up"
    return ok(ACCOUNT, f"{account_id}, {known}")


def _ask(region: str) -> Caller:
    answer = call(client("sts", region), "get_caller_identity", "sts GetCallerIdentity")
    return Caller(str(answer["Account"]), str(answer["Arn"]))


def _unknown_caller(subject: Subject, fault: CloudError) -> Finding:
    """Tell wrong credentials from a region that is not enabled: STS refuses both alike."""
    if not isinstance(fault, NotAuthenticated):
        return error(IDENTITY, f"STS did not answer: {fault.what}", "check the network, try again")
    if subject.region != subject.home_region:
        try:
            caller = _ask(subject.home_region)
        except CloudError:
            pass
        else:
            return error(
                IDENTITY,
                f"{caller.arn} is known in {subject.home_region} and not in {subject.region}",
                f"enable {subject.region}: AWS console, Account, AWS Regions",
            )
    remedy = "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or sign in again"
    return error(IDENTITY, f"AWS does not know the credentials: {fault.what}", remedy)

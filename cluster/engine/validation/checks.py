"""Rules for commands, environments, health checks and checks."""

from __future__ import annotations

from collections.abc import Callable

from mesaform.engine.validation.rules import first_of, first_true, prefixed
from mesaform.mesos.containers import Secret
from mesaform.mesos.messages import (
    CheckInfo,
    CommandInfo,
    EnvVariable,
    HealthCheck,
)

_TIMES = ("delay_seconds", "grace_period_seconds", "interval_seconds", "timeout_seconds")


def invalid_command(command: CommandInfo) -> str | None:
    """Why a command cannot be used: its environment is malformed."""
    variables = command.environment.variables if command.environment is not None else []
    return first_of(invalid_variable(variable) for variable in variables)


def invalid_variable(variable: EnvVariable) -> str | None:
    """Why an environment variable is malformed."""
    name = f"Environment variable '{variable.name}'"
    if variable.type == "UNKNOWN":
        return "Environment variable of type 'UNKNOWN' is not allowed"
    if variable.type == "SECRET":
        return _invalid_secret_variable(variable, name)
    return first_true(
        (variable.value is None, f"{name} of type 'VALUE' must have a value set"),
        (variable.secret is not None, f"{name} of type 'VALUE' must not have a secret set"),
    )


def _invalid_secret_variable(variable: EnvVariable, name: str) -> str | None:
    if variable.secret is None:
        return f"{name} of type 'SECRET' must have a secret set"
    if variable.value is not None:
        return f"{name} of type 'SECRET' must not have a value set"
    problem = invalid_secret(variable.secret)
    if problem is not None:
        return f"{name} specifies an invalid secret: {problem}"
    if variable.secret.value is not None and b"\0" in variable.secret.value.data:
        return (
            f"{name} specifies a secret containing null bytes, "
            "which is not allowed in the environment"
        )
    return None


def invalid_secret(secret: Secret) -> str | None:
    """Why a secret is malformed."""
    if secret.type == "REFERENCE":
        if secret.reference is None:
            return "Secret of type REFERENCE must have the 'reference' field set"
        if secret.value is not None:
            return (
                f"Secret '{secret.reference.name}' of type REFERENCE "
                "must not have the 'value' field set"
            )
    if secret.type == "VALUE":
        if secret.value is None:
            return "Secret of type VALUE must have the 'value' field set"
        if secret.reference is not None:
            return "Secret of type VALUE must not have the 'reference' field set"
    return None


def check_type(check: HealthCheck) -> str | None:
    """The type of a health check. Without one it is that of the only field, for older clients."""
    if check.type is not None:
        return check.type
    if (check.command is None) == (check.http is None):
        return None
    return "COMMAND" if check.command is not None else "HTTP"


def invalid_health_check(check: HealthCheck) -> str | None:
    """Why a health check is malformed."""
    kind = check_type(check)
    if kind is None:
        return "HealthCheck must specify 'type'"
    if kind == "UNKNOWN":
        return "'UNKNOWN' is not a valid health check type"
    rule = _HEALTH_RULES.get(kind)
    problem = rule(check) if rule is not None else None
    return problem or _negative_time(check)


def _invalid_health_command(check: HealthCheck) -> str | None:
    if check.command is None:
        return "Expecting 'command' to be set for COMMAND health check"
    if check.command.value is None:
        return f"Command health check must contain {_missing_value(check.command)}"
    problem = invalid_command(check.command)
    return prefixed("Health check's `CommandInfo` is invalid", problem)


def _missing_value(command: CommandInfo) -> str:
    return "'executable path'" if command.shell is False else "'shell command'"


def _invalid_health_http(check: HealthCheck) -> str | None:
    if check.http is None:
        return "Expecting 'http' to be set for HTTP health check"
    if check.http.scheme not in {None, "http", "https"}:
        return f"Unsupported HTTP health check scheme: '{check.http.scheme}'"
    if check.http.path is not None and not check.http.path.startswith("/"):
        return f"The path '{check.http.path}' of HTTP health check must start with '/'"
    return None


def _invalid_health_tcp(check: HealthCheck) -> str | None:
    return None if check.tcp is not None else "Expecting 'tcp' to be set for TCP health check"


_HEALTH_RULES: dict[str, Callable[[HealthCheck], str | None]] = {
    "COMMAND": _invalid_health_command,
    "HTTP": _invalid_health_http,
    "TCP": _invalid_health_tcp,
}


def _negative_time(check: HealthCheck | CheckInfo) -> str | None:
    for name in _TIMES:
        value = getattr(check, name, None)
        if value is not None and value < 0:
            return f"Expecting '{name}' to be non-negative"
    return None


def invalid_check(check: CheckInfo) -> str | None:
    """Why a check is malformed."""
    if check.type is None:
        return "CheckInfo must specify 'type'"
    if check.type == "UNKNOWN":
        return "'UNKNOWN' is not a valid check type"
    if getattr(check, check.type.lower()) is None:
        return f"Expecting '{check.type.lower()}' to be set for {check.type} check"
    return first_of(
        (_invalid_check_command(check), _invalid_check_path(check), _negative_time(check))
    )


def _invalid_check_command(check: CheckInfo) -> str | None:
    if check.type != "COMMAND" or check.command is None:
        return None
    command = check.command.command
    if command.value is None:
        return f"Command check must contain {_missing_value(command)}"
    return prefixed("Check's `CommandInfo` is invalid", invalid_command(command))


def _invalid_check_path(check: CheckInfo) -> str | None:
    path = check.http.path if check.type == "HTTP" and check.http is not None else None
    if path is not None and not path.startswith("/"):
        return f"The path '{path}' of HTTP check must start with '/'"
    return None

"""Read settings from the environment, and fail loudly when one is missing or malformed."""

import ipaddress
import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def env_str(name: str, default: str) -> str:
    """The variable's text, or `default` when it is unset."""
    return os.environ.get(name, default)


def env_bool(name: str, *, default: bool) -> bool:
    """The variable as a truth value; raises ImproperlyConfigured on anything but yes/no words."""
    text = os.environ.get(name)
    if text is None:
        return default
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={text!r} is neither yes nor no: use 1 or 0.")


def env_int(name: str, default: int) -> int:
    """The variable as an integer; raises ImproperlyConfigured when it is not one."""
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={text!r} is not a whole number.") from None


def env_list(name: str, default: list[str]) -> list[str]:
    """The variable split at commas, blanks dropped."""
    text = os.environ.get(name)
    if text is None:
        return default
    return [part.strip() for part in text.split(",") if part.strip()]


def env_choice(name: str, default: str, choices: list[str]) -> str:
    """The variable's text, one of `choices`; raises ImproperlyConfigured on any other."""
    text = os.environ.get(name, default)
    if text not in choices:
        raise ImproperlyConfigured(f"{name}={text!r} is not known: use {' or '.join(choices)}.")
    return text


def env_networks(name: str, default: list[str]) -> list[str]:
    """The variable as a list of networks such as 10.0.0.0/8; raises ImproperlyConfigured on anything else."""
    networks = env_list(name, default)
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}. Write networks as 10.0.0.0/8 or 2001:db8::/32.") from None
    return networks


def env_path(name: str, default: Path) -> Path:
    """The variable as an absolute path."""
    return Path(os.environ.get(name, str(default))).expanduser().resolve()

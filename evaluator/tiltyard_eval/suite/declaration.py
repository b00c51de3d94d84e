"""What `suite.yaml` declares beyond its tasks: how it is asked, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiltyard_eval.suite.reading import SUITE_FILE, SuiteError, check_text

DECLARATION_KEYS = {"format", "network", "trusts_server", "chat"}
_CHAT_KEYS = {"system", "multiturn"}
_FORMATS = ("tiltyard", "lm-eval")
MAX_SYSTEM_CHARS = 4000


@dataclass(frozen=True)
class ChatOptions:
    """Questions go as conversations: with a system message or None, few-shot examples as turns or in one message."""

    system: str | None
    multiturn: bool


@dataclass(frozen=True)
class Declaration:
    """The checked options.

    Args:
        foreign: The tasks are lm-eval's own files, unrestricted, which are only loaded when trusted.
        network: A foreign suite's data come from a hub.
        trusts_server: The server may be sent gold answers, and its log-likelihoods are believed.
        chat: Given when the questions are conversations.
    """

    foreign: bool
    network: bool
    trusts_server: bool
    chat: ChatOptions | None


def read_declaration(meta: dict[str, Any], *, trusted: bool) -> Declaration:
    """Check the options of a `suite.yaml`; raises ``SuiteError``."""
    kind = meta.get("format", _FORMATS[0])
    if kind not in _FORMATS:
        raise SuiteError(f"{SUITE_FILE}: format must be one of {list(_FORMATS)}")
    foreign = kind == "lm-eval"
    if foreign and not trusted:
        raise SuiteError(
            f"{SUITE_FILE}: format lm-eval loads task files that may run any code; pass --trust-suite if you trust them"
        )
    network = _flag(meta, "network")
    if network and not foreign:
        raise SuiteError(f"{SUITE_FILE}: network is for suites of format lm-eval; this one's data are its own files")
    return Declaration(foreign, network, _flag(meta, "trusts_server"), _chat(meta.get("chat")))


def _chat(value: object) -> ChatOptions | None:
    if value is None:
        return None
    where = f"{SUITE_FILE}: chat"
    if not isinstance(value, dict) or set(value) - _CHAT_KEYS:
        raise SuiteError(f"{where}: must be a mapping with no keys but {sorted(_CHAT_KEYS)}; {{}} for neither")
    system = value.get("system")
    return ChatOptions(
        system=None if system is None else check_text(system, f"{where}: system", MAX_SYSTEM_CHARS),
        multiturn=_flag(value, "multiturn"),
    )


def _flag(mapping: dict[str, Any], key: str) -> bool:
    value = mapping.get(key, False)
    if not isinstance(value, bool):
        raise SuiteError(f"{SUITE_FILE}: {key} must be true or false")
    return value

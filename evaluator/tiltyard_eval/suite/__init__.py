"""Suites: folders of tasks and questions, checked and locked.

``load_suite(path)`` gives a ``Suite`` or raises ``SuiteError``.
"""

from tiltyard_eval.suite.declaration import ChatOptions
from tiltyard_eval.suite.loading import (
    Suite,
    SuiteTask,
    TwinsOf,
    check_secret,
    commitment_of,
    load_suite,
    lock_suite,
    verify_suite,
)
from tiltyard_eval.suite.reading import SuiteError, SuiteItem
from tiltyard_eval.suite.task_yaml import NO_ANSWER

__all__ = [
    "NO_ANSWER",
    "ChatOptions",
    "Suite",
    "SuiteError",
    "SuiteItem",
    "SuiteTask",
    "TwinsOf",
    "check_secret",
    "commitment_of",
    "load_suite",
    "lock_suite",
    "verify_suite",
]

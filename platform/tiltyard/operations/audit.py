"""The audit log: every request of an organiser that changes something, whatever page or program it came through.

A middleware writes it, not the views, so that a view that is added later cannot forget it. What the admin says about a
change (its own LogEntry) becomes the entry's words; an action on chosen rows is named with their keys.
"""

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final

from django.contrib.admin.models import LogEntry
from django.db import Error as DatabaseFault
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from tiltyard.accounts.models import User
from tiltyard.operations.limits import client_address
from tiltyard.operations.models import AuditEntry

logger = logging.getLogger(__name__)

GetResponse = Callable[[HttpRequest], HttpResponse]
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OBJECTS_MAX: Final = 1000
_said: ContextVar[list[LogEntry] | None] = ContextVar("said", default=None)


def record_organisers_acts(get_response: GetResponse) -> GetResponse:
    """Write an entry for each request of a staff account that changes something, refused ones too."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method in _SAFE_METHODS:
            return get_response(request)
        before = request.user if isinstance(request.user, User) else None
        token = _said.set([])
        try:
            response = get_response(request)
            # A bearer token names its owner only inside the API.
            user = before or (request.user if isinstance(request.user, User) else None)
            if user is not None and user.is_staff:
                _record_request(request, response, user, _said.get() or [])
        finally:
            _said.reset(token)
        return response

    return middleware


def record_command(act: str, named: Iterable[str] = ()) -> None:
    """Write an entry for a management command, which somebody with a shell on the server ran."""
    AuditEntry.objects.create(
        actor_name="", source=AuditEntry.Source.COMMAND, act=act[:200], objects_named=list(named)[:_OBJECTS_MAX]
    )


@receiver(post_save, sender=LogEntry)
def _hear(instance: LogEntry, created: bool, **_: Any) -> None:
    said = _said.get()
    if created and said is not None:
        said.append(instance)


def _record_request(request: HttpRequest, response: HttpResponse, user: User, said: list[LogEntry]) -> None:
    try:
        AuditEntry.objects.create(
            actor=user,
            actor_name=user.get_username(),
            source=_source(request),
            address=client_address(request)[:45],
            act=_act(request)[:200],
            objects_named=_named(request, said),
            status=response.status_code,
        )
    except DatabaseFault:  # the act has happened; what is left of it stands in the log
        logger.exception("%s %s by %s is not in the audit log", request.method, request.path, user.get_username())


def _source(request: HttpRequest) -> AuditEntry.Source:
    if request.path.startswith("/admin/"):
        return AuditEntry.Source.ADMIN
    return AuditEntry.Source.API if request.path.startswith("/api/") else AuditEntry.Source.PAGE


def _act(request: HttpRequest) -> str:
    """The method and the path, and in the admin the action that was chosen."""
    action = request.POST.get("action", "") if request.path.startswith("/admin/") else ""
    return f"{request.method} {request.path}" + (f" {action}" if action.isidentifier() else "")


def _named(request: HttpRequest, said: list[LogEntry]) -> list[str]:
    named = [f"{_model_of(entry)} {entry.object_id}: {entry.get_change_message()}" for entry in said]
    if request.path.startswith("/admin/"):
        named += [key[:64] for key in request.POST.getlist("_selected_action")]
    return named[:_OBJECTS_MAX]


def _model_of(entry: LogEntry) -> str:
    model: type[models.Model] | None = entry.content_type.model_class() if entry.content_type else None
    return model.__name__ if model else "?"

"""Health for load balancers, numbers for Prometheus, and the page that tells participants how long they will wait."""

import hmac
from typing import Final

from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from tiltyard.operations.health import check_all
from tiltyard.operations.metrics import CONTENT_TYPE, exposition
from tiltyard.operations.queues import Queue, queues

# Anybody may look at the queues, and where tens of thousands of runs ended lately, looking takes half a second.
QUEUES_KEPT_S: Final = 3


@require_safe
@never_cache
def live(_request: HttpRequest) -> HttpResponse:
    """200 while the process answers at all; a restart is called for when it does not."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def ready(_request: HttpRequest) -> HttpResponse:
    """200 when database, broker and storage answer; 503 tells a load balancer to ask another."""
    parts = check_all()
    is_well = all(parts.values())
    return JsonResponse({"status": "ok" if is_well else "degraded", **parts}, status=200 if is_well else 503)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """For who sends TILTYARD_METRICS_TOKEN; for everybody else, and where there is none, the page does not exist."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    expected = str(settings.METRICS_TOKEN)
    is_known = scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), expected.encode())
    if not expected or not is_known:
        raise Http404
    return HttpResponse(exposition(timezone.now()), content_type=CONTENT_TYPE)


@require_safe
@never_cache
def status(request: HttpRequest) -> HttpResponse:
    """Workers, queues and the wait to expect, for everybody; it says nothing about anyone's runs."""
    parts = check_all()
    try:
        found = _kept_queues() if parts["database"] else []
    except DatabaseError:
        found, parts["database"] = [], False
    context = {
        "parts": parts,
        "queues": found,
        "all_answer": all(parts.values()),
        "deserted": [queue for queue in found if queue.is_deserted],
        "quiet": [queue for queue in found if queue.workers == 0 and not queue.is_deserted],
    }
    return render(request, "operations/status.html", context)


def _kept_queues() -> list[Queue]:
    found: list[Queue] | None = cache.get_or_set("queues", lambda: queues(timezone.now()), QUEUES_KEPT_S)
    return found or []

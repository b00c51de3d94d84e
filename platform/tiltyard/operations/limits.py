"""How often one caller may ask: counted by django-ratelimit, beside allauth's own limits on logins and sign-ups.

Three counts, each by its own setting:

    API_ADDRESS_RATE     requests to the API from one address, whoever they say they are
    API_CALLER_RATE      requests to the API with one token or session
    CHANGES_RATE         requests that change something, on the pages, and new uploads, by one visitor

and one that is kept for failures alone: an address that sends API_GUESSES_RATE tokens which are not valid is refused
before another one is looked up. Uploads in pieces, which no middleware sees, ask here themselves: for tokens that are
not valid, and for new uploads as changes. What may be handed in is bounded further by quotas and REFUSED_UPLOADS_MAX.
"""

from collections.abc import Callable
from typing import Any, Final

from allauth.account.adapter import get_adapter
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django_ratelimit.core import get_usage

from tiltyard.accounts.models import ApiToken

GetResponse = Callable[[HttpRequest], HttpResponse]
TOO_MANY_GUESSES: Final = "Too many tokens were sent from your address that are not valid."
_API: Final = "/api/"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def client_address(request: HttpRequest) -> str:
    """Who asks, behind the proxies that are configured."""
    return str(get_adapter().get_client_ip(request))


def rate_limits(get_response: GetResponse) -> GetResponse:
    """Answer 429 to who asks too often."""

    def middleware(request: HttpRequest) -> HttpResponse:
        refused = _refused_api_call(request) if request.path.startswith(_API) else _refused_change(request)
        if refused is not None:
            return refused
        response = get_response(request)
        if response.status_code == 401 and request.path.startswith(_API) and "Authorization" in request.headers:
            count_guess(request)
        return response

    return middleware


def guesses_wait_s(request: HttpRequest) -> int:
    """How long no token of this address is looked up, because too many were not valid; 0: not at all."""
    return _wait_s(request, "api-guesses", _by_address, settings.API_GUESSES_RATE, counts=False)


def count_guess(request: HttpRequest) -> None:
    """A token of this address was not valid."""
    _wait_s(request, "api-guesses", _by_address, settings.API_GUESSES_RATE)


def change_wait_s(request: HttpRequest) -> int:
    """Count a request of `request.user` that changes something; how long to wait, 0 when it may go on."""
    return _wait_s(request, "changes", _by_caller, settings.CHANGES_RATE)


def _refused_api_call(request: HttpRequest) -> HttpResponse | None:
    found_s = guesses_wait_s(request)
    if found_s and "Authorization" in request.headers:
        return _refusal(request, found_s, TOO_MANY_GUESSES)
    wait_s = _wait_s(request, "api-address", _by_address, settings.API_ADDRESS_RATE)
    wait_s = wait_s or _wait_s(request, "api-caller", _by_caller, settings.API_CALLER_RATE)
    return _refusal(request, wait_s, "Too many requests.") if wait_s else None


def _refused_change(request: HttpRequest) -> HttpResponse | None:
    if request.method in _SAFE_METHODS:
        return None
    wait_s = change_wait_s(request)
    return _refusal(request, wait_s, "Too many requests.") if wait_s else None


def _wait_s(
    request: HttpRequest, group: str, key: Callable[[str, HttpRequest], str], rate: str, *, counts: bool = True
) -> int:
    """Count this request; seconds until the next one is let in, 0 when this one is. An empty rate sets no limit."""
    if not rate:
        return 0
    usage: dict[str, Any] | None = get_usage(request, group=group, key=key, rate=rate, increment=counts)
    if usage is None or not usage["should_limit"]:  # None: the cache is away
        return 0
    return max(1, int(usage["time_left"]))


def _by_address(_group: str, request: HttpRequest) -> str:
    return client_address(request)


def _by_caller(_group: str, request: HttpRequest) -> str:
    """A token by its digest, a session by its user, else the address; which cannot be mistaken for one another."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return f"token {ApiToken.digest_of(token.strip())}"
    if request.user.is_authenticated:
        return f"user {request.user.pk}"
    return f"address {client_address(request)}"


def _refusal(request: HttpRequest, wait_s: int, reason: str) -> HttpResponse:
    detail = f"{reason} Go on in {wait_s} s, and more slowly."
    if request.path.startswith(_API):
        response: HttpResponse = JsonResponse({"detail": detail}, status=429)
    else:
        response = HttpResponse(detail, status=429, content_type="text/plain; charset=utf-8")
    response.headers["Retry-After"] = str(wait_s)
    return response

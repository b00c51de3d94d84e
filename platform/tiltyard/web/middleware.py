"""What surrounds every request: whose headers are believed, and the policies that every answer carries."""

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse

GetResponse = Callable[[HttpRequest], HttpResponse]

# Nothing but the site's own files, and no inline script or style.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data:",  # the admin's and Swagger's style sheets carry small images
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED")


def content_security_policy(get_response: GetResponse) -> GetResponse:
    """Set the policies on every response that has none of its own."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        # A page holds what this visitor may see: no cache between here and there may give it to another one.
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response

    return middleware


def trusted_proxies(get_response: GetResponse) -> GetResponse:
    """Forget what a request says about its own way here, unless one of our proxies says it.

    The caller's address decides about limits on logins and the scheme about secure cookies, so who reaches the web
    server past the proxy must not choose either.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        believe_proxies_alone(request)
        return get_response(request)

    return middleware


def believe_proxies_alone(request: HttpRequest) -> None:
    """Take X-Forwarded-… out of the request, unless one of our proxies sent it."""
    peer = str(request.META.get("REMOTE_ADDR", ""))
    if settings.ALLAUTH_TRUSTED_PROXY_COUNT < 1 or not _is_proxy(peer, tuple(settings.TRUSTED_PROXY_NETWORKS)):
        for name in _FORWARDED:
            request.META.pop(name, None)


@lru_cache(maxsize=1024)
def _is_proxy(peer: str, networks: tuple[str, ...]) -> bool:
    if not peer:  # a Unix socket: whoever may open it is ours
        return True
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in networks)

"""Who sends a request that Django does not see: the owner of its bearer token or of its session."""

from collections.abc import Mapping
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest, parse_cookie

from tiltyard.accounts.models import User
from tiltyard.accounts.tokens import SCOPE_TOO_NARROW, find_token
from tiltyard.operations.limits import TOO_MANY_GUESSES, change_wait_s, count_guess, guesses_wait_s
from tiltyard.uploads.protocol import TusError
from tiltyard.web.middleware import believe_proxies_alone


def caller_of(headers: Mapping[str, str], peer: str, *, creates: bool) -> User:
    """The active user who calls.

    Args:
        headers: With names in lower case.
        peer: The address at the other end of the connection; empty for a Unix socket.
        creates: Whether it is a new upload, which counts as a change.

    Raises:
        TusError: 401 for a stranger, 403 for a token that may only look, 429 for who asks too often.
    """
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": headers.get("x-forwarded-for", "")}
    believe_proxies_alone(request)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        if wait_s := guesses_wait_s(request):
            raise _too_often(wait_s, TOO_MANY_GUESSES)
        found_token = find_token(token.strip())
        if found_token is None:
            count_guess(request)
        elif not found_token.allows(changes=True):
            raise TusError(403, SCOPE_TOO_NARROW)
        user = found_token.user if found_token else None
    else:
        key = parse_cookie(headers.get("cookie", "")).get(settings.SESSION_COOKIE_NAME)
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        found = get_user(request)  # checks that the password is still the one of the sign-in
        user = found if isinstance(found, User) and found.is_active else None
    if user is None:
        raise TusError(401, "Sign in, or send a valid token as “Authorization: Bearer ty_…”, then upload.")
    request.user = user
    if creates and (wait_s := change_wait_s(request)):
        raise _too_often(wait_s, "Too many requests.")
    return user


def _too_often(wait_s: int, reason: str) -> TusError:
    return TusError(429, f"{reason} Go on in {wait_s} s, and more slowly.", {"retry-after": str(wait_s)})

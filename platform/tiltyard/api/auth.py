"""Who calls: a bearer token, or the browser's session with its CSRF token."""

from typing import cast

from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer, SessionAuth

from tiltyard.accounts.models import User
from tiltyard.accounts.tokens import SCOPE_TOO_NARROW, find_token

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class BearerToken(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        """The token's owner; raises HttpError 403 where the token's scope is too narrow for the request."""
        found = find_token(token)
        if found is None:
            return None
        if not found.allows(changes=request.method not in _SAFE_METHODS):
            raise HttpError(403, SCOPE_TOO_NARROW)
        request.user = found.user
        return found.user


AUTH = [BearerToken(), SessionAuth(csrf=True)]


def caller(request: HttpRequest) -> User:
    """The user of a request that AUTH has let through."""
    return cast(User, request.user)

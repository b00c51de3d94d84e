"""Who calls: a bearer token, or the browser's session with its CSRF token."""

from datetime import timedelta
from typing import cast

from django.http import HttpRequest
from django.utils import timezone
from ninja.security import HttpBearer, SessionAuth

from tiltyard.accounts.models import ApiToken, User

_TOUCH_EVERY = timedelta(minutes=1)


class BearerToken(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        """The token's owner; the digest is looked up, so no comparison leaks how much of a guess was right."""
        found = ApiToken.objects.select_related("user").filter(digest=ApiToken.digest_of(token)).first()
        if found is None or not found.user.is_active:
            return None
        now = timezone.now()
        if found.last_used_at is None or now - found.last_used_at > _TOUCH_EVERY:
            ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
        request.user = found.user
        return found.user


AUTH = [BearerToken(), SessionAuth(csrf=True)]


def caller(request: HttpRequest) -> User:
    """The user of a request that AUTH has let through."""
    return cast(User, request.user)

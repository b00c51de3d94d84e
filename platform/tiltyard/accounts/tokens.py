"""Whose a bearer token is."""

from datetime import timedelta
from typing import Final

from django.utils import timezone

from tiltyard.accounts.models import ApiToken

SCOPE_TOO_NARROW: Final = "This token may only look. Make one that may hand in and cancel on your account page."
_TOUCH_EVERY: Final = timedelta(minutes=1)


def find_token(text: str) -> ApiToken | None:
    """The valid token with this text, noted as used; else None."""
    now = timezone.now()
    found = ApiToken.objects.select_related("user").valid(text, now).first()
    if found is not None and (found.last_used_at is None or now - found.last_used_at > _TOUCH_EVERY):
        ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
    return found

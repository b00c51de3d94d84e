"""People, and the tokens with which their programs act for them."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import ClassVar, Self

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.db.models import Q
from django.utils import timezone


class User(AbstractUser):
    """A participant or an organiser; the e-mail address is unique so that it can be used to sign in."""

    email = models.EmailField("e-mail address", unique=True)

    objects: ClassVar[UserManager[Self]] = UserManager()


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def valid(self, text: str, now: datetime) -> Self:
        """The token with this text, if it has not expired and its owner's account is active; none or one.

        The digest is looked up, so no comparison leaks how much of a guess was right.
        """
        unexpired = Q(expires_at=None) | Q(expires_at__gt=now)
        return self.filter(unexpired, digest=ApiToken.digest_of(text), user__is_active=True)


class ApiToken(models.Model):
    """A bearer token for the REST API. Only its SHA-256 is stored; the text is shown once, when it is made."""

    class Scope(models.TextChoices):
        READ = "read", "Look only: runs, scores and logs"
        SUBMIT = "submit", "Look, hand in and cancel"

    PREFIX = "ty_"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    scope = models.CharField(max_length=10, choices=Scope.choices, default=Scope.SUBMIT)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, editable=False)  # None: never
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.user})"

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    def allows(self, *, changes: bool) -> bool:
        """Whether a request that changes something, or one that does not, may be made with this token."""
        return not changes or self.scope == self.Scope.SUBMIT

    @classmethod
    def issue(
        cls, user: User, name: str, *, scope: str = Scope.SUBMIT, lifetime: timedelta | None = None
    ) -> tuple["ApiToken", str]:
        """Make a token; returns the row and the text, which cannot be had again. No lifetime: it never expires."""
        text = cls.PREFIX + secrets.token_urlsafe(32)
        now = timezone.now()
        expires_at = None if lifetime is None else now + lifetime
        digest = cls.digest_of(text)
        token = cls.objects.create(
            user=user, name=name, scope=scope, digest=digest, created_at=now, expires_at=expires_at
        )
        return token, text

    @staticmethod
    def digest_of(text: str) -> str:
        """A plain hash is enough here: the token has 256 random bits, so there is nothing to guess from."""
        return hashlib.sha256(text.encode()).hexdigest()

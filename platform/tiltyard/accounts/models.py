"""People, and the tokens with which their programs act for them."""

import hashlib
import secrets
from typing import ClassVar, Self

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.utils import timezone


class User(AbstractUser):
    """A participant or an organiser; the e-mail address is unique so that it can be used to sign in."""

    email = models.EmailField("e-mail address", unique=True)

    objects: ClassVar[UserManager[Self]] = UserManager()


class ApiToken(models.Model):
    """A bearer token for the REST API. Only its SHA-256 is stored; the text is shown once, when it is made."""

    PREFIX = "ty_"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.user})"

    @classmethod
    def issue(cls, user: User, name: str) -> tuple["ApiToken", str]:
        """Make a token; returns the row and the text, which cannot be had again."""
        text = cls.PREFIX + secrets.token_urlsafe(32)
        return cls.objects.create(user=user, name=name, digest=cls.digest_of(text)), text

    @staticmethod
    def digest_of(text: str) -> str:
        """A plain hash is enough here: the token has 256 random bits, so there is nothing to guess from."""
        return hashlib.sha256(text.encode()).hexdigest()

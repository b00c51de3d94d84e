"""`manage.py rotate_signing_key`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from tiltyard.operations.audit import record_command
from tiltyard.submissions.manifests import rotate_key


class Command(BaseCommand):
    help = "Sign manifests with a new key from now on. What the old one signed can still be verified."

    def handle(self, *_args: Any, **_options: Any) -> None:
        old, new = rotate_key(timezone.now())
        record_command("rotate_signing_key", [f"old {old}", f"new {new}"])
        self.stdout.write(f"Old public key, still believed: {old}\nNew public key: {new}")
        self.stdout.write("Tell participants who noted the old one. If it was stolen, see docs/how-to/operate.md.")

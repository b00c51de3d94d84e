"""`manage.py take_artefact_store`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tiltyard.operations.audit import record_command
from tiltyard.submissions.ownership import claim_store
from tiltyard.submissions.stores import StoreError, store


class Command(BaseCommand):
    help = "Make the store of artefacts this site's, when the site that it belonged to is gone for good."

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            before = store().owner()
            claim_store(takes_over=True)
        except StoreError as error:
            raise CommandError(str(error)) from error
        record_command("take_artefact_store", [f"from {before}"])
        self.stdout.write("The store is this site's: it removes what no submission of its own refers to.")

"""`manage.py restore DIR`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tiltyard.operations.audit import record_command
from tiltyard.operations.backups import restore
from tiltyard.operations.backups.contents import BackupError


class Command(BaseCommand):
    help = "Bring a backup into an empty site: the web server and the workers must not run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="what `manage.py backup` has written")
        parser.add_argument(
            "--take-over-store",
            action="store_true",
            help="the store of artefacts belonged to a site that is gone for good, such as the one of the backup",
        )

    def handle(self, *_args: Any, directory: Path, take_over_store: bool, **_options: Any) -> None:
        try:
            manifest = restore(directory, self.stdout.write, takes_over=take_over_store)
        except BackupError as error:
            raise CommandError(str(error)) from error
        record_command("restore", [f"backup of {manifest['made_at']}"])
        self.stdout.write("Restored. Start the site; runs that were under way are queued again when their leases end.")

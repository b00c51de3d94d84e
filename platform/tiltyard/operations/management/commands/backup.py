"""`manage.py backup DIR`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tiltyard.operations.backups import back_up
from tiltyard.operations.backups.contents import BackupError


class Command(BaseCommand):
    help = "Write the database and the files that it names into a new folder. The site may run meanwhile."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="a new or empty folder")

    def handle(self, *_args: Any, directory: Path, **_options: Any) -> None:
        try:
            back_up(directory, self.stdout.write)
        except BackupError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{directory} is complete. It holds hidden questions and keys: keep it as safe as the site.")

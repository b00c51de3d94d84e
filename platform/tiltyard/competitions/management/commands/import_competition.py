"""`manage.py import_competition DIR`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tiltyard.competitions.bundle import BundleError, import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.operations.audit import record_command


class Command(BaseCommand):
    help = "Create or update a competition from its bundle; a second import of the same bundle changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="folder with competition.yaml")
        parser.add_argument(
            "--trust-suites",
            action="store_true",
            help="take suites of format lm-eval, whose files may run any code; for bundles of your own",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        before = dict(Competition.objects.values_list("slug", "bundle_sha256"))
        try:
            competition = import_bundle(
                options["directory"], secrets_dir=settings.SECRETS_DIR, trust_suites=options["trust_suites"]
            )
        except BundleError as error:
            raise CommandError(str(error)) from error
        known = before.get(competition.slug)
        what = "imported" if known is None else "unchanged" if known == competition.bundle_sha256 else "updated"
        if what != "unchanged":
            record_command("import_competition", [f"{competition.slug}: {what}"])
        self.stdout.write(f"{competition.slug}: {what}")

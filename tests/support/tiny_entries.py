"""Submissions of the tiny server, which answers well or misbehaves as told, handed in to the small competition."""

from pathlib import Path

import tiny_server
from django.utils import timezone
from uploads_for_tests import context_archive

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition
from tiltyard.submissions.intake import accept_upload
from tiltyard.submissions.models import Run

BASE = "tiltyard/python:3.11"
DOCKERFILE = f'ARG BASE={BASE}\nFROM ${{BASE}}\nCOPY . /app\nENV TINY_MODE=@mode@\nCMD ["python3", "/app/server.py"]\n'


def hand_in(
    competition: Competition,
    owner: User,
    folder: Path,
    mode: str = "well",
    *,
    dockerfile: str = DOCKERFILE,
    crash_on: str = "",
) -> Run:
    """The queued run of a submission whose server has this mode, and dies when it is asked `crash_on`."""
    path = context_archive(
        folder / "entry.tar.gz",
        dockerfile=dockerfile.replace("@mode@", mode),
        files={"server.py": Path(tiny_server.__file__).read_text(), "crash_on.txt": crash_on},
    )
    track = competition.tracks.get()
    submission = accept_upload(
        owner=owner, competition=competition, track=track, path=path, filename=path.name, now=timezone.now()
    )
    return submission.runs.get()

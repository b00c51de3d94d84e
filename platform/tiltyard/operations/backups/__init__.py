"""Backups: the database and the files that it names, in one folder that any Tiltyard of the same version restores.

    manifest.json        version, migrations, rows by model, and of every file its size and SHA-256
    database.jsonl.gz    every row, one JSON object a line: one backup for SQLite and for PostgreSQL
    files/artefacts …    uploaded submissions, each checked against the hash that names it
    files/suites …       suites, open and hidden
    files/secrets …      what hidden suites are drawn from
    files/signing …      the key that signs manifests

The rows come first, from one snapshot. Artefacts and suites are named by their content and never rewritten, so what the
snapshot names is still the same when it is copied; more than it names does no harm. Sessions, unfinished uploads and
results of evaluations under way are left out: people sign in again, and runs under way are queued again.

The folder holds hidden questions and keys. It is made for its owner alone.
"""

from tiltyard.operations.backups.restoring import restore
from tiltyard.operations.backups.writing import back_up

__all__ = ["back_up", "restore"]

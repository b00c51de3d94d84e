#!/bin/sh
# Runs as root before the web server: its account owns the data directory, and the database has today's tables.
set -eu
mkdir -p "$TILTYARD_DATA_DIR"
chown tiltyard:tiltyard "$TILTYARD_DATA_DIR"
chmod 0700 "$TILTYARD_DATA_DIR"
exec setpriv --reuid tiltyard --regid tiltyard --clear-groups python manage.py migrate --noinput

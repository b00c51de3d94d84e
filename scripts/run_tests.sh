#!/usr/bin/env bash
# The tests, once services run (see `make test`): the platform's on PostgreSQL, then everything on SQLite.
set -euo pipefail
cd "$(dirname "$0")/.."

# A service that is missing is a failure here, where a developer's bare `pytest` skips.
export TILTYARD_REQUIRE_SERVICES=1
.venv/bin/python scripts/base_images.py
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
# Both runs, whatever the first one says.
status=0
TILTYARD_DATABASE_URL=$TILTYARD_TEST_POSTGRES_URL .venv/bin/python -m pytest tests/platform \
    -m "not docker and not redis and not browser and not slow" || status=$?
.venv/bin/python -m pytest || status=$?
exit "$status"

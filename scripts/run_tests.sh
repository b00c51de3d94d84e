#!/usr/bin/env bash
# The tests, once services run (see `make test`): the platform's on PostgreSQL, then everything on SQLite. The kernels' have a
# process of their own: Triton reads at its import whether it interprets, and other packages import it.
set -euo pipefail
cd "$(dirname "$0")/.."

# A service that is missing is a failure here, where a developer's bare `pytest` skips.
export TILTYARD_REQUIRE_SERVICES=1
.venv/bin/python scripts/base_images.py
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
# All runs, whatever the first ones say. The kernels' use one core and no service, so they run beside the platform's.
status=0
said=$(mktemp)
.venv/bin/python -m pytest tests/kernels > "$said" 2>&1 &
kernels=$!
trap 'kill "$kernels" 2>/dev/null || true; rm -f "$said"' EXIT
TILTYARD_DATABASE_URL=$TILTYARD_TEST_POSTGRES_URL .venv/bin/python -m pytest tests/platform \
    -m "not docker and not redis and not browser and not slow" || status=$?
wait "$kernels" || status=$?
cat "$said"
.venv/bin/python -m pytest --ignore=tests/kernels || status=$?
exit "$status"

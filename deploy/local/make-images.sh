#!/usr/bin/env bash
# Make the images of deploy/compose.local.yml from Debian packages, and collect the wheels that the platform's image
# installs, for a machine that cannot pull images. Needs root, mmdebstrap, a Docker engine and python3-venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p var

make_image() { # tag, packages, then changes for `docker import`
    local tag=$1 packages=$2 changes=()
    shift 2
    for change in "$@"; do changes+=(--change "$change"); done
    if docker image inspect "$tag" >/dev/null 2>&1; then echo "$tag: is there"; return; fi
    mmdebstrap --quiet --variant=minbase --include="$packages" \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' bookworm - |
        docker import "${changes[@]}" - "$tag" >/dev/null
    echo "$tag: made"
}

path='ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
make_image tiltyard-local/python:3.11 python3,python3-venv,python3-pip,ca-certificates "$path" 'CMD ["python3"]'
make_image tiltyard-local/redis:7 redis-server "$path" 'CMD ["redis-server"]'
make_image tiltyard-local/postgres:15 postgresql-15 "$path" 'VOLUME /var/lib/postgresql/data'
make_image tiltyard-local/nginx:1.22 nginx-light "$path" 'CMD ["nginx", "-g", "daemon off; error_log stderr;"]'

# With the same Python as in the image, which is Debian's: what is required depends on its exact version.
echo "wheels: collecting"
/usr/bin/python3 -m venv var/wheels-venv
/usr/bin/python3 deploy/requirements.py web eval suites sandbox s3 >var/requirements.txt
var/wheels-venv/bin/python -m pip --disable-pip-version-check wheel --quiet --use-pep517 \
    --wheel-dir deploy/wheels -r var/requirements.txt -c constraints.txt
echo "wheels: $(find deploy/wheels -name '*.whl' | wc -l)"

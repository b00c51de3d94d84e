#!/usr/bin/env bash
# Prepare this checkout: Debian packages that are missing, then .venv with pinned Python packages.
#
#   scripts/setup.sh demo    what `make demo` needs
#   scripts/setup.sh test    that, and what the tests and the linters need
#
# It says what it will install before it does, and installs nothing that is present. Where it may not install (not root,
# not Debian) it prints what to install and stops. A second run finds its stamp in .venv and ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-demo}
case $profile in
    demo) extras=web,eval,sandbox,baselines ;;  # the base images are filled from .venv
    test) extras=web,eval,suites,sandbox,s3,baselines,kernels,dev ;;
    *) echo "usage: scripts/setup.sh [demo|test]" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

has_python_headers() {
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

# An engine on the network counts as there; one on this machine when its socket is.
has_engine() {
    case ${DOCKER_HOST:-unix:///var/run/docker.sock} in
        unix://*) host=${DOCKER_HOST:-unix:///var/run/docker.sock}; [ -S "${host#unix://}" ] ;;
    esac
}

# One line for each Debian package that is missing.
missing_packages() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    have git || echo git
    have mmdebstrap || echo mmdebstrap
    have redis-server || echo redis-server
    have dockerd || has_engine || echo docker.io
    if [ "$profile" = test ]; then
        # reasoning-gym requires pycosat, which has no wheels.
        have gcc || printf '%s\n' gcc libc6-dev
        has_python_headers || echo python3-dev
        ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
        have chromium || echo chromium
        have docker-registry || echo docker-registry
        [ -d /usr/share/fonts/truetype/dejavu ] || echo fonts-dejavu-core
        [ -d /usr/share/fonts/truetype/liberation ] || echo fonts-liberation
    fi
}

# The stamp changes with whatever decides what lies in .venv.
stamp_text() {
    echo "$PWD"
    "$python" -V
    sha256sum pyproject.toml constraints.txt
}

is_stamped() {
    local want
    want=$(stamp_text)
    for stamp in ".venv/.tiltyard-$profile" .venv/.tiltyard-test; do
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then return 0; fi
    done
    return 1
}

stop_with_advice() {
    echo "Tiltyard needs packages that are not installed, and cannot install them itself: $1." >&2
    echo "On Debian or Ubuntu, run this as root and start again:" >&2
    echo "    apt-get install --no-install-recommends $(echo "$2" | xargs)" >&2
    echo "Elsewhere, install the same programs (Python 3.11 or later with venv, git, a Docker engine, Redis," >&2
    echo "mmdebstrap; for the tests also PostgreSQL 15 or later and Chromium)." >&2
    exit 1
}

apt_install() {
    # shellcheck disable=SC2086  # a list of package names is meant to be split
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y install --no-install-recommends \
        "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "apt-get failed; all it said is in $log." >&2; exit 1; }
}

have "$python" || stop_with_advice "there is no $python" "python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "Tiltyard needs Python 3.11 or later; $("$python" -V) was found. Set PYTHON to a newer one." >&2; exit 1; }

packages=$(missing_packages)
if [ -z "$packages" ] && is_stamped; then exit 0; fi

mkdir -p var/log
log=$PWD/var/log/setup.log
if [ -n "$packages" ]; then
    [ -e /etc/debian_version ] && have apt-get || stop_with_advice "this is not Debian" "$packages"
    [ "$(id -u)" = 0 ] || stop_with_advice "you are not root" "$packages"
fi

echo "Setting up Tiltyard in $PWD"
[ -z "$packages" ] || echo "  Debian packages that will be installed: $(echo "$packages" | xargs)"
is_stamped || echo "  Python packages that will be installed in .venv: the extras $extras, pinned by constraints.txt (some minutes)"

apt_pid=
trap 'wait' EXIT  # never leave apt running behind a failed pip
if [ -n "$packages" ]; then
    apt-get -o DPkg::Lock::Timeout=300 -qq update >>"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; echo "apt-get update failed; all it said is in $log." >&2; exit 1; }
    # What pip waits for comes first; the rest is unpacked while pip downloads.
    for_pip='python3-venv|python3-dev|gcc|libc6-dev|ca-certificates'
    first=$(echo "$packages" | grep -xE "$for_pip" || true)
    rest=$(echo "$packages" | grep -vxE "$for_pip" || true)
    # shellcheck disable=SC2086
    [ -z "$first" ] || apt_install $first
    # shellcheck disable=SC2086
    if [ -n "$rest" ]; then apt_install $rest & apt_pid=$!; fi
fi

if ! is_stamped; then
    started_at=$SECONDS
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
        -e ".[$extras]" -c constraints.txt >>"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; echo "pip failed; all it said is in $log." >&2; exit 1; }
    if [ "$profile" = test ]; then
        # Here, where warnings are no errors: a package's own SyntaxWarning would otherwise come up in whichever test
        # imports it first. Some packages hold templates that are no Python, hence no complaint about the status.
        .venv/bin/python -W ignore -m compileall -q -j 0 .venv/lib/python*/site-packages >>"$log" 2>&1 || true
    fi
    stamp_text >".venv/.tiltyard-$profile"
    echo "  Python packages: $((SECONDS - started_at)) s"
fi
[ -z "$apt_pid" ] || wait "$apt_pid"
[ -z "$packages" ] || echo "  Debian packages: done"

#!/bin/bash
# What the public postgres image does at its start, for Debian's packages: make the cluster once, then serve it.
set -euo pipefail
data=/var/lib/postgresql/data
bin=$(echo /usr/lib/postgresql/*/bin)
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }

if [ ! -s "$data/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 0700 "$data"
    password_file=$(mktemp)
    printf '%s' "$POSTGRES_PASSWORD" >"$password_file"
    chown postgres "$password_file"
    as_postgres "$bin/initdb" --pgdata "$data" --username "$POSTGRES_USER" --auth-local trust --auth-host scram-sha-256 \
        --pwfile "$password_file" --encoding UTF8 --locale C.UTF-8
    rm "$password_file"
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    as_postgres "$bin/postgres" --single -D "$data" postgres <<<"CREATE DATABASE \"$POSTGRES_DB\"" >/dev/null
fi
install -d -o postgres -g postgres /run/postgresql
exec setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D "$data" -c listen_addresses='*'

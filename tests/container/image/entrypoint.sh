#!/bin/sh
# First process of the test image. It understands those parts of the official postgres image
# that the tests and testcontainers use: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB,
# POSTGRES_HOST_AUTH_METHOD, POSTGRES_INITDB_ARGS, *.sql and *.sh in /docker-entrypoint-initdb.d,
# and arguments that begin with a dash, which go to postgres.
set -eu

case "${1:-postgres}" in
    -*) ;;
    postgres) [ $# -eq 0 ] || shift ;;
    *) exec "$@" ;;
esac

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
socket=/var/run/postgresql

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$auth" != trust ]; then
        echo "POSTGRES_PASSWORD is required unless POSTGRES_HOST_AUTH_METHOD is trust" >&2
        exit 1
    fi
    (umask 077 && printf '%s\n' "${POSTGRES_PASSWORD:-unused}" > /tmp/password)
    # The builtin provider sorts as C.UTF-8 without any locale files in the image.
    # shellcheck disable=SC2086  # the arguments are meant to be split
    initdb -D "$PGDATA" -U "$user" --pwfile=/tmp/password --auth-local=trust \
        --auth-host="$auth" -E UTF8 --locale=C --locale-provider=builtin \
        --builtin-locale=C.UTF-8 ${POSTGRES_INITDB_ARGS:-}
    rm -f /tmp/password
    printf 'host all all all %s\nhost replication all all %s\n' "$auth" "$auth" \
        >> "$PGDATA/pg_hba.conf"

    # No TCP during set-up: who waits for the port must not see a half-made database.
    pg_ctl -D "$PGDATA" -w start -o "-c listen_addresses='' -c unix_socket_directories=$socket"
    run() { psql -v ON_ERROR_STOP=1 --no-psqlrc -q -h "$socket" -U "$user" "$@"; }
    [ "$database" = postgres ] || run -d postgres -c "create database \"$database\""
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh) . "$file" ;;
            *.sql) run -d "$database" -f "$file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
fi

exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories="$socket" "$@"

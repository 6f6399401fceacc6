# What the tests of the OCI runtime share: a bundle made of a static busybox, and a state root of its own.

: "${TRAPEZE_BUILD:=$BATS_TEST_DIRNAME/../../build}"
OCI=${TRAPEZE_OCI:-$TRAPEZE_BUILD/src/container/trapeze-oci}
bats_require_minimum_version 1.5.0

# Containers need root and a busybox without libraries.
oci_setup() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    command -v jq >/dev/null || skip "jq is not installed"
    WORK=$BATS_TEST_TMPDIR
    ROOT=$WORK/state
    BUNDLE=$WORK/bundle
    ID=t$$-$BATS_SUITE_TEST_NUMBER
    mkdir -p "$BUNDLE/rootfs"/{bin,proc,sys,dev,tmp,etc,root}
    cp /bin/busybox "$BUNDLE/rootfs/bin/"
    chroot "$BUNDLE/rootfs" /bin/busybox --install -s /bin
    echo 'root:x:0:0:root:/root:/bin/sh' >"$BUNDLE/rootfs/etc/passwd"
    "$OCI" spec --bundle "$BUNDLE"
    config '.process.terminal = false'
}

# Nothing may be left: no state, no cgroup, no mount below the test's folder.
oci_teardown() {
    [ -n "${ROOT:-}" ] || return 0
    for id in $(oci list -q 2>/dev/null); do
        oci delete --force "$id"
    done
    [ -z "$(ls -A "$ROOT" 2>/dev/null)" ]
    [ -z "$(find /sys/fs/cgroup -type d -name "$ID*" 2>/dev/null)" ]
    ! grep -qF "$WORK" /proc/self/mountinfo
}

oci() {
    "$OCI" --root "$ROOT" "$@"
}

# config FILTER [JQ ARGUMENT...]: changes the bundle's config.json.
config() {
    local filter=$1
    shift
    jq "$@" "$filter" "$BUNDLE/config.json" >"$BUNDLE/config.new"
    mv "$BUNDLE/config.new" "$BUNDLE/config.json"
}

# args WORD...: the program to run.
args() {
    config '.process.args = $words' --argjson words "$(printf '%s\036' "$@" | jq -Rs 'split("\u001e")[:-1]')"
}

# runs STATUS TEXT [OPTION...]: `run` in the foreground ends with STATUS and its output holds TEXT.
runs() {
    local want=$1 text=$2
    shift 2
    run oci run "$@" -b "$BUNDLE" "$ID"
    echo "status $status: $output"
    [ "$status" -eq "$want" ]
    [[ $output == *"$text"* ]]
}

# fails TEXT COMMAND...: ends with a status other than 0 and says TEXT.
fails() {
    local text=$1
    shift
    run "$@"
    echo "status $status: $output"
    [ "$status" -ne 0 ]
    [[ $output == *"$text"* ]]
}

# A container that runs until it is killed.
start_sleeper() {
    args sleep 1000
    oci run -d -b "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
}

status_of() {
    oci state "${1:-$ID}" | jq -r .status
}

# until_stopped: waits for the container's end without asking for a time; the kernel tells.
until_stopped() {
    local pid
    pid=$(oci state "$ID" | jq .pid)
    [ "$pid" = 0 ] || timeout 60 tail --pid="$pid" -s 0.02 -f /dev/null
}

# v1 CONTROLLER FILE: the value in the container's own v1 group, "" on a host without that hierarchy.
v1() {
    local pid path
    pid=$(oci state "$ID" | jq .pid)
    path=$(sed -n "s/^[0-9]*:$1:\(.*\)/\1/p" "/proc/$pid/cgroup")
    [ -z "$path" ] || cat "/sys/fs/cgroup/$1$path/$2"
}

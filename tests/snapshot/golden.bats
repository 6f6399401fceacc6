#!/usr/bin/env bats
# Snapshots that earlier releases took (golden/, made by tools/make-golden.sh) are read and run by this one.

bats_require_minimum_version 1.5.0
: "${TRAPEZE_BUILD:=$BATS_TEST_DIRNAME/../../build}" "${TRAPEZE:=$TRAPEZE_BUILD/src/cmd/trapeze}"

setup() {
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    VM=
}

teardown() {
    if [ -n "$VM" ]; then
        kill -9 "$VM" 2>/dev/null || true
    fi
}

# echoes COMMAND...: the guest goes on: it returns what it gets.
echoes() {
    local in=$BATS_TEST_TMPDIR/in out=$BATS_TEST_TMPDIR/out i
    [ -e "$in" ] || mkfifo "$in"
    "$@" <>"$in" >"$out" 2>&1 &
    VM=$!
    echo still-here >"$in"
    for i in $(seq 600); do
        if grep -q still-here "$out"; then
            break
        fi
        kill -0 "$VM" 2>/dev/null || break
        sleep 0.05
    done
    kill -HUP "$VM" 2>/dev/null || true
    wait "$VM" || true
    VM=
    grep -q still-here "$out" || { cat "$out"; return 1; }
}

# own_disk: a copy of the imported disk; what a snapshot stands on is write-protected.
own_disk() {
    install -m 600 "$TRAPEZE_ROOT"/layers/*.qcow2 "$BATS_TEST_TMPDIR/disk.qcow2"
    echo "$BATS_TEST_TMPDIR/disk.qcow2"
}

@test "golden snapshots are imported; each value that they had is still there" {
    for file in "$BATS_TEST_DIRNAME"/golden/*.snapshot; do
        name=$(basename "$file" .snapshot)
        run "$TRAPEZE" snapshot import "$file"
        echo "$name: $output"
        [ "$status" -eq 0 ]
        "$TRAPEZE" snapshot show --format json "$name" >"$BATS_TEST_TMPDIR/now"
        # Later releases may know more; what belongs to the host and the copy is not compared.
        jq -n --slurpfile old "${file%.snapshot}.json" --slurpfile new "$BATS_TEST_TMPDIR/now" '
            [$old[0] | del(.snapshot, .config.disk) | paths(scalars) as $p |
             select(getpath($p) != ($new[0] | getpath($p))) | $p | join(": ")]' | tee "$BATS_TEST_TMPDIR/lost"
        [ "$(jq length "$BATS_TEST_TMPDIR/lost")" -eq 0 ]
    done
}

@test "golden snapshots run" {
    run "$TRAPEZE" accel
    if [ "$status" -eq 4 ]; then
        skip "${lines[-1]}"
    fi
    for file in "$BATS_TEST_DIRNAME"/golden/*.snapshot; do
        name=$(basename "$file" .snapshot)
        "$TRAPEZE" snapshot import "$file"
        id=$("$TRAPEZE" snapshot ls --format json | jq -r --arg n "$name" '.[] | select(.name == $n) | .id')
        echoes "$TRAPEZE_BUILD/tests/snapshot/snapshot_golden" bt "$TRAPEZE_ROOT/snapshots/$id" "$(own_disk)"
        # As a user would; another host's clock or processor may be reason to refuse, and is said.
        if ! echoes "$TRAPEZE" snapshot restore --name golden "$name"; then
            refused_rightly
        fi
        "$TRAPEZE" snapshot rm "$name"
    done
}

# refused_rightly: what this host has not, the snapshot's machine has.
refused_rightly() {
    grep -q "time stamp counter\|this host lacks\|physical addresses" "$BATS_TEST_TMPDIR/out"
}

@test "golden snapshots run under KVM, those of bt, too" {
    [ -r /dev/kvm ] && [ -w /dev/kvm ] || skip "there is no /dev/kvm"
    export TRAPEZE_ACCEL_ANYWAY=kvm # one that fails the probe does for this guest
    for file in "$BATS_TEST_DIRNAME"/golden/*.snapshot; do
        name=$(basename "$file" .snapshot)
        "$TRAPEZE" snapshot import "$file"
        id=$("$TRAPEZE" snapshot ls --format json | jq -r --arg n "$name" '.[] | select(.name == $n) | .id')
        if ! echoes "$TRAPEZE_BUILD/tests/snapshot/snapshot_golden" kvm "$TRAPEZE_ROOT/snapshots/$id" "$(own_disk)"; then
            refused_rightly
        fi
        "$TRAPEZE" snapshot rm "$name"
    done
}

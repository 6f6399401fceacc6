#!/usr/bin/env bats
# A Debian guest that works and checks itself (guest/init, "load") is taken, broken, restored and cloned.

load boot

setup_file() {
    fetch cloud
}

setup() {
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    truncate -s 32M "$BATS_TEST_TMPDIR/disk"
}

teardown() {
    "$TRAPEZE" ps -q 2>/dev/null | xargs -r "$TRAPEZE" kill 2>/dev/null || true
}

# log GUEST: of its console.
log() {
    echo "$TRAPEZE_ROOT/guests/$("$TRAPEZE" ps --format json | jq -r --arg g "$1" '.[] | select(.name == $g) | .id')/console.log"
}

# alive GUEST N: until its log has said so N times, two minutes at most.
alive() {
    says "$1" alive "$2"
}

# says GUEST PATTERN N: the same for other lines.
says() {
    local log i
    log=$(log "$1")
    for i in $(seq 1200); do
        if [ "$(grep -c "$2" "$log")" -ge "$3" ]; then
            return 0
        fi
        sleep 0.1
    done
    tail "$log"
    return 1
}

@test "a guest under load: snapshots, restore, clones; its memory, disk and clock are right" {
    timeout 60 "$TRAPEZE" run -d --name web --accel "${TRAPEZE_ACCEL:-auto}" --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --append "console=ttyS0 quiet trapeze.do=load" --memory 256M --disk "$BATS_TEST_TMPDIR/disk"
    alive web 2
    timeout 60 "$TRAPEZE" snapshot create web one
    alive web 4
    timeout 60 "$TRAPEZE" snapshot create web two --parent one
    "$TRAPEZE" kill web
    timeout 60 "$TRAPEZE" snapshot restore -d --name again two
    alive again 3
    timeout 60 "$TRAPEZE" snapshot clone --count 2 --name-prefix c one
    alive c-1 3
    alive c-2 3
    run grep -ha "went back\|has changed\|stall\|lockup\|BUG" "$TRAPEZE_ROOT"/guests/*/console.log
    echo "$output"
    [ "$status" -eq 1 ]
}

@test "a clone with other addresses: the driver finds its own when it is bound again, and the network works" {
    timeout 60 "$TRAPEZE" run -d --name web --accel "${TRAPEZE_ACCEL:-auto}" --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --append "console=ttyS0 quiet trapeze.do=rebind" --memory 256M
    says web "^answers " 1
    old=$(sed -n 's/^answers \([0-9a-f:]*\).*/\1/p' "$(log web)" | head -n 1)
    timeout 60 "$TRAPEZE" snapshot create web s
    "$TRAPEZE" kill web
    timeout 60 "$TRAPEZE" snapshot clone --count 2 --new-mac --name-prefix c s
    timeout 60 "$TRAPEZE" snapshot clone --name-prefix same s
    for name in c-1 c-2; do
        says "$name" "^answers ..:..:..:..:..:.." 2
        new=$(sed -n 's/^answers \([0-9a-f:]*\).*/\1/p' "$(log "$name")" | tail -n 1)
        [ "$new" != "$old" ]
        echo "$new" >>"$BATS_TEST_TMPDIR/new"
    done
    [ "$(sort -u "$BATS_TEST_TMPDIR/new" | wc -l)" -eq 2 ]
    says same-1 "^answers $old" 2
}

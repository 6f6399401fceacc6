#!/usr/bin/env bats
# Debian's generic kernel as it comes: more drivers to probe, most of them for hardware that is not there.

load boot

setup_file() {
    fetch generic || return 0
}

teardown() {
    [[ ${TRAPEZE_ROOT:-} != "$BATS_TEST_TMPDIR"/* ]] || "$TRAPEZE" ps -q 2>/dev/null | xargs -r "$TRAPEZE" kill 2>/dev/null || true
}

@test "generic kernel, 1 processor" {
    passes 1 ""
}

# tells GUEST COMMAND: its shell runs the command, whose output begins with "told: "; $TOLD is the rest.
tells() {
    echo "$2" | timeout 3 "$TRAPEZE" attach "$1" >/dev/null || [ $? -eq 124 ] # it stays when its input ends
    TOLD=$(timeout 120 "$TRAPEZE" logs -f "$1" | grep -am 1 "^told: " | tr -d '\r')
}

@test "generic kernel: clones have other random numbers, and the time that it is" {
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    timeout 60 "$TRAPEZE" run -d --name web --accel "${TRAPEZE_ACCEL:-auto}" --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --append "console=ttyS0" --memory 256M
    for _ in $(seq 1200); do # a prompt is no line, so nothing can wait for it
        ! "$TRAPEZE" logs web | grep -qa "/root #" || break
        sleep 0.1
    done
    timeout 60 "$TRAPEZE" snapshot create web one
    tells web 'echo told: $(cut -d. -f1 /proc/uptime)'
    uptime=${TOLD#told: }
    "$TRAPEZE" kill web
    before=$(date +%s)
    timeout 60 "$TRAPEZE" snapshot clone --name-prefix c --count 2 one
    for clone in c-1 c-2; do
        timeout 120 "$TRAPEZE" logs -f $clone | grep -qam 1 "crng reseeded due to virtual machine fork"
        tells $clone 'echo told: $(head -c 16 /dev/urandom | md5sum | cut -c1-32) $(date +%s) $(cut -d. -f1 /proc/uptime)'
        echo "$clone, from $before: $TOLD"
        read -r _ random now up <<<"$TOLD"
        [[ $random =~ ^[0-9a-f]{32}$ ]]
        [ "$random" != "${other:-}" ]
        other=$random
        # A second for each: its clocks are read to the second, too.
        [ $((now + 1)) -ge "$before" ] && [ $((now - 1)) -le "$(date +%s)" ]
        [ "$((up + 1))" -ge "$uptime" ] # the time since the snapshot has passed for it, too
    done
    "$TRAPEZE" kill c-1 c-2
    # As if it had slept for a month: its clocks are a month on, and go on from there.
    "$BATS_TEST_DIRNAME/age.py" "$TRAPEZE_ROOT"/snapshots/*/state $((30 * 86400))
    timeout 60 "$TRAPEZE" snapshot restore -d --name late one
    for _ in 1 2; do
        tells late 'echo told: $(date +%s) $(cut -d. -f1 /proc/uptime); sleep 1'
        echo "late, from $before: $TOLD"
        read -r _ now up <<<"$TOLD"
        now=$((now - 30 * 86400))
        [ $((now + 1)) -ge "$before" ] && [ $((now - 1)) -le "$(date +%s)" ]
        [ "$up" -ge $((uptime + 30 * 86400)) ] && [ "$up" -le $((uptime + 30 * 86400 + 1200)) ]
    done
    "$TRAPEZE" kill late
}

@test "generic kernel, 2 processors" {
    passes 2 ""
}

@test "generic kernel, 4 processors, every mitigation on" {
    passes 4 "pti=on spectre_v2=on"
}

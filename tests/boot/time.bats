#!/usr/bin/env bats
# What a machine takes of the host while its guest sleeps, and whether its clocks keep up with the host's. The long run
# needs TRAPEZE_NIGHTLY=1 and a host that is not overloaded: it compares with the host's clock.

load boot

setup_file() {
    fetch cloud || return 0
}

# start CPUS APPEND: a machine in the background, $MACHINE, whose console is file descriptor 8.
start() {
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    mkfifo "$BATS_TEST_TMPDIR/console"
    exec 8<>"$BATS_TEST_TMPDIR/console"
    "$TRAPEZE" run --name timed --accel "${TRAPEZE_ACCEL:-auto}" --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --append "console=ttyS0 quiet panic=-1 $2" --cpus "$1" --no-reboot </dev/null >&8 2>&1 8<&- &
    MACHINE=$!
}

teardown() {
    if [ -n "${MACHINE:-}" ]; then
        kill -HUP "$MACHINE" 2>/dev/null || true
        wait "$MACHINE" || true
    fi
}

# await TEXT: reads the console up to a line with TEXT, which is in $line then.
await() {
    while read -r -t "${TRAPEZE_BOOT_LIMIT:-120}" -u 8 line; do
        line=${line%$'\r'}
        echo "$line"
        if [[ $line == *"$1"* ]]; then
            return 0
        fi
    done
    return 1
}

# used: the machine's processor time in hundredths of a second, and its threads' context switches, so far.
used() {
    local stat
    stat=$(<"/proc/$MACHINE/stat")
    # shellcheck disable=SC2086 # words on purpose; 14 and 15 are utime and stime, behind a name with spaces
    set -- ${stat##*) }
    echo $((${12} + ${13})) "$(cat "/proc/$MACHINE"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }')"
}

# idle CPUS: five seconds of sleep cost less than a tenth of a processor, and 200 switches a second. Both are many times
# what is used, and a busy host only makes them smaller.
idle() {
    start "$1" "trapeze.do=idle trapeze.seconds=5"
    await "idle begins"
    read -r ticks switches <<<"$(used)"
    await "idle ends"
    read -r ticks2 switches2 <<<"$(used)"
    echo "$((ticks2 - ticks)) hundredths of a second, $((switches2 - switches)) context switches in 5 s"
    [ $((ticks2 - ticks)) -le 50 ]
    [ $((switches2 - switches)) -le 1000 ]
}

@test "an idle guest with 1 processor uses next to nothing" {
    idle 1
}

@test "an idle guest with 4 processors uses next to nothing" {
    idle 4
}

# The clocks of a guest that stood still are right afterwards: its own by the TSC, and so the wall clock.
@test "a paused guest uses nothing, and goes on with clocks that are right" {
    start 2 "trapeze.do=clock trapeze.seconds=12"
    await "clock "
    "$TRAPEZE" pause timed
    read -r ticks switches <<<"$(used)"
    sleep 3
    read -r ticks2 switches2 <<<"$(used)"
    "$TRAPEZE" resume timed
    echo "$((ticks2 - ticks)) hundredths of a second, $((switches2 - switches)) context switches in 3 s"
    [ $((ticks2 - ticks)) -le 10 ]
    [ $((switches2 - switches)) -le 200 ]
    # shellcheck disable=SC2086 # words on purpose
    while await "clock "; do
        set -- $line
        behind=$((EPOCHSECONDS - $3))
        if [ "${2%.*}" -ge 12 ]; then
            break
        fi
    done
    [ "${2%.*}" -ge 12 ]
    [ "${behind#-}" -le 20 ]
    await "Power down"
}

# drift: how far uptime ($1) and wall clock ($2) of the guest are from what the host says, since the first call; ms.
drift() {
    local now=${EPOCHREALTIME/[.,]/}
    now=$((now / 1000))
    : "${first_host:=$now}" "${first_guest:=$((10#${1/./} * 10))}"
    uptime_drift=$((10#${1/./} * 10 - first_guest - (now - first_host)))
    wall_drift=$(($2 * 1000 + 500 - now))
    echo "uptime $uptime_drift ms, wall clock $wall_drift ms"
}

@test "clocks do not drift in ten minutes" {
    nightly "takes ten minutes" || skip "$SKIP"
    start 2 "trapeze.do=clock trapeze.seconds=600"
    await clocksource
    echo "$line"
    lines=0
    while await "clock "; do
        # shellcheck disable=SC2086 # words on purpose
        set -- $line
        drift "$2" "$3"
        # What comes late on a busy host shows the guest behind, once; drift would stay.
        if [ "${uptime_drift#-}" -le 500 ] && [ "${wall_drift#-}" -le 1500 ]; then
            good=$SECONDS
        fi
        lines=$((lines + 1))
        if [ $lines -ge 115 ]; then
            break
        fi
    done
    [ $lines -ge 115 ]
    [ $((SECONDS - good)) -le 30 ]
}

# What tests of running machines share. The guest is guest/ends.S, told by one letter what to do.

load cli

setup() {
    : "${TRAPEZE_BUILD:=$BATS_TEST_DIRNAME/../../build}"
    ENDS=$TRAPEZE_BUILD/guest/guest-ends
    run "$TRAPEZE" accel
    if [ "$status" -eq 4 ]; then
        skip "${lines[-1]}"
    fi
    [ "$status" -eq 0 ]
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    MARK=$BATS_TEST_TMPDIR/mark
    mkfifo "$MARK"
    exec 7<>"$MARK"
    VM=
}

teardown() {
    if [ -n "$VM" ]; then
        kill -9 "$VM" 2>/dev/null || true
    fi
}

# machine LETTER ARGUMENT...: the command line of a machine, in $COMMAND. $NET is the network, none by default.
machine() {
    local letter=$1
    shift
    COMMAND=(timeout -k 5 60 "$TRAPEZE" run -k "$ENDS" -a "$letter" -m 16M --net "${NET:-none}" --debug-console "0xe9,file=$MARK"
        --debug-exit 0xf4 "$@")
}

# start LETTER ARGUMENT...: runs it in the background as $VM and waits until guest code has run.
start() {
    machine "$@"
    COMMAND=("${COMMAND[@]:4}") # signals must reach the machine itself
    "${COMMAND[@]}" </dev/null >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 7<&- &
    VM=$!
    booted
}

# booted: waits for the guest's mark.
booted() {
    local byte
    read -rN1 -t 30 -u 7 byte || { cat "$BATS_TEST_TMPDIR/err" >&2; return 1; }
    [ "$byte" = I ]
}

# ends STATUS: the machine in the background ends with it.
ends() {
    local status=0
    timeout 30 tail -s 0.02 --pid="$VM" -f /dev/null || { echo "it goes on"; return 1; }
    wait "$VM" || status=$?
    VM=
    echo "status $status; $(cat "$BATS_TEST_TMPDIR/err")"
    [ "$status" -eq "$1" ]
}

# taken: the machine has seen the signals sent to it so far; two of a kind would count as one before.
taken() {
    local i
    for i in $(seq 1000); do
        if grep -q '^ShdPnd:[[:space:]]*0*$' "/proc/$VM/status"; then
            return 0
        fi
        sleep 0.01
    done
    return 1
}

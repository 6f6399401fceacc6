# What tests of guests in the background share: a host of their own, and everything switched off at the end.

load machine

setup() {
    : "${TRAPEZE_BUILD:=$BATS_TEST_DIRNAME/../../build}"
    ENDS=$TRAPEZE_BUILD/guest/guest-ends
    run "$TRAPEZE" accel
    if [ "$status" -eq 4 ]; then
        skip "${lines[-1]}"
    fi
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    VM=
}

teardown() {
    if [ -n "$VM" ]; then
        kill -9 "$VM" 2>/dev/null || true
    fi
    "$TRAPEZE" ps -q 2>/dev/null | xargs -r "$TRAPEZE" kill 2>/dev/null || true
}

# guest LETTER ARGUMENT...: one in the background that does what the letter says; its id is in $ID.
guest() {
    local letter=$1
    shift
    run --separate-stderr timeout -k 5 60 "$TRAPEZE" run -d -k "$ENDS" -a "$letter" -m 16M --net none --debug-exit 0xf4 "$@"
    echo "status $status; $output; $stderr"
    [ "$status" -eq 0 ]
    [[ $output =~ ^[0-9a-f]{12}$ ]]
    ID=$output
}

# trapeze ARGUMENT...: succeeds, and says nothing on standard error; what it prints is in $output.
trapeze() {
    run --separate-stderr timeout -k 5 120 "$TRAPEZE" "$@"
    echo "trapeze $*: status $status; $output; $stderr"
    [ "$status" -eq 0 ]
    [ -z "$stderr" ]
}

# state GUEST: what ps says that it does.
state() {
    "$TRAPEZE" ps -a --format json | jq -r --arg g "$1" '.[] | select(.name == $g or .id == $g) | .state'
}

# pid_of GUEST: of its process.
pid_of() {
    "$TRAPEZE" ps --format json | jq -r --arg g "$1" '.[] | select(.name == $g or .id == $g) | .pid'
}

# until_is WANT COMMAND...: repeats the command until it prints that, for half a minute at most.
until_is() {
    local want=$1 got= i
    shift
    for i in $(seq 600); do
        got=$("$@" 2>/dev/null) || true
        if [ "$got" = "$want" ]; then
            return 0
        fi
        sleep 0.05
    done
    echo "it is '$got', not '$want'"
    return 1
}

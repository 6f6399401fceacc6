# What the tests of the command line share.

: "${TRAPEZE:=$BATS_TEST_DIRNAME/../../build/src/cmd/trapeze}"
bats_require_minimum_version 1.5.0
unset TRAPEZE_ROOT

# refuses STATUS TEXT COMMAND...: ends with that status, says TEXT on standard error and nothing on standard output.
refuses() {
    local want=$1 text=$2
    shift 2
    run --separate-stderr "$@"
    echo "status $status; stdout: $output; stderr: $stderr"
    [ "$status" -eq "$want" ]
    [ -z "$output" ]
    [[ $stderr == *"$text"* ]]
}

# dumps LINE ARGUMENT...: `trapeze run --dump-config ARGUMENT...` has the line.
dumps() {
    local line=$1
    shift
    run "$TRAPEZE" run --dump-config "$@"
    echo "status $status; $output"
    [ "$status" -eq 0 ]
    grep -qxF -- "$line" <<<"$output"
}

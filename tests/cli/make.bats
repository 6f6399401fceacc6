#!/usr/bin/env bats
# The scripts around the build.

setup() {
    cd "$BATS_TEST_DIRNAME/../.."
}

@test "./dev help lists the verbs" {
    run ./dev help
    [ "$status" -eq 0 ]
    [[ $output == *sanitize* ]]
}

@test "./dev answers an unknown verb with status 2 and the verbs" {
    run ./dev nonsense
    [ "$status" -eq 2 ]
    [[ $output == *"unknown verb 'nonsense'"* ]]
    [[ $output == *"./dev [VERB]"* ]]
}

@test "tools/setup.sh has nothing to do where the tests run" {
    run tools/setup.sh
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

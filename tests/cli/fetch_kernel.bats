#!/usr/bin/env bats
bats_require_minimum_version 1.5.0
# tools/fetch-kernel.sh, as far as it goes without an archive.

setup() {
    fetch=$BATS_TEST_DIRNAME/../../tools/fetch-kernel.sh
    export TRAPEZE_CACHE=$BATS_TEST_TMPDIR/cache
}

@test "an unknown argument is answered with what is allowed" {
    run --separate-stderr "$fetch" realtime
    [ "$status" -eq 1 ]
    [ -z "$output" ]
    [[ $stderr == *"'realtime'"*"cloud|generic"* ]]
}

@test "a kernel in the cache is used without asking the archive" {
    mkdir -p "$TRAPEZE_CACHE/kernel-generic" "$BATS_TEST_TMPDIR/bin"
    touch "$TRAPEZE_CACHE/kernel-generic/vmlinuz"
    printf '#!/bin/sh\nexit 1\n' >"$BATS_TEST_TMPDIR/bin/apt-get"
    chmod +x "$BATS_TEST_TMPDIR/bin/apt-get"
    PATH=$BATS_TEST_TMPDIR/bin:$PATH run "$fetch" generic
    [ "$status" -eq 0 ]
    [ "$output" = "$TRAPEZE_CACHE/kernel-generic" ]
}

@test "a download that fails leaves nothing behind" {
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    for tool in apt-get apt-cache; do
        printf '#!/bin/sh\nexit 1\n' >"$BATS_TEST_TMPDIR/bin/$tool"
        chmod +x "$BATS_TEST_TMPDIR/bin/$tool"
    done
    PATH=$BATS_TEST_TMPDIR/bin:$PATH run --separate-stderr "$fetch" cloud
    [ "$status" -eq 1 ]
    [[ $stderr == *fetch-kernel:* ]]
    [ -z "$(find "$TRAPEZE_CACHE" -mindepth 1 ! -name '.*.lock')" ]
}

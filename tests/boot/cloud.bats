#!/usr/bin/env bats
# Debian's cloud kernel as it comes.

load boot

setup_file() {
    fetch cloud || return 0
}

@test "cloud kernel, 1 processor" {
    passes 1 ""
}

@test "cloud kernel, 2 processors" {
    passes 2 ""
}

@test "cloud kernel, 4 processors" {
    passes 4 ""
}

@test "cloud kernel, 32 processors" {
    passes 32 ""
}

@test "cloud kernel, 64 GiB that the host need not have" {
    boot 0 2 "quiet trapeze.check trapeze.cpus=2 trapeze.memory=65536" --memory 64G
    [[ $output == *"self-check: all passed"* ]]
}

@test "cloud kernel, every mitigation on" {
    passes 2 "pti=on spectre_v2=on spec_store_bypass_disable=on l1tf=full mds=full"
}

@test "cloud kernel, at its own address" {
    passes 1 nokaslr
}

@test "cloud kernel, x86-64-v2" {
    passes 1 "" --cpu x86-64-v2
}

@test "power-off" {
    boot 0 2 "quiet trapeze.do=poweroff"
    [[ $output == *"reboot: Power down"* ]]
}

@test "reboot: the machine starts again" {
    boot 0 2 "quiet trapeze.do=reboot trapeze.times=1"
    [[ $output == *"boot 1"*"boot 2"* ]]
}

@test "reboot with --no-reboot ends the machine" {
    boot 0 1 "quiet trapeze.do=reboot trapeze.times=1" --no-reboot
    [[ $output == *"boot 1"* ]]
    [[ $output != *"boot 2"* ]]
}

@test "a panic ends the machine with status 6" {
    boot 6 2 "trapeze.do=panic"
    [[ $output == *"Kernel panic - not syncing: sysrq triggered crash"* ]]
    [[ $output == *"trapeze: the guest panicked"* ]]
}

@test "the power button, pressed by SIGTERM, powers the guest off" {
    mkfifo "$BATS_TEST_TMPDIR/console"
    timeout --foreground -s KILL "${TRAPEZE_BOOT_LIMIT:-120}" "$TRAPEZE" run --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --append "console=ttyS0 quiet trapeze.do=wait" </dev/null >"$BATS_TEST_TMPDIR/console" &
    machine=$!
    while read -r line; do
        echo "$line"
        if [[ $line == *"waiting for the power button"* ]]; then
            kill -TERM "$machine" # timeout passes it on
        fi
    done <"$BATS_TEST_TMPDIR/console"
    wait "$machine"
}

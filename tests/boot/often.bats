#!/usr/bin/env bats
# What goes wrong once in fifty boots: address randomization places the kernel elsewhere each time. Takes some minutes,
# only with TRAPEZE_NIGHTLY=1.

load boot

setup_file() {
    nightly "takes minutes" && fetch cloud || return 0
}

# reboots CPUS: forty in one machine.
reboots() {
    TRAPEZE_BOOT_LIMIT=900 boot 0 "$1" "quiet trapeze.do=reboot trapeze.times=40"
    [[ $output == *"boot 41"* ]]
}

@test "forty reboots, 1 processor" {
    reboots 1
}

@test "forty reboots, 2 processors" {
    reboots 2
}

@test "forty reboots, 4 processors" {
    reboots 4
}

@test "sixty fresh machines" {
    for i in $(seq 60); do
        echo "machine $i"
        rm -f "$BATS_TEST_TMPDIR/disk"
        boot 0 $((1 << i % 3)) "quiet trapeze.do=poweroff"
    done
}

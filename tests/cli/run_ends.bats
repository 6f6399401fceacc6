#!/usr/bin/env bats
# How machines end, and what the exit status says.

load machine

finishes() { # finishes STATUS LETTER ARGUMENT...
    local want=$1
    shift
    machine "$@"
    run "${COMMAND[@]}" </dev/null
    echo "status $status; $output"
    [ "$status" -eq "$want" ]
}

@test "power-off: 0" {
    finishes 0 p
}

@test "a reset under --no-reboot: 0" {
    finishes 0 r --no-reboot
}

@test "a panic: 6" {
    finishes 6 c
    [[ $output == *"the guest panicked"* ]]
}

@test "a triple fault: 8" {
    finishes 8 t
    [[ $output == *"triple fault"* ]]
}

@test "debug-exit of 21: 43" {
    finishes 43 d
}

@test "a reset starts the guest again, and again" {
    start r
    booted
    booted
    kill -HUP "$VM"
    ends 10
}

@test "SIGTERM presses the power button, a second one stops the machine" {
    start i
    kill -TERM "$VM"
    taken
    kill -0 "$VM" # the guest does not listen
    kill -TERM "$VM"
    ends 10
}

@test "SIGHUP stops a busy machine with more processors than the host has" {
    start b -c 5
    kill -HUP "$VM"
    ends 10
}

@test "--report says which accelerator ran and when the first program did" {
    finishes 0 p --report
    [[ $output == *"trapeze: accelerator "* ]]
    [[ $output =~ "first user program after "[0-9]+\.[0-9]+" s" ]]
}

@test "what cannot be opened: 4, and its name" {
    refuses 4 "/nonexistent" timeout 30 "$TRAPEZE" run /nonexistent --net none
    refuses 4 "/nonexistent" timeout 30 "$TRAPEZE" run "$ENDS" -i /nonexistent --net none
    refuses 4 "/nonexistent" timeout 30 "$TRAPEZE" run "$ENDS" --disk /nonexistent --net none
    refuses 4 "/nonexistent" timeout 30 "$TRAPEZE" run "$ENDS" --serial file:/nonexistent/file --net none
    refuses 4 "/nonexistent" timeout 30 "$TRAPEZE" run "$ENDS" --debug-console 0xe9,file=/nonexistent/file --net none
    refuses 4 "--net" timeout 30 "$TRAPEZE" run "$ENDS" --net tap,ifname=nonexistent0
    refuses 4 "/dev/null" timeout 30 "$TRAPEZE" run /dev/null --net none
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    refuses 4 "is not a regular file" timeout -k 5 30 "$TRAPEZE" run "$BATS_TEST_TMPDIR/pipe" --net none
    refuses 4 "is not a regular file" timeout -k 5 30 "$TRAPEZE" run "$ENDS" -i "$BATS_TEST_TMPDIR/pipe" --net none
    refuses 4 "pipe" timeout -k 5 30 "$TRAPEZE" run "$ENDS" --disk "$BATS_TEST_TMPDIR/pipe" --net none
}

@test "an accelerator that does not work here says why" {
    if "$TRAPEZE" accel | grep -q '^kvm  *yes'; then
        skip "kvm works here"
    fi
    refuses 4 "kvm does not work here" timeout 30 "$TRAPEZE" run "$ENDS" --accel kvm --net none
}

@test "--trace shows what a machine does, by patterns; a wrong name is told" {
    finishes 0 p --trace 'vm.*,board.boot,device.acpi_sleep'
    [[ $output == *" vm.go: 1 processors"* ]]
    [[ $output == *" board.boot: "*" enters at 0x"* ]]
    [[ $output == *" device.acpi_sleep: PM1 control 0x"* ]]
    [[ $output == *" vm.end: "* ]]
    [[ $output != *" mem.map: "* ]]
    finishes 0 p --trace 'mem.*'
    [[ $output == *" mem.map: serial at 0x3f8+0x8"* ]]
    [[ $output == *" mem.write: "* ]]
    finishes 2 p --trace 'vm.go,vm.nosuch'
    [[ $output == *"--trace help"*"no trace point is called 'vm.nosuch'"* ]]
    run "$TRAPEZE" run --trace help
    [ "$status" -eq 0 ]
    [[ $output == *"accel.bt_translate"*"device.virtio_kick"*"mem.lost_read"* ]]
}

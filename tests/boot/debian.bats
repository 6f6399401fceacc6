#!/usr/bin/env bats
# A Debian user space as mmdebstrap makes it: systemd starts it, apt gets packages through our NAT, gcc and Python work.
# Takes ten minutes and 300 MB from the archive: only with TRAPEZE_NIGHTLY=1. $TRAPEZE_DEBIAN names an image made by
# debian.sh before.

load boot

setup_file() {
    nightly "takes ten minutes" && fetch cloud && debian_image || return 0
}

# works CPUS
works() {
    cp --sparse=always "$IMAGE" "$BATS_TEST_TMPDIR/debian.img"
    run timeout -s HUP -k 5 "${TRAPEZE_BOOT_LIMIT:-1500}" "$TRAPEZE" run --accel "${TRAPEZE_ACCEL:-auto}" \
        --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" --append "console=ttyS0 quiet panic=-1 trapeze.root=/dev/vda" \
        --memory 2G --cpus "$1" --disk "$BATS_TEST_TMPDIR/debian.img" --no-reboot </dev/null
    echo "status $status"
    echo "$output" | tail -n 120
    [ "$status" -eq 0 ]
    [[ $output == *"processors: $1;"* ]]
    [[ $output == *"units that failed: 0"* ]]
    [[ $output == *"debian-check: all passed"* ]]
}

@test "Debian with systemd, apt, gcc and Python, 1 processor" {
    works 1
}

@test "Debian with systemd, apt, gcc and Python, 2 processors" {
    works 2
}

#!/usr/bin/env bats
# --systemd-cgroup with a real systemd, the system's and a user's, and AppArmor: in a Debian guest of our own machine.
# tests/oci/systemd-check is what runs inside. Takes two minutes and 60 MB from the archive: only with TRAPEZE_NIGHTLY=1.
load ../boot/boot

setup_file() {
    nightly "makes a Debian" && fetch cloud || return 0
    [ "$(id -u)" = 0 ] || without "only root can make a root file system" || return 0
    command -v mmdebstrap >/dev/null || without "mmdebstrap is missing" || return 0
    IMAGE=$BATS_FILE_TMPDIR/debian.img
    export IMAGE
    "$BATS_TEST_DIRNAME/systemd.sh" "$KERNEL" "${TRAPEZE_OCI:-$TRAPEZE_BUILD/src/container/trapeze-oci}" "$IMAGE" \
        >"$BATS_FILE_TMPDIR/made" 2>&1 ||
        without "Debian cannot be fetched: $(tail -n 1 "$BATS_FILE_TMPDIR/made")" || return 0
}

@test "systemd driver for root and for a user, AppArmor: in a Debian guest" {
    run timeout -s HUP -k 5 "${TRAPEZE_BOOT_LIMIT:-600}" "$TRAPEZE" run --accel "${TRAPEZE_ACCEL:-auto}" \
        --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" --append "console=ttyS0 quiet panic=-1 trapeze.root=/dev/vda" \
        --memory 1G --cpus 2 --disk "$IMAGE" --no-reboot </dev/null
    echo "status $status"
    echo "$output"
    [[ $output == *" passed, 0 failed"* ]]
    [ "$status" -eq 0 ]
}

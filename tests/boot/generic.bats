#!/usr/bin/env bats
# Debian's generic kernel as it comes: more drivers to probe, most of them for hardware that is not there.

load boot

setup_file() {
    fetch generic || return 0
}

@test "generic kernel, 1 processor" {
    passes 1 ""
}

@test "generic kernel: a clone reseeds its random numbers" {
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
    timeout 60 "$TRAPEZE" run -d --name web --accel "${TRAPEZE_ACCEL:-auto}" --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --append "console=ttyS0 trapeze.do=idle trapeze.seconds=600" --memory 256M
    timeout 120 "$TRAPEZE" logs -f web | grep -qm 1 "idle begins"
    timeout 60 "$TRAPEZE" snapshot create web one
    "$TRAPEZE" kill web
    timeout 60 "$TRAPEZE" snapshot clone --name-prefix c one
    timeout 120 "$TRAPEZE" logs -f c-1 | grep -qm 1 "crng reseeded due to virtual machine fork"
    "$TRAPEZE" kill c-1
}

@test "generic kernel, 2 processors" {
    passes 2 ""
}

@test "generic kernel, 4 processors, every mitigation on" {
    passes 4 "pti=on spectre_v2=on"
}

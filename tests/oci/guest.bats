#!/usr/bin/env bats
# cgroup v2 and id-mapped mounts on a kernel that has them all: Debian's cloud kernel in a guest of our own machine.
# The host may have neither. tests/oci/guest.sh is what runs inside.
load ../boot/boot

setup_file() {
    { command -v jq && command -v mkfs.ext4 && command -v cpio; } >/dev/null ||
        without "jq, e2fsprogs or cpio is not installed" || return 0
    fetch cloud || return 0
}

# case NAME FILTER: a configuration for the guest.
case_of() { jq "$base | $2" "$dir/oci/bundle/config.json" >"$dir/oci/cases/$1.json"; }

make_cases() {
    local base='.process.terminal = false | .root.readonly = false | .process.args = ["sleep", "1000"]'
    case_of limits '.linux.resources += {"cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 10000, "cpus": "0", "mems": "0"},
        "memory": {"limit": 33554432, "reservation": 16777216, "swap": 50331648}, "pids": {"limit": 17},
        "blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}], "throttleWriteBpsDevice": [{"major": 254, "minor": 0, "rate": 2097152}],
            "throttleReadIOPSDevice": [{"major": 254, "minor": 0, "rate": 100}], "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 200}]},
        "unified": {"memory.high": "30000000"}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]} | .linux.namespaces |= map(select(.type != "cgroup"))'
    case_of idle '.linux.resources += {"cpu": {"idle": 1}}'
    case_of freezer '.process.args = ["sh", "-c", "while :; do printf x >>/tmp/count; usleep 10000; done"]'
    local mknod='.process.capabilities |= map_values(. + ["CAP_MKNOD"])'
    case_of devices "$mknod"
    case_of devices-read "$mknod"' | .linux.resources.devices += [{"allow": true, "type": "b", "major": 254, "minor": 0, "access": "r"}]'
    case_of memory '.linux.resources += {"memory": {"limit": 8388608, "swap": 8388608}} | .process.args = ["sh", "-c", "x=a; while :; do x=$x$x; done"]'
    case_of small '.linux.resources += {"memory": {"limit": 524288, "swap": 524288}} | .process.args = ["/bin/true"]'
    case_of pids '.linux.resources += {"pids": {"limit": 4}}'
    local cgroup='.mounts += [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", $rw]}]
        | .linux.namespaces = (.linux.namespaces + [{"type": "cgroup"}] | unique_by(.type)) | .mounts |= (reverse | unique_by(.destination) | sort_by(.destination | length))'
    case_of cgroupns "(\"ro\" as \$rw | $cgroup)"
    local user='.linux.namespaces += [{"type": "user"}] | .linux.uidMappings = [{"containerID": 0, "hostID": 100000, "size": 65536}] | .linux.gidMappings = .linux.uidMappings'
    case_of owner "(\"rw\" as \$rw | $cgroup) | $user"' | .linux.resources += {"pids": {"limit": 50}}'
    local map='"uidMappings": [{"containerID": 0, "hostID": $to, "size": 65536}], "gidMappings": [{"containerID": 0, "hostID": $to, "size": 65536}]'
    case_of idmap '(1000 as $to | .mounts += [{"destination": "/tmp", "type": "bind", "source": "/mnt/disk/src", "options": ["bind"], '"$map"'}]) | .process.args = ["stat", "-c", "%u:%g", "/tmp/f"]'
    case_of idmap-user "$user"' | (100000 as $to | .mounts += [{"destination": "/tmp", "type": "bind", "source": "/mnt/disk/src", "options": ["bind"], '"$map"'}]) | .process.args = ["stat", "-c", "%u:%g", "/tmp/f"]'
    "$OCI" spec --rootless --bundle "$BATS_TEST_TMPDIR"
    jq '.process.terminal = false | .process.args = ["sleep", "1000"] | .linux.resources = {"pids": {"limit": 20}} | .linux.cgroupsPath = "/user/x"
        | .linux.uidMappings = [{"containerID": 0, "hostID": 1000, "size": 1}] | .linux.gidMappings = .linux.uidMappings' \
        "$BATS_TEST_TMPDIR/config.json" >"$dir/oci/cases/rootless.json"
    case_of true '.process.args = ["/bin/true"]'
}

@test "cgroup v2, id-mapped mounts, delegation: in a guest of our own machine" {
    OCI=${TRAPEZE_OCI:-$TRAPEZE_BUILD/src/container/trapeze-oci}
    dir=$BATS_TEST_TMPDIR/overlay
    mkdir -p "$dir"/oci/cases "$dir"/oci/bundle/rootfs/{bin,proc,sys,dev,tmp,etc,root}
    chmod 755 "$dir" "$dir/oci" "$dir/oci/bundle"
    cp "$OCI" "$BATS_TEST_DIRNAME/guest.sh" "$dir/oci/"
    chmod 755 "$dir"/oci/*
    cp /bin/busybox "$dir/oci/bundle/rootfs/bin/"
    for applet in sh sleep cat mknod head echo mkdir true test stat usleep printf wc seq; do ln -s busybox "$dir/oci/bundle/rootfs/bin/$applet"; done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/oci/bundle/rootfs/etc/passwd"
    chmod 1777 "$dir/oci/bundle/rootfs/tmp"
    "$OCI" spec --bundle "$dir/oci/bundle"
    make_cases
    # A second archive behind the first adds its files to the root file system.
    { cat "$INITRD"; (cd "$dir" && find . | cpio --quiet -o -H newc -R 0:0); } >"$BATS_TEST_TMPDIR/initrd"
    truncate -s 32M "$BATS_TEST_TMPDIR/disk"
    mkfs.ext4 -qF "$BATS_TEST_TMPDIR/disk"
    run timeout -s HUP -k 5 "${TRAPEZE_BOOT_LIMIT:-240}" "$TRAPEZE" run --accel "${TRAPEZE_ACCEL:-auto}" --kernel "$KERNEL/vmlinuz" \
        --initrd "$BATS_TEST_TMPDIR/initrd" --append "console=ttyS0 quiet panic=-1 rdinit=/oci/guest.sh cgroup_no_v1=all" --memory 768M --cpus 2 \
        --disk "$BATS_TEST_TMPDIR/disk" --debug-exit 0xf4 </dev/null
    echo "status $status"
    echo "$output"
    [[ $output == *" passed, 0 failed"* ]]
    [ "$status" -eq 0 ]
}

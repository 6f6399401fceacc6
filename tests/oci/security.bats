# One case per lesson of others (CVE numbers where there are any) and per hostile configuration.
load oci.bash

setup() { oci_setup; }
teardown() { oci_teardown; }

@test "our executable is read-only from inside (CVE-2019-5736)" {
    # The program is "#!/proc/self/exe": the kernel runs the runtime's own binary inside. Its arguments make
    # it fail at once; whoever opens it through /proc meets a read-only file.
    printf '#!/proc/self/exe\n' >"$BUNDLE/rootfs/bin/evil"
    chmod +x "$BUNDLE/rootfs/bin/evil"
    before=$(sha256sum <"$OCI")
    args /bin/evil
    run oci run -b "$BUNDLE" "$ID"
    [ "$status" -ne 0 ]
    start_sleeper
    cat >"$BUNDLE/rootfs/bin/wait-and-write" <<'END'
#!/bin/sh
i=0
while [ $i -lt 4000 ]; do
    for exe in /proc/[0-9]*/exe; do
        case $(readlink $exe 2>/dev/null) in
        */trapeze-oci) { : 2>/dev/null >>$exe; } 2>/dev/null && echo WRITABLE; echo seen ;;
        esac
    done
    i=$((i + 1))
done
END
    chmod +x "$BUNDLE/rootfs/bin/wait-and-write"
    oci exec "$ID" timeout 3 /bin/wait-and-write >"$WORK/out" 2>&1 3>&- &
    for i in $(seq 15); do oci exec "$ID" /bin/evil >/dev/null 2>&1 || true; done
    kill %1 2>/dev/null || true
    ! grep -q WRITABLE "$WORK/out"
    [ "$before" = "$(sha256sum <"$OCI")" ]
}

@test "a working directory outside the root is refused (CVE-2024-21626)" {
    for fd in 3 4 5 6 7 8 9 10; do
        config '.process.cwd = $c' --arg c "/proc/self/fd/$fd"
        args sh -c 'pwd; ls ../../../..'
        run oci run -b "$BUNDLE" "$ID"
        echo "$output"
        [ "$status" -ne 0 ]
    done
    config '.process.cwd = "/"'
    start_sleeper
    for fd in 3 4 5 6 7 8; do
        run oci exec --cwd "/proc/self/fd/$fd" "$ID" pwd
        [ "$status" -ne 0 ]
    done
}

@test "nothing but a procfs goes on /proc, and nothing below it (CVE-2019-16884, CVE-2019-19921)" {
    args true
    config '.mounts += [{"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}]'
    runs 1 'cannot be mounted on /proc because it is not of type proc'
    config '.mounts[-1].destination = "/proc/sys/kernel"'
    runs 1 'because it is inside /proc'
    config '.mounts[-1] = {"destination": "/proc/self/attr", "type": "bind", "source": "/tmp", "options": ["bind"]}'
    runs 1 'because it is inside /proc'
    ln -s /proc "$BUNDLE/rootfs/innocent"
    config '.mounts[-1].destination = "/innocent/1"'
    runs 1 'because it is inside /proc'
    echo fake >"$WORK/cpuinfo"
    config '.mounts[-1] = {"destination": "/proc/cpuinfo", "type": "bind", "source": $s, "options": ["bind"]}' --arg s "$WORK/cpuinfo"
    args cat /proc/cpuinfo
    runs 0 fake
}

@test "/proc and /sys must be ordinary directories (CVE-2023-27561)" {
    rmdir "$BUNDLE/rootfs/proc"
    ln -s /tmp "$BUNDLE/rootfs/proc"
    args true
    runs 1 'must be mounted on ordinary directory'
}

@test "/dev must not be a link (CVE-2026-41579)" {
    rmdir "$BUNDLE/rootfs/dev"
    ln -s /tmp "$BUNDLE/rootfs/dev"
    args true
    config 'del(.mounts[] | select(.destination | startswith("/dev")))'
    config '.root.readonly = false'
    runs 1 '/dev: Too many levels of symbolic links'
    [ -z "$(ls -A "$BUNDLE/rootfs/tmp")" ]
}

@test "a mount through links stays inside the root (CVE-2021-30465)" {
    mkdir "$WORK/outside"
    ln -s "../../../../../../../../../..$WORK/outside" "$BUNDLE/rootfs/relative"
    ln -s "$WORK/outside" "$BUNDLE/rootfs/absolute"
    for link in relative absolute; do
        config '.root.readonly = false | .mounts += [{"destination": $d, "type": "tmpfs", "source": "tmpfs"}]' --arg d "/$link/made"
        args sh -c "mount | grep -c '$WORK/outside/made'"
        runs 0 1
        config 'del(.mounts[-1])'
    done
    [ -z "$(ls -A "$WORK/outside")" ]
    [ -d "$BUNDLE/rootfs$WORK/outside/made" ]
}

@test "destinations with dots stay inside" {
    config '.root.readonly = false | .mounts += [{"destination": "/../../../up", "type": "tmpfs", "source": "tmpfs"}]'
    args sh -c 'mount | grep -c " /up "'
    runs 0 1
    [ ! -e /up ]
}

@test "masks are the host's null device whatever the image calls so (CVE-2025-31133)" {
    args sh -c 'wc -c </proc/keys; echo x 2>/dev/null >/proc/sys/kernel/core_pattern || echo closed'
    config 'del(.mounts[] | select(.destination == "/dev")) | .root.readonly = false
        | .mounts |= map(select(.destination | startswith("/dev") | not))'
    ln -s /proc/sys/kernel/core_pattern "$BUNDLE/rootfs/dev/null"
    before=$(cat /proc/sys/kernel/core_pattern)
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "$before" = "$(cat /proc/sys/kernel/core_pattern)" ]
    # The image's link takes the place of the device, which is refused.
    [ "$status" -ne 0 ]
}

@test "masked and read-only paths do what they say" {
    args sh -c 'ls /proc/acpi /sys/firmware | wc -w; wc -c </proc/timer_list; echo x 2>/dev/null >/proc/sys/vm/swappiness || echo ro'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *$'\n0\nro' ]]
}

@test "a link in place of a masked path below /proc is refused" {
    args true
    config '.linux.maskedPaths = ["/proc/self/environ"]'
    runs 1 'mask /proc/self/environ'
}

@test "the console is a terminal of the container's own devpts (CVE-2025-52565)" {
    config '.process.terminal = true | .mounts |= map(select(.destination | startswith("/dev") | not)) | .root.readonly = false'
    mkdir -p "$BUNDLE/rootfs/dev/pts"
    ln -s /proc/sysrq-trigger "$BUNDLE/rootfs/dev/pts/ptmx"
    args true
    fails 'ptmx' script -qec "'$OCI' --root '$ROOT' run -b '$BUNDLE' $ID" /dev/null
    rm "$BUNDLE/rootfs/dev/pts/ptmx"
    touch "$BUNDLE/rootfs/dev/pts/ptmx"
    fails 'not a devpts multiplexer' script -qec "'$OCI' --root '$ROOT' run -b '$BUNDLE' $ID" /dev/null
}

@test "init cannot be traced or read from inside before its program runs" {
    oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null
    pid=$(oci state "$ID" | jq .pid)
    # Not dumpable: its files in /proc belong to root, which shows in a user's view of its memory map.
    run su -s /bin/sh nobody -c "cat /proc/$pid/environ"
    [ "$status" -ne 0 ]
    [ "$(stat -c %u "/proc/$pid/environ")" = 0 ]
}

@test "init holds no descriptor of the host when its program runs" {
    args sh -c 'ls -l /proc/self/fd'
    run oci run -b "$BUNDLE" "$ID" </dev/null
    [[ $output != *"$ROOT"* && $output != *'/proc ' && $output != *socket* ]]
}

@test "namespace paths must be namespaces, of their kind, and given once" {
    args true
    config '.linux.namespaces |= map(if .type == "network" then .path = "/etc/passwd" else . end)'
    runs 1 '/etc/passwd is not a network namespace'
    config '.linux.namespaces |= map(if .type == "network" then .path = "/proc/self/ns/uts" else . end)'
    runs 1 'is not a network namespace'
    config '.linux.namespaces |= map(if .type == "network" then .path = "relative" else . end)'
    runs 1 'is not absolute'
    config '.linux.namespaces |= map(del(.path)) | .linux.namespaces += [{"type": "pid"}]'
    runs 1 'duplicated ns pid'
    config '.linux.namespaces[-1].type = "unheard-of"'
    runs 1 'invalid namespace type unheard-of'
}

@test "sysctls outside a namespace are refused" {
    args true
    for key in kernel.panic vm.swappiness ../../etc/passwd net.. kernel.hostname; do
        config '.linux.sysctl = {($k): "1"}' --arg k "$key"
        runs 1 'sysctl'
    done
    config '.linux.sysctl = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}'
    args cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
    runs 0 $'1\n4096'
    config 'del(.linux.namespaces[] | select(.type == "ipc"))'
    runs 1 'is not allowed in the hosts ipc namespace'
}

@test "overlapping, empty and missing id maps" {
    args true
    config '.linux.namespaces += [{"type": "user"}]'
    runs 1 'needs uidMappings and gidMappings'
    config '.linux.uidMappings = [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 5, "hostID": 3000, "size": 10}]
        | .linux.gidMappings = [{"containerID": 0, "hostID": 1000, "size": 10}]'
    runs 1 'overlap'
    config '.linux.uidMappings = [{"containerID": 0, "hostID": 4294967295, "size": 4294967295}]'
    runs 1 'too large'
    config '.linux.uidMappings = [{"containerID": 0, "hostID": 1, "size": 0}]'
    runs 1 'empty'
    config 'del(.linux.namespaces[-1]) | .linux.uidMappings[0].size = 1'
    runs 1 "USER namespace isn't enabled"
}

@test "garbage in rlimits, seccomp, hooks, capabilities" {
    args true
    config '.process.rlimits = [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]'
    runs 1 'invalid rlimit type RLIMIT_BOGUS'
    config '.process.rlimits = [{"type": "RLIMIT_CORE", "soft": -1, "hard": 1}]'
    runs 1 'out of range'
    config '.process.rlimits = [] | .linux.seccomp = {"defaultAction": "SCMP_ACT_SING"}'
    runs 1 'SCMP_ACT_SING is not a valid action'
    config '.linux.seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}'
    runs 1 'argument index 9'
    config 'del(.linux.seccomp) | .hooks = {"prestart": [{"path": "relative"}]}'
    runs 1 'absolute path'
    config 'del(.hooks) | .process.capabilities.bounding += ["CAP_OF_TOMORROW"]'
    runs 0 ''
}

@test "a hook that hangs is killed at its timeout, and the container undone" {
    args true
    config '.hooks = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]}'
    runs 1 'ran past timeout'
    [ -z "$(oci list -q)" ]
}

@test "cgroupsPath with dots stays below its hierarchy" {
    config '.linux.cgroupsPath = $p' --arg p "/../../../$ID-dots"
    start_sleeper
    grep -q "/$ID-dots" "/proc/$(oci state "$ID" | jq .pid)/cgroup"
    [ -z "$(find /sys/fs -maxdepth 1 -name '*dots*')" ]
}

@test "deep, huge and odd JSON" {
    printf '{"a":%s1%s}' "$(head -c 100000 /dev/zero | tr '\0' '[')" "$(head -c 100000 /dev/zero | tr '\0' ']')" >"$BUNDLE/config.json"
    runs 1 'invalid JSON'
    printf '{"ociVersion":"1.0.0","root":{"path":"root\\u0000fs"}}' >"$BUNDLE/config.json"
    runs 1 'NUL'
    printf '{"ociVersion":"1.0.0","process":{"user":{"uid":1e400}}}' >"$BUNDLE/config.json"
    runs 1 ''
    head -c 40000000 /dev/zero >"$BUNDLE/config.json"
    runs 1 'File too large'
}

@test "no file of the host becomes writable by a read-only bind, recursively" {
    mkdir -p "$WORK/src/sub"
    mount -t tmpfs none "$WORK/src/sub"
    config '.mounts += [{"destination": "/tmp", "type": "bind", "source": $s, "options": ["rbind", "rro"]}]' --arg s "$WORK/src"
    args sh -c 'touch /tmp/a; touch /tmp/sub/b'
    run oci run -b "$BUNDLE" "$ID"
    umount "$WORK/src/sub"
    [ "$status" -ne 0 ]
    [ "$(grep -c 'Read-only file system' <<<"$output")" = 2 ]
}

@test "what is mounted in the state directory is not ours to delete" {
    mkdir "$WORK/precious"
    echo data >"$WORK/precious/file"
    start_sleeper
    mkdir "$ROOT/$ID/found"
    mount --bind "$WORK/precious" "$ROOT/$ID/found" # the same file system: its device number tells nothing
    fails 'something is mounted there' oci delete --force "$ID"
    [ "$(cat "$WORK/precious/file")" = data ]
    umount "$ROOT/$ID/found"
    oci delete "$ID"
}

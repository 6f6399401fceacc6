# Failure at every point: each system call of `create` fails in turn, or its caller is killed there, and
# many containers come and go at once. Afterwards there is no state, cgroup, mount or process.
#
# By default a sample is taken, so that the tier stays quick; OCI_FAULTS=all takes every call, and
# OCI_CONTAINERS=1000 as many containers as one likes.
load oci.bash

setup() {
    oci_setup
    command -v strace >/dev/null || skip "strace is not installed"
    config '.linux.cgroupsPath = $p' --arg p "/$ID"
    args sleep 1000
    STRIDE=41
    [ "${OCI_FAULTS:-}" != all ] || STRIDE=1
}
teardown() { oci_teardown; }

# close is left out: when strace fails it the descriptor stays open, which Linux never does.
# count_calls OPTION...: the calls of one command under strace with these options, as "NAME COUNT" lines:
# the highest count of any one process.
count_calls() {
    strace -qq -o "$WORK/trace" "$@" </dev/null >/dev/null 2>&1
    oci delete --force "$ID"
    calls_of "$WORK/trace"
}

calls_of() {
    sed -E 's/^([0-9]+) +/\1 /; t; s/^/0 /' "$1" | awk '{ sub(/\(.*/, "", $2); if ($2 ~ /^[a-z_0-9]+$/) n[$1 " " $2]++ }
         END { for (k in n) { split(k, p, " "); if (n[k] > m[p[2]]) m[p[2]] = n[k] }; for (c in m) print c, m[c] }' |
        grep -vE '^(close|exit|exit_group|execve|execveat|brk|mmap|munmap|mprotect|arch_prctl|set_tid_address|set_robust_list|rseq|prlimit64|readlink|getrandom|rt_sigreturn|restart_syscall|vfork|fork) ' | sort
}

# What a failure must not leave behind.
nothing_left() {
    [ -z "$(ls -A "$ROOT" 2>/dev/null)" ] || { echo "state: $(ls -RA "$ROOT")"; return 1; }
    [ -z "$(find /sys/fs/cgroup -type d -name "$ID*")" ] || { echo "cgroups: $(find /sys/fs/cgroup -name "$ID*")"; return 1; }
    ! pgrep -f "create -b $BUNDLE" || { echo "a process is left"; return 1; }
}

# each_call INJECTION STRICT COMMAND...: does this at every sampled call of the command. STRICT (yes or no): a
# failure must leave nothing; else `delete --force` may be needed, as after a kill or a failing removal.
each_call() {
    local injection=$1 strict=$2 i=0 status calls
    shift 2
    calls=$(count_calls "$@")
    while read -r name count; do
        for n in $(seq "$count"); do
            i=$((i + 1))
            [ $((i % STRIDE)) = 0 ] || continue
            status=0
            timeout 60 strace -qq -o /dev/null -e trace="$name" -e inject="$name:$injection:when=$n" \
                "$@" </dev/null >"$WORK/out" 2>&1 3>&- || status=$?
            if [ "$status" != 0 ] && [ "$strict" = yes ]; then
                nothing_left || { echo "$name $n: status $status: $(cat "$WORK/out")"; return 1; }
            else
                "$OCI" --root "$ROOT" delete --force "$ID" >>"$WORK/out" 2>&1 || true
                nothing_left || { echo "$name $n, deleted: status $status: $(cat "$WORK/out")"; return 1; }
            fi
        done
    done <<<"$calls"
}

# Only the runtime is traced here: strace would wait for an init that it traces too.
@test "every call of the runtime in create fails with EIO" {
    each_call error=EIO yes "$OCI" --root "$ROOT" create -b "$BUNDLE" "$ID"
}

@test "every call of the runtime in create fails with ENOMEM" {
    STRIDE=$((STRIDE == 1 ? 1 : 67))
    each_call error=ENOMEM yes "$OCI" --root "$ROOT" create -b "$BUNDLE" "$ID"
}

@test "every call of init fails with EIO" {
    args true
    each_call error=EIO no -f "$OCI" --root "$ROOT" run -b "$BUNDLE" "$ID"
}

@test "every call of exec fails with EIO: it ends, and the container goes on" {
    local i=0 name count
    args sleep 1000
    oci run -d -b "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
    strace -f -qq -o "$WORK/trace" "$OCI" --root "$ROOT" exec "$ID" /bin/true
    while read -r name count; do
        for n in $(seq "$count"); do
            i=$((i + 1))
            [ $((i % STRIDE)) = 0 ] || continue
            timeout 60 strace -f -qq -o /dev/null -e trace="$name" -e inject="$name:error=EIO:when=$n" \
                "$OCI" --root "$ROOT" exec "$ID" /bin/true </dev/null >"$WORK/out" 2>&1 3>&- || [ $? != 124 ] ||
                { echo "$name $n: hangs: $(cat "$WORK/out")"; return 1; }
        done
    done < <(calls_of "$WORK/trace" | grep -v '^wait4 ') # failing for ever where the kernel never does
    [ "$(oci exec "$ID" echo still here)" = 'still here' ]
}

@test "the runtime is killed at every call of create" {
    each_call signal=KILL no "$OCI" --root "$ROOT" create -b "$BUNDLE" "$ID"
}

@test "the runtime or init is killed at every call of run" {
    STRIDE=$((STRIDE == 1 ? 1 : 67))
    args true
    each_call signal=KILL no -f "$OCI" --root "$ROOT" run -b "$BUNDLE" "$ID"
}

@test "many containers at once, some of them killed half way" {
    local total=${OCI_CONTAINERS:-60} batch=12 i=0
    args sh -c 'sleep 0.01'
    while [ $i -lt "$total" ]; do
        for _ in $(seq $batch); do
            i=$((i + 1))
            (
                "$OCI" --root "$ROOT" run -b "$BUNDLE" "$ID-$i" </dev/null >/dev/null 2>&1 3>&- &
                run=$! # a process substitution is the latest $! afterwards
                # Every third is killed after a time that differs from one to the next.
                if [ $((i % 3)) = 0 ]; then
                    read -rt "0.00$((i % 9))" <> <(:) || true
                    kill -9 "$run" 2>/dev/null || true
                fi
                wait "$run" 2>/dev/null || true
                "$OCI" --root "$ROOT" delete --force "$ID-$i" 3>&- || true
            ) &
        done
        wait
    done
    nothing_left
}

@test "two verbs on one container at once: one wins, the other is told" {
    for round in 1 2 3 4 5; do
        for i in 1 2 3 4; do
            (oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null 2>"$WORK/err$i" 3>&- && echo won >"$WORK/won$i") &
        done
        wait
        [ "$(cat "$WORK"/won* | wc -l)" = 1 ]
        grep -h . "$WORK"/err* | grep -vc 'already exists\|being changed' && false
        rm -f "$WORK"/won* "$WORK"/err*
        for i in 1 2 3 4; do oci delete --force "$ID" 3>&- & done
        wait
        nothing_left
    done
}

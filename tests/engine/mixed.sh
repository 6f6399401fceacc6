#!/bin/bash
# Mixed use for as long as one likes: workers pick at random from what people do with Docker, containerd and
# Podman, all with trapeze-oci, all at once. Every step says what it expects.
#
# usage: tests/engine/mixed.sh [--install] [--minutes 5] [--workers 3] [--pause 0] [--image TAR] [--seed N]
#        --image: a root file system of a real distribution, best with servers that people run:
#                 mmdebstrap --variant=minbase --include=nginx-light,redis-server,postgresql,python3 bookworm x.tar
#        --pause: seconds between a worker's steps
#
# Prints a line per failure with the command and its output, then how often each step ran. At the end nothing may
# be left: no container process, cgroup, state or mount. Exit status 0: all went well; 77: packages are missing.
. "$(dirname "$0")/engine.sh"
MINUTES=5 WORKERS=3 PAUSE=0 IMAGE='' SEED=$$
while [ $# -gt 0 ]; do
    case $1 in
    --install) INSTALL=yes ;;
    --minutes) MINUTES=$2; shift ;;
    --workers) WORKERS=$2; shift ;;
    --pause) PAUSE=$2; shift ;;
    --image) IMAGE=$(realpath "$2"); shift ;;
    --seed) SEED=$2; shift ;;
    *) sed -n '2,11s/^# \?//p' "$0"; exit 2 ;;
    esac
    shift
done
begin "${INSTALL:+--install}"
needs docker.io containerd podman conmon busybox-static jq

D=("$(command -v docker)" -H "unix://$WORK/d/sock")
C=("$(command -v ctr)" -a "$WORK/d/ctr/sock" -n test)
P=("$(command -v podman)" --root "$WORK/p/root" --runroot "$WORK/p/run" --tmpdir "$WORK/p/tmp" --cgroup-manager cgroupfs
    --events-backend file --runtime "$OCI")
CTR_IMAGE=test/bb:1

# --- what a step may use -------------------------------------------------------------------------------------------

d() { "${D[@]}" "$@"; }
c() { "${C[@]}" "$@"; }
p() { "${P[@]}" "$@"; }
one_of() { shift $((RANDOM % $#)); echo "$1"; }
image() { if [ -n "$IMAGE" ]; then one_of bb bb deb; else echo bb; fi; }
die() { echo "step failed: $*"; exit 1; }
is() { local want=$1 got; shift; got=$("$@") || die "status $? of $*: $got"; [ "$got" = "$want" ] || die "$*: '$got' instead of '$want'"; }
has() { local want=$1 got; shift; got=$("$@" 2>&1); [[ $got == *"$want"* ]] || die "$*: '$got' lacks '$want'"; }
status_is() { local want=$1 rc=0 out; shift; out=$("$@" 2>&1) || rc=$?; [ $rc = "$want" ] || die "$*: status $rc instead of $want: $out"; }
soon() { local i; for i in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; die "never: $*"; }

# --- Docker ----------------------------------------------------------------------------------------------------------

docker_hello() { is hello d run --rm --net none "$(image)" echo hello; }
docker_status() { local n=$((RANDOM % 120)); status_is $n d run --rm --net none "$(image)" sh -c "exit $n"; }
docker_stdin() { is 'sent in' sh -c "echo sent in | ${D[*]} run --rm -i --net none $(image) cat"; }
docker_big_output() { is 1000000 sh -c "${D[*]} run --rm --net none bb head -c 1000000 /dev/zero | wc -c"; }
docker_life() {
    d run -d --name "$N" --net none "$(image)" sleep 10000 >/dev/null || die run
    is hello d exec "$N" echo hello
    status_is 7 d exec "$N" sh -c 'exit 7'
    has uid=1234 d exec -u 1234 "$N" id
    for _ in 1 2 3; do d pause "$N" && d unpause "$N" || die pause; done
    d update --memory 100m --memory-swap 200m --pids-limit 50 --cpu-shares 512 "$N" || die update
    has sleep d top "$N"
    d stats --no-stream "$N" || die stats
    echo "content of $N" >"$W/file" && d cp "$W/file" "$N:/tmp/in" || die cp
    is "content of $N" d exec "$N" cat /tmp/in
    has /tmp/in d diff "$N"
    d restart -t 0 "$N" || die restart
    is "content of $N" d exec "$N" cat /tmp/in
    d stop -t "$(one_of 0 1)" "$N" && d start "$N" && d kill -s "$(one_of KILL 9)" "$N" || die 'stop, start, kill'
    d rm -f "$N" || die rm
}
docker_signal() {
    d run -d --name "$N" --net none bb sh -c 'trap "echo got it; exit 3" TERM; echo up; while :; do sleep 0.1; done' >/dev/null || die run
    soon sh -c "${D[*]} logs $N | grep up"
    is 3 sh -c "${D[*]} stop -t 30 $N >/dev/null; ${D[*]} wait $N"
    has 'got it' d logs "$N"
    d rm "$N" || die rm
}
docker_execs() {
    local pids=() i
    d run -d --name "$N" --net none "$(image)" sleep 10000 >/dev/null || die run
    for i in 1 2 3 4 5 6; do is "$i" d exec "$N" echo "$i" & pids+=($!); done
    for i in "${pids[@]}"; do wait "$i" || die 'an exec'; done
    d exec -d "$N" sleep 1000 || die 'exec -d'
    has 'sleep 1000' d top "$N"
    has /dev/pts script -qec "${D[*]} exec -t $N tty" /dev/null
    d rm -f "$N" || die rm
}
docker_killed_while_exec() {
    d run -d --name "$N" --net none bb sleep 10000 >/dev/null || die run
    d exec "$N" sleep 10000 &
    local pid=$!
    soon sh -c "${D[*]} top $N | grep -c 'sleep 10000' | grep 2"
    d kill "$N" || die kill
    wait $pid
    d rm "$N" || die rm
}
docker_build() {
    mkdir "$W/ctx"
    printf 'FROM %s\nRUN echo built >/made && mkdir /d && chown 5:6 /d\nCOPY f /d/f\nUSER 7\nENTRYPOINT ["cat", "/made", "/d/f"]\n' "$(image)" >"$W/ctx/Dockerfile"
    echo "file $N" >"$W/ctx/f"
    d build -q --network none -t "$N" "$W/ctx" || die build
    is $'built\nfile '"$N" d run --rm --net none "$N"
    d rmi -f "$N" || die rmi
}
docker_commit() {
    d run --name "$N" --net none bb sh -c 'echo kept >/kept' || die run
    d commit "$N" "$N" && d rm "$N" || die commit
    is kept d run --rm --net none "$N" cat /kept
    d save "$N" | d load || die 'save, load'
    d rmi -f "$N" || die rmi
}
docker_group() { # as compose does: a network, a volume, a server, a client that finds it, all removed again
    d network create "$N" >/dev/null && d volume create "$N" >/dev/null || die network
    d run -d --name "$N-a" --net "$N" -v "$N:/www" --restart always bb sh -c "echo page >/www/i; httpd -f -p 80 -h /www; exit 5" >/dev/null || die server
    local ip
    ip=$(d inspect -f "{{(index .NetworkSettings.Networks \"$N\").IPAddress}}" "$N-a")
    for _ in 1 2 3; do
        soon sh -c "${D[*]} run --rm --net $N bb wget -qO- http://$ip/i | grep page"
    done
    is page d run --rm --net "container:$N-a" --volumes-from "$N-a" bb cat /www/i
    d exec "$N-a" killall httpd
    soon sh -c "${D[*]} inspect -f '{{.RestartCount}}' $N-a | grep -v '^0'"
    d rm -f "$N-a" >/dev/null && d network rm "$N" >/dev/null && d volume rm "$N" >/dev/null || die remove
}
docker_limits() {
    has uid=5 d run --rm --net none -m 30m --cpus .5 --cpuset-cpus 0 --pids-limit 30 --blkio-weight 0 --cap-drop ALL --cap-add CHOWN \
        --read-only --tmpfs /run --tmpfs /tmp:size=1m -u 5:5 -w /tmp --ulimit nofile=100:200 --security-opt no-new-privileges \
        --device /dev/null:/dev/mine --sysctl net.core.somaxconn=1000 --hostname x --oom-score-adj 500 --shm-size 2m "$(image)" id
    status_is 1 d run --rm --net none --read-only bb touch /x
    status_is 126 d run --rm --net none bb /etc/passwd
    status_is 127 d run --rm --net none bb nothing-here
    soon oom_is_told # the shim may hear of the end before it hears of the reason, with any runtime
}
oom_is_told() {
    d run --name "$N" --net none -m 8m bb sh -c 'x=a; while :; do x=$x$x; done'
    [ "$(d inspect -f '{{.State.OOMKilled}}' "$N"; d rm "$N")" = "true
$N" ]
}
docker_health() {
    d run -d --name "$N" --net none --health-cmd 'test -e /ok' --health-interval 0.3s --health-retries 2 bb sh -c 'touch /ok; sleep 10000' >/dev/null || die run
    soon sh -c "${D[*]} ps -f name=$N | grep '(healthy)'"
    d exec "$N" rm /ok
    soon sh -c "${D[*]} ps -f name=$N | grep unhealthy"
    d rm -f "$N" || die rm
}
docker_init() { is 1 d run --rm --net none --init "$(image)" sh -c 'grep -c init /proc/1/comm'; }
docker_privileged() { d run --rm --net none --privileged "$(image)" sh -c 'mount -t tmpfs none /mnt 2>/dev/null || { mkdir -p /mnt; mount -t tmpfs none /mnt; }' || die privileged; }

# --- containerd --------------------------------------------------------------------------------------------------------

ctr_hello() { is hello c run --rm --runc-binary "$OCI" "$CTR_IMAGE" "$N" echo hello; }
ctr_status() { status_is 9 c run --rm --runc-binary "$OCI" "$CTR_IMAGE" "$N" sh -c 'exit 9'; }
ctr_life() {
    c run -d --runc-binary "$OCI" --memory-limit 50000000 "$CTR_IMAGE" "$N" sleep 10000 || die run
    for i in 1 2 3; do is "$i" c task exec --exec-id "e$i" "$N" echo "$i"; done
    status_is 4 c task exec --exec-id e9 "$N" sh -c 'exit 4'
    c task pause "$N" && has PAUSED sh -c "${C[*]} task ls | grep $N" && c task resume "$N" || die pause
    c task metrics "$N" >/dev/null && c task ps "$N" >/dev/null || die metrics
    c task kill -s "$(one_of KILL 9)" "$N" || die kill
    soon sh -c "${C[*]} task ls | grep -E '$N .*STOPPED'"
    c task rm "$N" >/dev/null
    c c rm "$N" || die rm
}
ctr_terminal() { has /dev/ script -qec "${C[*]} run --rm -t --runc-binary '$OCI' $CTR_IMAGE $N sh -c 'tty; sleep 0.5'" /dev/null; } # ctr loses what comes last

# --- Podman -------------------------------------------------------------------------------------------------------------

podman_hello() { is hello p run --rm --network none "$(image)" echo hello; }
podman_status() { status_is 11 p run --rm --network none "$(image)" sh -c 'exit 11'; }
podman_life() {
    p run -d --name "$N" --network none "$(image)" sleep 10000 >/dev/null || die run
    is hello p exec "$N" echo hello
    p pause "$N" && p unpause "$N" || die pause
    has sleep p top "$N"
    echo "for $N" >"$W/file" && p cp "$W/file" "$N:/in" && is "for $N" p exec "$N" cat /in
    p stats --no-stream "$N" >/dev/null && p restart -t 0 "$N" || die restart
    p stop -t 0 "$N" && p start "$N" && p kill "$N" || die kill
    p rm -f -t 0 "$N" || die rm
}
podman_pod() {
    p pod create --name "$N" --network none --infra-image bb --infra-command 'sleep 100000' >/dev/null || die 'pod create'
    p run -d --pod "$N" --name "$N-a" bb httpd -f -p 80 -h /etc >/dev/null && p run -d --pod "$N" --name "$N-b" bb sleep 10000 >/dev/null || die 'run in the pod'
    soon sh -c "${P[*]} exec $N-b wget -qO- http://127.0.0.1/passwd | grep root"
    is "$(p exec "$N-a" readlink /proc/self/ns/net)" p exec "$N-b" readlink /proc/self/ns/net
    p pod pause "$N" && p pod unpause "$N" && p pod restart "$N" || die 'pause, restart'
    p pod rm -f -t 0 "$N" || die 'pod rm'
}
podman_userns() { has 100000 p run --rm --network none --uidmap 0:100000:65536 --gidmap 0:100000:65536 bb cat /proc/self/uid_map; }
podman_limits() { is 20971520 p run --rm --network none -m 20m --read-only --tmpfs /run --cap-drop all bb cat /sys/fs/cgroup/memory/memory.limit_in_bytes; }
podman_build() {
    mkdir "$W/ctx"
    printf 'FROM localhost/bb\nRUN echo built >/made\nCMD ["cat", "/made"]\n' >"$W/ctx/Containerfile"
    p build -q --network none -t "$N" "$W/ctx" || die build
    is built p run --rm --network none "$N"
    p rmi -f "$N" || die rmi
}

# --- what people run in them ----------------------------------------------------------------------------------------

# with PROGRAM: a step that needs it passes at once where no image was given that has it.
with() { grep -q "/$1\$" "$WORK/programs" || exit 0; }
of() { d run --rm --net "container:$N" bb "$@"; } # beside $N: its network, an image with wget and nc

docker_nginx() {
    with nginx
    d volume create "$N" >/dev/null && d run --rm --net none -v "$N:/www" bb sh -c 'echo page >/www/index.html; head -c 3000000 /dev/urandom >/www/big' || die volume
    d run -d --name "$N" --net none -v "$N:/var/www/html:ro" --restart on-failure deb nginx -g 'daemon off;' >/dev/null || die nginx
    soon of wget -qO- http://127.0.0.1/
    is page of wget -qO- http://127.0.0.1/
    is 3000000 of sh -c 'wget -qO- http://127.0.0.1/big | wc -c'
    d exec "$N" nginx -s reload || die reload
    d kill -s HUP "$N" && d pause "$N" && d unpause "$N" || die signals
    is page of wget -qO- http://127.0.0.1/
    has '"GET / HTTP' d exec "$N" cat /var/log/nginx/access.log
    is 0 sh -c "${D[*]} stop -t 20 $N >/dev/null; ${D[*]} wait $N"
    d rm "$N" >/dev/null && d volume rm "$N" >/dev/null || die rm
}
docker_redis() {
    with redis-server
    d run -d --name "$N" --net none -m 60m --pids-limit 50 deb redis-server --dir /tmp --appendonly yes >/dev/null || die redis
    soon sh -c "${D[*]} exec $N redis-cli ping | grep PONG"
    is OK d exec "$N" redis-cli set key "$N"
    d exec "$N" redis-benchmark -q -n 2000 -c 10 -t set,lpush || die benchmark
    soon sh -c "${D[*]} exec $N redis-cli bgrewriteaof | grep Background" # a fork
    d restart -t 20 "$N" >/dev/null || die restart
    soon sh -c "${D[*]} exec $N redis-cli get key | grep $N"
    d kill "$N" >/dev/null && d start "$N" >/dev/null || die 'kill, start'
    soon sh -c "${D[*]} exec $N redis-cli get key | grep $N"
    d rm -f "$N" >/dev/null || die rm
}
docker_postgres() {
    with pgbench
    d run -d --name "$N" --net none --shm-size 100m -u postgres -e PGHOST=/tmp -e PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin deb \
        sh -c 'test -d /tmp/pg || initdb -N /tmp/pg >/dev/null; exec postgres -D /tmp/pg -k /tmp' >/dev/null || die postgres
    (soon d exec "$N" pg_isready -q) || soon d exec "$N" pg_isready -q # initdb takes its time on a busy machine
    d exec "$N" pgbench -q -i -s 2 postgres || die 'pgbench -i'
    d exec "$N" pgbench -c 4 -t 100 postgres || die pgbench
    has 200000 d exec "$N" psql -c 'select count(*) from pgbench_accounts' postgres
    d kill "$N" >/dev/null && d start "$N" >/dev/null || die 'kill, start' # it recovers
    soon sh -c "${D[*]} exec $N psql -c 'select count(*) from pgbench_accounts' postgres | grep 200000"
    d rm -f "$N" >/dev/null || die rm
}
docker_python() {
    with python3
    is 4950 d run --rm --net none --read-only --tmpfs /tmp -u 1000 deb python3 -c 'import multiprocessing as m
def f(n): return sum(range(n))
if __name__ == "__main__":
    with m.Pool(4) as p: print(p.map(f, [10, 100])[1])'
}
docker_dpkg() { # a package manager's work: maintainer scripts, renames, fsync
    with dpkg
    has install d run --rm --net none deb sh -c 'dpkg --purge --force-all tzdata >/dev/null 2>&1; dpkg-query -W | wc -l; dpkg -V; echo install'
}
podman_redis() {
    with redis-server
    p pod create --name "$N" --network none --infra-image bb --infra-command 'sleep 100000' >/dev/null || die 'pod create'
    p run -d --pod "$N" --name "$N-a" deb redis-server --save '' >/dev/null || die redis
    soon sh -c "${P[*]} run --rm --pod $N deb redis-cli ping | grep PONG"
    is OK p run --rm --pod "$N" deb redis-cli set key "$N"
    p pause "$N-a" && p unpause "$N-a" || die pause
    is "$N" p exec "$N-a" redis-cli get key
    p pod rm -f -t 0 "$N" || die 'pod rm'
}
served_by_ctr() { c task exec --exec-id "e$RANDOM" "$N" bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; printf "GET / HTTP/1.0\r\n\r\n" >&3; cat <&3' | grep '200 OK'; }
ctr_nginx() {
    with nginx
    c run -d --runc-binary "$OCI" docker.io/test/deb:1 "$N" nginx -g 'daemon off;' || die run
    soon served_by_ctr
    c task kill -s QUIT "$N" || die kill
    soon sh -c "${C[*]} task ls | grep -E '$N .*STOPPED'"
    c task rm "$N" >/dev/null
    c c rm "$N" || die rm
}

# --- the machine ---------------------------------------------------------------------------------------------------------

STEPS=$(declare -F | awk '$3 ~ /^(docker|ctr|podman)_/ { print $3 }')

clean() {
    d ps -aq | xargs -r "${D[@]}" rm -f
    c task ls -q | while read -r id; do c task rm -f "$id"; done
    c c ls -q | xargs -r "${C[@]}" c rm
    p pod rm -af -t 0
    p rm -af -t 0
} >/dev/null 2>&1

start_engines() {
    mkdir -p "$WORK/d/ctr"
    ok 'dockerd starts' start_dockerd d --bridge=none
    printf 'version = 2\nroot = "%s/root"\nstate = "%s/state"\n[grpc]\naddress = "%s/sock"\n[ttrpc]\naddress = "%s/ttrpc"\n' \
        "$WORK/d/ctr" "$WORK/d/ctr" "$WORK/d/ctr" "$WORK/d/ctr" >"$WORK/d/ctr/config.toml"
    containerd -c "$WORK/d/ctr/config.toml" >"$WORK/d/ctr/log" 2>&1 &
    echo $! >"$WORK/d/ctr/pid"
    PIDS+=($!)
    ok 'containerd starts' eventually 30 c version
    ok 'images' load_images
}

load_images() {
    d import "$WORK/image.tar" bb && p import "$WORK/image.tar" bb || return
    if [ -n "$IMAGE" ]; then
        d import "$IMAGE" deb && p import "$IMAGE" deb && tar -tf "$IMAGE" >"$WORK/programs" || return
        d tag deb test/deb:1 && d save test/deb:1 | c image import - || return
    fi
    d tag bb "$CTR_IMAGE" && d save "$CTR_IMAGE" -o "$WORK/save.tar" && c image import "$WORK/save.tar" || return
    c image ls -q | grep /bb >"$WORK/ctr-image"
}

worker() {
    local id=$1 count=0 step
    RANDOM=$((SEED + id))
    while [ $SECONDS -lt $END ]; do
        # shellcheck disable=SC2086
        step=$(one_of $STEPS)
        one_of x >/dev/null # a subshell does not move RANDOM on
        RANDOM=$((RANDOM + count))
        count=$((count + 1))
        N=mix-$id-$count W=$WORK/w$id
        rm -rf "$W"
        mkdir "$W"
        if (set -o pipefail; $step) </dev/null >"$W/out" 2>&1; then
            echo "$step" >>"$WORK/passed"
        else
            echo "$step" >>"$WORK/failed"
            { echo "not ok - $step ($(date +%T), $N)"; sed 's/^/# /' "$W/out"; } >>"$WORK/failures"
            tail -n 20 "$WORK/failures"
            d rm -f "$N" "$N-a"; p pod rm -f -t 0 "$N"; p rm -f -t 0 "$N"
        fi >&2
        sleep "$PAUSE"
    done
}

# What the host has of everything, for whoever reads the log; others use the host as well, so nothing is judged by it.
host() {
    echo "# $1: $(wc -l </proc/self/mountinfo) mounts, $(find /sys/fs/cgroup -type d | wc -l) cgroups, $(ls /proc | grep -c "^[0-9]") processes," \
        "$(ip -o link | wc -l) links, $(awk '/^(MemFree|Cached|Buffers|Slab):/ { m[$1] = int($2 / 1024) }
        END { print m["MemFree:"] + m["Cached:"] + m["Buffers:"] " MB free or cache, " m["Slab:"] " MB slab" }' /proc/meminfo)"
}

nothing_left() {
    local found
    found=$(pgrep -af "$OCI" | grep -v "mixed.sh\|containerd\|dockerd") && { echo "processes: $found"; return 1; }
    # (Of libpod_parent only containers: podman forgets its pods' own groups in hierarchies it does not know.)
    found=$(find /sys/fs/cgroup -type d \( -path "*/$GROUP/*" -o -path '*/libpod_parent/*/*' -o -path '*/libpod-*' -o -path '*/test/mix-*' \)) && [ -n "$found" ] && { echo "cgroups: $found"; return 1; }
    found=$(ls /run/trapeze-oci "$WORK/d/exec/runtime-runc/moby" 2>/dev/null | grep -E '^(mix-|[0-9a-f]{64})') && { echo "state: $found"; return 1; }
    found=$(grep -F "$WORK" /proc/self/mountinfo | grep -E '/(rootfs|merged) ') && { echo "mounts: $found"; return 1; }
    return 0
}

: >"$WORK/programs"
host 'before the engines'
start_engines
host 'with the engines and images'
CTR_IMAGE=$(cat "$WORK/ctr-image")
END=$((SECONDS + MINUTES * 60))
: >"$WORK/passed" >"$WORK/failed"
echo "# seed $SEED, $WORKERS workers, $MINUTES minutes"
workers=()
trap 'kill "${workers[@]}" 2>/dev/null; wait "${workers[@]}"; exit 130' INT TERM
for id in $(seq "$WORKERS"); do worker "$id" & workers+=($!); done
wait "${workers[@]}"
sort "$WORK/passed" | uniq -c | sed 's/^/# passed /'
ok 'every step did what it should' sh -c "sort '$WORK/failed' | uniq -c; test ! -s '$WORK/failed'"
clean
host 'containers removed'
ok 'nothing is left' eventually 30 nothing_left

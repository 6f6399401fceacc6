#!/bin/busybox sh
# Runs inside a guest of our own machine as its first program: a kernel with nothing but cgroup v2, where the
# runtime's v2 side is tried for real. Each line of the result is TAP; the last step tells the host through the debug-exit
# port. Bundles (one root file system, a configuration per case) were made on the host: tests/oci/guest.bats.
export PATH=/bin
if [ ! -e /moved ]; then
    # pivot_root does not work on the kernel's first root file system: go to another one.
    mount -t proc proc /proc
    mount -t devtmpfs devtmpfs /dev
    while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order
    mkdir /new && mount -t tmpfs -o size=200m tmpfs /new
    cp -a /bin /etc /init /oci /new && touch /new/moved
    mkdir /new/proc /new/dev /new/sys /new/tmp /new/run /new/mnt
    mount --move /dev /new/dev
    umount /proc
    exec switch_root /new /oci/guest.sh
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
ip link set lo up
step=0 failed=0
oci() { /oci/trapeze-oci --root /run/oci "$@"; }

# ok NAME COMMAND...
ok() {
    name=$1 step=$((step + 1))
    shift
    if "$@" >/tmp/out 2>&1; then
        echo "ok $step - $name"
    else
        failed=$((failed + 1))
        echo "not ok $step - $name"
        sed "s/^/# /" /tmp/out
    fi
}
# is WANTED COMMAND...
is() {
    want=$1
    shift
    got=$("$@" 2>&1)
    [ "$got" = "$want" ] || { echo "$*: \"$got\" instead of \"$want\""; return 1; }
}
has() {
    want=$1
    shift
    got=$("$@" 2>&1)
    case $got in *"$want"*) ;; *) echo "$*: \"$got\" lacks \"$want\""; return 1 ;; esac
}
ends() {
    want=$1
    shift
    "$@"
    rc=$?
    [ $rc = "$want" ] || { echo "$*: status $rc instead of $want"; return 1; }
}
# bundle CASE: the bundle with that configuration
bundle() { cp "/oci/cases/$1.json" /oci/bundle/config.json; }
# up CASE: a running container of that case, called x; down: ends it
up() {
    bundle "$1"
    ok "$1: runs" sh -c '/oci/trapeze-oci --root /run/oci run -d -b /oci/bundle x </dev/null >/tmp/log 2>&1 || { cat /tmp/log; false; }'
    pid=$(oci state x | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
}
down() {
    ok "$1: is gone without a trace" sh -c '/oci/trapeze-oci --root /run/oci delete --force x && test ! -e /sys/fs/cgroup/x && test -z "$(ls /run/oci)"'
}
file() { cat "/sys/fs/cgroup/x/$1"; }
soon() {
    for _ in $(seq 100); do
        "$@" >/dev/null 2>&1 && return
        usleep 50000
    done
    "$@"
}

up limits
ok 'the process is in its group' is "$pid" file cgroup.procs
ok 'cpu.weight of 512 shares' is 20 file cpu.weight
ok 'cpu.max' is '50000 100000' file cpu.max
ok 'cpu.max.burst' is 10000 file cpu.max.burst
ok 'cpuset.cpus' is 0 file cpuset.cpus
ok 'cpuset.mems' is 0 file cpuset.mems
ok 'memory.max' is 33554432 file memory.max
ok 'memory.low, the reservation' is 16777216 file memory.low
ok 'memory.swap.max: the sum less the memory' sh -c 'test ! -e /sys/fs/cgroup/x/memory.swap.max || test "$(cat /sys/fs/cgroup/x/memory.swap.max)" = 16777216'
ok 'pids.max' is 17 file pids.max
ok 'io.max' has 'rbps=1048576 wbps=2097152 riops=100 wiops=200' file io.max
ok 'unified: memory.high' is 30000000-- sh -c 'printf "%s--" $(($(cat /sys/fs/cgroup/x/memory.high) / 4096 * 4096 + 30000000 % 4096))'
ok 'hugetlb' sh -c 'test ! -e /sys/fs/cgroup/x/hugetlb.2MB.max || grep -qx 4194304 /sys/fs/cgroup/x/hugetlb.2MB.max'
ok 'update' oci update --memory 50000000 --memory-swap 60000000 --pids-limit 30 --cpu-quota 20000 --cpu-period 50000 --cpu-share 1024 --cpuset-cpus 0-1 x
ok 'pids.max updated' is 30 file pids.max
ok 'cpu.max updated' is '20000 50000' file cpu.max
ok 'cpu.weight updated' is 39 file cpu.weight
ok 'cpuset.cpus updated' is 0-1 file cpuset.cpus
ok 'memory.max updated' is 49999872 file memory.max
ok 'checkBeforeUpdate protects what runs' has 'already uses' sh -c 'echo "{\"memory\": {\"limit\": 4096, \"checkBeforeUpdate\": true}}" | /oci/trapeze-oci --root /run/oci update -r - x'
ok 'events --stats' has '"pids":{"current":1' oci events --stats x
ok 'exec is in the group' is '0::/x' oci exec x cat /proc/1/cgroup
ok 'ps' has sleep oci ps x
down limits

up idle
ok 'cpu.idle' is 1 file cpu.idle
down idle

up freezer
ok 'it counts' soon sh -c 'test "$(wc -c </oci/bundle/rootfs/tmp/count)" -gt 3'
ok 'pause' oci pause x
ok 'the kernel says frozen' has 'frozen 1' file cgroup.events
ok 'state says paused' has paused oci state x
ok 'nothing moves' sh -c 'a=$(wc -c </oci/bundle/rootfs/tmp/count); usleep 200000; test $a = $(wc -c </oci/bundle/rootfs/tmp/count)'
ok 'exec is refused' has 'paused' oci exec x true
ok 'resume' oci resume x
ok 'it counts on' sh -c 'a=$(wc -c </oci/bundle/rootfs/tmp/count); for i in $(seq 100); do test $a != $(wc -c </oci/bundle/rootfs/tmp/count) && exit; usleep 50000; done; false'
ok 'pause, and delete --force ends it' oci pause x
down freezer

up devices
ok 'a node can be made' oci exec x mknod /tmp/vda b 254 0
ok 'the disk cannot be read' has 'not permitted' oci exec x head -c 1 /tmp/vda
ok 'zeros can' is 3 sh -c '/oci/trapeze-oci --root /run/oci exec x head -c 3 /dev/zero | wc -c'
down devices
up devices-read
ok 'a rule lets the disk be read' oci exec x sh -c 'mknod /tmp/vda b 254 0; head -c 1 /tmp/vda >/dev/null'
ok 'but not written' has 'not permitted' oci exec x sh -c 'echo x >/tmp/vda'
down devices-read

bundle memory
ok 'over the memory limit the program is killed' ends 137 oci run -b /oci/bundle x
ok 'and nothing is left' sh -c 'test ! -e /sys/fs/cgroup/x'
bundle small
ok 'a container starts in 512 KiB' ends 0 oci run -b /oci/bundle x
up pids
ok 'over the pids limit there is no fork' has "can't fork" oci exec x sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 100 >/dev/null 2>&1 & done'
down pids

up cgroupns
ok 'the container sees its group as the root' is 0::/ oci exec x cat /proc/self/cgroup
ok 'and none above it' sh -c '! /oci/trapeze-oci --root /run/oci exec x test -e /sys/fs/cgroup/x'
ok 'it is mounted read-only' has 'Read-only' oci exec x mkdir /sys/fs/cgroup/y
down cgroupns

up owner
ok 'a user with its own root may divide its group' oci exec x sh -c 'mkdir /sys/fs/cgroup/below && echo 1 >/sys/fs/cgroup/below/cgroup.procs'
ok 'controllers can be handed down' oci exec x sh -c 'echo $$ >/sys/fs/cgroup/below/cgroup.procs && echo +pids >/sys/fs/cgroup/cgroup.subtree_control'
ok 'but its own limits are not its own' has 'ermission denied' oci exec x sh -c 'echo max >/sys/fs/cgroup/pids.max'
ok 'exec follows the program' has /below oci exec x cat /proc/self/cgroup
ok 'kill --all' oci kill --all x KILL
down owner

mkdir -p /mnt/disk
ok 'a disk with ext4' mount -t ext4 /dev/vda /mnt/disk
mkdir -p /mnt/disk/src && touch /mnt/disk/src/f && chown 5:6 /mnt/disk/src/f
bundle idmap
ok 'an id-mapped mount' is 1005:1006 oci run -b /oci/bundle x
bundle idmap-user
ok 'an id-mapped mount in a user namespace' is 5:6 oci run -b /oci/bundle x

echo user:x:1000:1000::/tmp:/bin/sh >>/etc/passwd
mkdir -p /sys/fs/cgroup/user /run/user && chown -R 1000:1000 /sys/fs/cgroup/user /run/user
echo +pids +memory +cpu >/sys/fs/cgroup/cgroup.subtree_control
chown -R 1000:1000 /sys/fs/cgroup/user
bundle rootless
cat >/tmp/as-user <<'END'
cd /oci/bundle
o="/oci/trapeze-oci --root /run/user/oci"
mkdir -p /sys/fs/cgroup/user/me && echo $$ >/sys/fs/cgroup/user/me/cgroup.procs || exit
$o run -d x </dev/null >/run/user/log 2>&1 || { cat /run/user/log; exit 1; }
$o exec x cat /proc/self/cgroup
$o delete --force x
END
ok 'rootless, below a group that is its own' sh -c 'echo $$ >/sys/fs/cgroup/user/cgroup.procs; su -s /bin/sh user -c "sh /tmp/as-user"'

bundle true
i=0
t=$(date +%s)
while [ $i -lt 20 ]; do
    oci run -b /oci/bundle "r$i" || break
    i=$((i + 1))
done
ok 'twenty one after another' test $i = 20
ok 'no group is left' is '' sh -c 'ls -d /sys/fs/cgroup/r[0-9]* 2>/dev/null'

echo "1..$step"
echo "$((step - failed)) passed, $failed failed"
[ $failed = 0 ] || outb 244 $failed
poweroff -f
sleep 10

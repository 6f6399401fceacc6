#!/usr/bin/env bats
# Every option of `trapeze run`, good and bad. --dump-config shows what was understood.

load cli

bad() { # bad TEXT ARGUMENT...
    local text=$1
    shift
    refuses 2 "$text" "$TRAPEZE" run --kernel k "$@"
}

@test "defaults" {
    dumps accel=auto
    dumps cpu=x86-64-v3
    dumps cpus=1
    dumps memory=512M
    dumps name=vm
    dumps net=user
    dumps serial=stdio
}

@test "what --dump-config prints gives the same configuration again" {
    run "$TRAPEZE" run --dump-config -k 'a b,c' -i i -a 'x=1 y' -m 3G -c 7 --cpu host --accel bt --disk 'd,,e,ro,serial=A,,1' \
        --disk f --net user,hostfwd=udp:127.0.0.1:53-10.0.2.20:5353,hostfwd=tcp::80-:80 --net user,restrict=on --net tap,ifname=tap0,mac=52:54:00:12:34:56 \
        --serial unix:/tmp/s --name a.b-c_d --no-reboot --debug-console 0xe9,file=/tmp/x,,y --debug-exit 0xf4 \
        --root /r --trace a,b
    [ "$status" -eq 0 ]
    first=$output
    arguments=()
    while IFS= read -r line; do arguments+=("--$line"); done <<<"$first"
    run "$TRAPEZE" run --dump-config "${arguments[@]}"
    diff <(echo "$first") <(echo "$output")
}

@test "forms of writing an option" {
    dumps kernel=k --kernel k
    dumps kernel=k --kernel=k
    dumps kernel=k -k k
    dumps kernel=k -kk
    dumps kernel=k k
    dumps kernel=--odd -- --odd
    dumps kernel=- -
}

@test "wrong options" {
    bad "there is no option --memry, did you mean --memory?" --memry 1G
    bad "there is no option --mem, did you mean --memory?" --mem=1G
    bad "there is no option --qqqq" --qqqq
    bad "there is no option -Z" -Z
    bad "--memory needs a value: --memory SIZE" --memory
    bad "--memory needs a value" -m
    bad "--no-reboot takes no value" --no-reboot=yes
    bad "'other' is too many: the kernel is already 'k'" other
    refuses 2 "--kernel is missing" "$TRAPEZE" run
}

@test "--memory" {
    dumps memory=2M -m 2
    dumps memory=64G -m 64G
    dumps memory=1G -m 1024
    dumps memory=1G -m 1048576K
    dumps memory=1536M -m 1536MiB
    dumps memory=16M -m 0x10
    for size in 0 1M 3M 65G 1T 2049K; do
        bad "allowed is 2M to 64G" -m "$size"
    done
    for size in "" G -1 1.5G 1X 1GG "1 G" 99999999999999999999 0x; do
        bad "is not a size" "--memory=$size"
    done
    bad "too large" -m 99999999999999T
}

@test "--cpus" {
    dumps cpus=32 -c 32
    for n in 0 33 4294967297; do
        bad "allowed is 1 to 32" -c "$n"
    done
    for n in "" two -1 1,2 99999999999999999999; do
        bad "is not a number; allowed is 1 to 32" "--cpus=$n"
    done
}

@test "--cpu and --accel" {
    dumps cpu=host --cpu host
    bad "did you mean 'x86-64-v3'? Allowed: x86-64-v2, x86-64-v3, host" --cpu x86-64v3
    bad "allowed: x86-64-v2, x86-64-v3, host" --cpu pentium
    dumps accel=kvm --accel kvm
    bad "did you mean 'kvm'? Allowed: auto, bt, kvm" --accel kmv
    bad "allowed: auto, bt, kvm" --accel hardware
}

@test "--disk" {
    dumps disk=a --disk a
    dumps disk=a,,b --disk a,,b
    dumps disk=a,ro,serial=S1 --disk a,serial=S1,ro
    dumps disk=a,ro,format=qcow2,trust,serial=S1 --disk a,trust,serial=S1,format=qcow2,ro
    dumps disk=a,werror=stop,rerror=stop --disk a,rerror=stop,werror=stop
    dumps disk=a --disk a,rerror=report,werror=enospc
    dumps disk=a,bps=10M,iops=500 --disk a,iops=500,bps=10M
    bad "0 is out of range" --disk a,iops=0
    dumps disk=a,format=raw --disk a,format=raw
    bad "'format=vmdk' is not known" --disk a,format=vmdk
    dumps disk=a --disk a --disk b
    dumps disk=b --disk a --disk b
    bad "the file name is empty" --disk ""
    bad "the file name is empty" --disk ,ro
    bad "allowed: ro, format=raw, format=qcow2" --disk a,rw
    bad "allowed: ro, format=raw" --disk a,
    bad "must have 1 to 20 characters" --disk a,serial=
    bad "must have 1 to 20 characters" --disk a,serial=123456789012345678901
    bad "visible ASCII" --disk $'a,serial=x\ty'
    bad "'a' is given twice" --disk a --disk a,ro
    many=()
    for i in $(seq 17); do many+=(--disk "d$i"); done
    bad "at most 16 disks" "${many[@]}"
}

@test "--net" {
    dumps net=none --net none
    dumps net=tap,ifname=tap0 --net tap,ifname=tap0
    dumps net=user,hostfwd=tcp::80-:8080 --net user,hostfwd=:0.0.0.0:80-:8080
    dumps net=user,hostfwd=udp:1.2.3.4:5-:6 --net user,hostfwd=udp:1.2.3.4:5-:6
    dumps net=user,restrict=on --net user,restrict=on
    dumps net=user --net user,restrict=off
    dumps net=user,mac=52:54:00:aa:bb:cc --net user,mac=52:54:00:AA:bb:CC
    dumps net=tap,ifname=t,mac=52:54:00:aa:bb:cc --net tap,mac=52:54:00:aa:bb:cc,ifname=t
    bad "is not of the form 52:54:00:12:34:56" --net user,mac=52:54:00:12:34
    bad "is not of the form 52:54:00:12:34:56" --net user,mac=52:54:00:12:34:5g
    bad "is not of the form 52:54:00:12:34:56" --net user,mac=52:54:00:12:34:567
    bad "first byte must be even" --net user,mac=53:54:00:12:34:56
    bad "two networks cannot have the same mac" --net user,mac=52:54:00:12:34:56 --net user,mac=52:54:00:12:34:56
    bad "allowed: nothing" --net none,mac=52:54:00:12:34:56
    bad "allowed: off, on" --net user,restrict=maybe
    bad "do not go together" --net user,restrict=on,hostfwd=udp::80-:80
    bad "allowed: ifname=NAME, mac=ADDR" --net tap,restrict=on
    bad "did you mean 'user'?" --net usr
    bad "allowed: user, tap, none" --net bridge
    bad "tap needs ifname=NAME" --net tap
    bad "cannot name an interface" --net tap,ifname=
    bad "cannot name an interface" --net tap,ifname=a/b
    bad "cannot name an interface" --net tap,ifname=1234567890123456
    bad "allowed: ifname=NAME" --net tap,name=x
    bad "allowed: hostfwd=" --net user,fwd=1
    bad "allowed: nothing" --net none,x
    bad "is not of the form [tcp|udp]:" --net user,hostfwd=80
    bad "has no '-'" --net user,hostfwd=tcp::80
    bad "did you mean 'tcp'?" --net user,hostfwd=tpc::80-:80
    bad "on the host: '1.2.3' is not an IPv4 address" --net user,hostfwd=tcp:1.2.3:80-:80
    bad "in the guest: the port: 0 is out of range" --net user,hostfwd=tcp::80-:0
    bad "in the guest: '80' is not of the form" --net user,hostfwd=tcp::80-80
    bad "'none' cannot stand beside another --net" --net none --net user
}

@test "--serial" {
    dumps serial=null --serial null
    dumps serial=file:/a:b -s file:/a:b
    dumps serial=unix:s -s unix:s
    for where in "" tty stdi :x; do
        bad "allowed: stdio, log, null, file:PATH, unix:PATH" "--serial=$where"
    done
    bad "needs a path: file:PATH" -s file
    bad "path after the colon is empty" -s unix:
    bad "takes nothing after a colon" -s null:x
}

@test "--name" {
    dumps name=a.b-c_D9 -n a.b-c_D9
    for name in "" -x .x a/b "a b" "$(printf '%064d' 0)"; do
        bad "cannot be a name" "--name=$name"
    done
}

@test "--debug-console and --debug-exit" {
    dumps debug-console=0xe9 --debug-console 0xe9
    dumps debug-console=0x402,file=/x --debug-console 1026,file=/x
    dumps debug-exit=0xf4 --debug-exit 0xf4
    bad "the port: 'x' is not a number; allowed is 0 to 65535" --debug-console x
    bad "allowed: file=PATH" --debug-console 1,path=x
    bad "path after file= is empty" --debug-console 1,file=
    bad "allowed is 0 to 65535" --debug-exit 65536
    bad "already that of --debug-console" --debug-console 0xf4 --debug-exit 0xf4
}

@test "--append, --initrd, --root, --trace" {
    dumps append= --append ''
    dumps 'append=a "b" =c' -a 'a "b" =c'
    dumps initrd=i -i i
    bad "the file name is empty" --initrd=
    dumps root=/r --root /r
    bad "the folder's name is empty" --root=
    TRAPEZE_ROOT=/e dumps root=/e
    TRAPEZE_ROOT=/e dumps root=/r --root /r
    dumps trace=a,b -t a,b
    bad "the list of trace points is empty" --trace=
}

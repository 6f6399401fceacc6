#!/bin/sh
# Runs one payload in a whole machine, with the real board around the processors.
# usage: machine.sh TRAPEZE ACCELERATOR PAYLOAD CPUS; what the payload says is TAP and goes to standard output.
set -u
"$1" run --accel "$2" --cpu host --kernel "$3" --cpus "$4" --memory 64M --net none --serial null --no-reboot \
    --debug-console 0xe9,file=/dev/stdout --debug-exit 0xf4 </dev/null
status=$?
case $status in
1) exit 0 ;; # 0 was written to the exit port
3) exit 1 ;;
*)
    echo "Bail out! the machine ended with status $status"
    exit 1
    ;;
esac

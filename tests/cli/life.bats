#!/usr/bin/env bats
# The verbs that change what guests do: pause, resume, stop, kill, rm.

load guests

@test "pause and resume; twice is an error" {
    guest b --name web
    trapeze pause web
    [ "$(state web)" = paused ]
    refuses 4 "trapeze pause: web: the machine is paused already" "$TRAPEZE" pause web
    trapeze resume web
    [ "$(state web)" = running ]
    refuses 4 "trapeze resume: web: the machine is running already" "$TRAPEZE" resume web
    trapeze kill web
    refuses 4 "trapeze pause: web: it is not running" "$TRAPEZE" pause web
}

@test "names, ids and beginnings; several at once" {
    guest b --name web-1
    one=$ID
    guest b --name web-2
    two=$ID
    refuses 4 "'web' may be several guests: web-" "$TRAPEZE" pause web
    trapeze pause "${one:0:11}"
    [ "$(state web-1)" = paused ]
    trapeze pause "$two"
    trapeze resume web-1 web-2
    refuses 4 "there is no guest 'web-3', did you mean 'web-" "$TRAPEZE" pause web-3
    refuses 4 "there is no guest ''" "$TRAPEZE" pause ""
    refuses 2 "which guest?" "$TRAPEZE" pause
    # One that fails does not keep the others from their turn.
    refuses 4 "there is no guest 'qqqqqq'" "$TRAPEZE" pause web-1 qqqqqq web-2
    [ "$(state web-1) $(state web-2)" = "paused paused" ]
}

@test "stop: deaf guests are switched off after the time, side by side" {
    guest i --name one
    guest b --name two
    guest p --name three
    until_is ended state three
    trapeze stop -t 1 one two three
    [ "$("$TRAPEZE" ps -a --format json | jq -r 'map("\(.name) \(.status)") | sort | join(",")')" = "one 10,three 0,two 10" ]
    trapeze stop one
    refuses 2 "--time: 'soon' is not a number" "$TRAPEZE" stop -t soon one
}

@test "stop refuses a paused guest, kill does not" {
    guest b --name web
    trapeze pause web
    refuses 4 "it is paused and cannot shut down: resume it first" "$TRAPEZE" stop web
    trapeze kill web
    [ "$(state web)" = ended ]
    refuses 4 "trapeze kill: web: it is not running" "$TRAPEZE" kill web
}

@test "kill: a process that does not answer any more, too" {
    guest b --name web
    kill -STOP "$(pid_of web)"
    until_is "not answering" state web
    trapeze kill web
    [ "$(state web)" = ended ]
    [ "$("$TRAPEZE" ps -a --format json | jq -r '.[0] | "\(.status) \(.reason)"')" = "10 killed" ]
}

@test "rm: only what has ended, unless forced; its folder goes" {
    guest b --name web
    folder=$TRAPEZE_ROOT/guests/$ID
    refuses 4 "trapeze rm: web: it is running: stop it first, or use rm -f" "$TRAPEZE" rm web
    [ -d "$folder" ]
    trapeze rm -f web
    [ ! -e "$folder" ]
    trapeze ps -aq
    [ -z "$output" ]
    guest p --name web
    until_is ended state web
    mkdir "$TRAPEZE_ROOT/guests/$ID/more"
    touch "$TRAPEZE_ROOT/guests/$ID/more/overlay"
    trapeze rm web
    [ -z "$(ls -A "$TRAPEZE_ROOT/guests")" ]
}

@test "rename: every verb knows the new name; a wrong or taken one is refused" {
    guest b --name one
    guest b --name two
    refuses 4 "another guest is called 'two'" "$TRAPEZE" rename one two
    refuses 4 "'-x' cannot be a name" "$TRAPEZE" rename one -- -x
    refuses 4 "cannot be a name" "$TRAPEZE" rename one "a b"
    refuses 2 "it takes 2 operands, and there are 1" "$TRAPEZE" rename one
    refuses 2 "'c' is too many" "$TRAPEZE" rename a b c
    trapeze rename one three
    [ "$(state three)" = running ]
    # The record, what it is started with again, and the machine itself.
    [ "$("$TRAPEZE" inspect three | grep -c '"name": "three"')" -eq 3 ]
    trapeze kill three
    refuses 4 "there is no guest 'one'" "$TRAPEZE" kill one
}

@test "wait: until the end, with its status" {
    guest d --name chosen
    run timeout 60 "$TRAPEZE" wait chosen
    [ "$status" -eq 43 ]
    [ "$output" = 43 ]
    guest b --name busy
    timeout 60 "$TRAPEZE" wait busy >"$BATS_TEST_TMPDIR/waited" &
    waiter=$!
    guest p --name off
    trapeze wait off
    [ "$output" = 0 ]
    [ ! -s "$BATS_TEST_TMPDIR/waited" ]
    trapeze kill busy
    run wait "$waiter"
    [ "$(cat "$BATS_TEST_TMPDIR/waited")" = 10 ]
    run --separate-stderr "$TRAPEZE" wait off chosen busy
    [ "$status" -eq 43 ]
    [ "$output" = "0
43
10" ]
}

@test "start: the same guest again, also from another folder" {
    cd "$BATS_TEST_TMPDIR"
    truncate -s 1M disk
    guest p --name web --disk disk
    until_is ended state web
    cd /
    run --separate-stderr "$TRAPEZE" start web
    echo "$output; $stderr"
    [ "$output" = "$ID" ]
    until_is ended state web
    guest b --name busy
    refuses 4 "trapeze start: busy: it runs already" "$TRAPEZE" start busy
    rm "$BATS_TEST_TMPDIR/disk"
    refuses 4 "$BATS_TEST_TMPDIR/disk" "$TRAPEZE" start web
    [ "$("$TRAPEZE" ps -a --format json | jq -r '.[] | select(.name == "web") | "\(.state) \(.status)"')" = "ended 4" ]
}

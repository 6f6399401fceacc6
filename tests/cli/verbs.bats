#!/usr/bin/env bats
# Verbs that need no machine: help, version; and wrong ones.

load cli

@test "without a verb: the verbs, and status 2" {
    refuses 2 "usage: trapeze VERB" "$TRAPEZE"
}

@test "help lists every verb" {
    run "$TRAPEZE" help
    [ "$status" -eq 0 ]
    for verb in accel help run version; do
        [[ $output == *"  $verb "* ]]
    done
    run "$TRAPEZE" --help
    [ "$status" -eq 0 ]
}

@test "help VERB, VERB --help and VERB -h are the same" {
    for verb in accel help run version; do
        run "$TRAPEZE" help "$verb"
        [ "$status" -eq 0 ]
        [[ $output == "usage: trapeze $verb"* ]]
        text=$output
        run "$TRAPEZE" "$verb" --help
        [ "$status" -eq 0 ]
        [ "$output" = "$text" ]
        run "$TRAPEZE" "$verb" -h
        [ "$output" = "$text" ]
    done
}

@test "a wrong verb is answered with the nearest" {
    refuses 2 "there is no verb 'rnu', did you mean 'run'?" "$TRAPEZE" rnu
    refuses 2 "there is no verb 'vers', did you mean 'version'?" "$TRAPEZE" vers
    refuses 2 "there is no verb 'zzzzzzzz'" "$TRAPEZE" zzzzzzzz
    refuses 2 "there is no verb ''" "$TRAPEZE" ""
    refuses 2 "'--root': options stand behind the verb" "$TRAPEZE" --root /tmp ps
    refuses 2 "there is no verb 'rnu', did you mean 'run'?" "$TRAPEZE" help rnu
    refuses 2 "one verb at a time" "$TRAPEZE" help run run
}

@test "a user without a place for records hears of --root" {
    nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    "${nobody[@]}" test -x "$TRAPEZE" 2>/dev/null || skip "nobody cannot run it from here, or we cannot become nobody"
    refuses 4 "no place for records; --root or \$TRAPEZE_ROOT names another: cannot make the folder '/dev/null/" \
        env XDG_DATA_HOME=/dev/null/x "${nobody[@]}" "$TRAPEZE" ps
}

@test "version is one line" {
    run "$TRAPEZE" version
    [ "$status" -eq 0 ]
    [[ $output =~ ^trapeze\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
    run "$TRAPEZE" --version
    [ "$status" -eq 0 ]
    refuses 2 "takes no 'now'" "$TRAPEZE" version now
    refuses 2 "there is no option --now" "$TRAPEZE" version --now
}

@test "a full standard output is an error" {
    [ -c /dev/full ] || skip "no /dev/full"
    run --separate-stderr bash -c '"$0" help >/dev/full' "$TRAPEZE"
    [ "$status" -eq 4 ]
    [[ $stderr == *"cannot write to standard output"* ]]
}

@test "every verb has a manual page without faults, and every option of run is in its page" {
    man=$BATS_TEST_DIRNAME/../../docs/man
    for verb in $("$TRAPEZE" help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
        [ -f "$man/trapeze-$verb.1" ]
    done
    for option in $("$TRAPEZE" help run | grep -o -- ' --[a-z-]*' | tr -d ' ' | sort -u); do
        echo "$option"
        grep -q -- "Fl -${option#--}\b" "$man/trapeze-run.1"
    done
    command -v mandoc >/dev/null || skip "mandoc is not installed: the pages were not checked"
    run mandoc -Tlint -Wwarning "$man"/*.1
    echo "$output"
    [ "$status" -eq 0 ]
}

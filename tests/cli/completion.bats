#!/usr/bin/env bats
# The completion of command lines, in the shells themselves. A guest and its snapshot live on a host that only --root names.

load guests

setup_file() {
    export PATH=$BATS_FILE_TMPDIR:$PATH
}

# names: what there is to complete; DIR is the host's root.
names() {
    guest i --name web-server
    "$TRAPEZE" snapshot create web-server noon >/dev/null 2>&1
    DIR=$TRAPEZE_ROOT
    unset TRAPEZE_ROOT
    export XDG_DATA_HOME=$BATS_TEST_TMPDIR
    ln -sf "$(realpath "$TRAPEZE")" "$BATS_FILE_TMPDIR/trapeze"
}

teardown() {
    [ -z "${DIR:-}" ] || "$TRAPEZE" kill --root "$DIR" web-server 2>/dev/null || true
}

# completes WORDS WORD...: to these words.
completes() {
    local want=$1
    shift
    run --separate-stderr "$TRAPEZE" completion words -- "$@"
    echo "$*: $output; $stderr"
    [ "$status" -eq 0 ]
    [ -z "$stderr" ]
    [ "$(cut -f1 <<<"$output" | paste -sd' ')" = "$want" ]
}

@test "words: what may stand there" {
    names
    completes "clone create diff export flatten import ls restore rm show" snapshot ""
    completes "--help --root --force --time" stop --root "$DIR" -
    completes "web-server" stop --root "$DIR" ""
    completes "web-server" stop "--root=$DIR" ""
    completes "web-server" stop --root = "$DIR" ""
    completes "web-server" stop --root "$DIR" --force web-server web
    completes "web-server" stop --root "$DIR" -t 5 ""
    completes "" attach --root "$DIR" web-server ""
    completes "web-server" snapshot create --root "$DIR" ""
    completes "" snapshot create --root "$DIR" web-server ""
    completes "noon" snapshot create --root "$DIR" --parent ""
    completes "noon" snapshot create --root "$DIR" --parent = ""
    completes "noon" snapshot restore --name x --root "$DIR" n
    completes ":file" snapshot export --root "$DIR" noon ""
    completes ":file" snapshot import --root "$DIR" ""
    completes ":folder" ps --root ""
    completes ":folder" ps --root =
    completes "qcow2 raw" disk convert -O ""
    completes ":file" disk convert -O raw a ""
    completes ":file" disk rebase -b ""
    completes "bash fish zsh" completion ""
    completes "" nonsense ""
    completes "" snapshot nonsense ""
    # Who only presses a key makes no folder.
    completes "" stop --root "$DIR/none" ""
    [ ! -e "$DIR/none" ]
}

@test "bash completes verbs, options, names of the host that --root says, files" {
    names
    # shellcheck disable=SC2016
    run --separate-stderr bash -c 'source <(trapeze completion bash)
        words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _trapeze; echo "${COMPREPLY[*]}"; }
        words trapeze sta
        words trapeze run --mem
        words trapeze snapshot re
        words trapeze stop --root "$1" web
        words trapeze stop --root = "$1" web
        words trapeze stop --root "\"$1\"" web
        HOME=${1%/*} words trapeze stop --root "~/${1##*/}" web
        words trapeze stop web
        words trapeze snapshot create --root "$1" --parent =' - "$DIR"
    echo "$output; $stderr"
    [ "$output" = "start stats
--memory
restore
web-server
web-server
web-server
web-server

noon" ]
    touch "$BATS_TEST_TMPDIR/disk-of-mine.qcow2"
    TERM=dumb timeout 60 python3 "$BATS_TEST_DIRNAME/keys.py" \
        "source <(trapeze completion bash)\n => \$ => trapeze disk info $BATS_TEST_TMPDIR/disk-of-m\t => ine.qcow2 " \
        env PS1='$ ' bash --norc --noprofile -i
}

@test "zsh completes verbs, options, names of the host that --root says, files" {
    command -v zsh >/dev/null || skip "zsh is not installed"
    names
    touch "$BATS_TEST_TMPDIR/disk-of-mine.qcow2"
    typed() {
        TERM=dumb timeout 60 python3 "$BATS_TEST_DIRNAME/keys.py" \
            "PS1='rea''dy>'; autoload -U compinit; compinit -D -u; source <(trapeze completion zsh)\n => ready> => $1" zsh -f -i
    }
    typed 'trapeze sta\t => start  -- Start guests again'
    typed 'trapeze snapshot re\t => store '
    typed 'trapeze stop --ti\t => me '
    typed "trapeze stop --root $DIR we\t => b-server "
    typed "trapeze stop --root=$DIR we\t => b-server "
    typed "trapeze snapshot restore --root '$DIR' no\t => on "
    typed "trapeze disk info $BATS_TEST_TMPDIR/disk-of-m\t => ine.qcow2 "
    typed "trapeze ps --root=$BATS_TEST_TMPDIR/ro\t => ot/"
}

@test "fish completes verbs, options, names of the host that --root says, files" {
    command -v fish >/dev/null || skip "fish is not installed"
    names
    touch "$BATS_TEST_TMPDIR/disk-of-mine.qcow2"
    typed() {
        HOME=$BATS_TEST_TMPDIR run fish --no-config -c 'trapeze completion fish | source; complete -C $argv[1]' "$2"
        echo "$2: $output"
        [ "$(cut -f1 <<<"$output" | paste -sd' ')" = "$1" ]
    }
    typed "start stats" "trapeze sta"
    typed "--time" "trapeze stop --ti"
    typed "web-server" "trapeze stop --root $DIR we"
    typed "web-server" "trapeze stop --root=$DIR we"
    typed "web-server" "trapeze stop --root ~/root we"
    typed "noon" "trapeze snapshot restore --root '$DIR' no"
    typed "--parent=noon" "trapeze snapshot create --root $DIR --parent=n"
    typed "$BATS_TEST_TMPDIR/disk-of-mine.qcow2" "trapeze disk info $BATS_TEST_TMPDIR/disk-of-m"
}

@test "completion for a shell that it does not know" {
    refuses 2 "for which shell? There are bash, fish and zsh" "$TRAPEZE" completion
    refuses 2 "'tcsh' is not known; there are bash, fish and zsh" "$TRAPEZE" completion tcsh
    refuses 2 "'now' is too many" "$TRAPEZE" completion zsh now
}

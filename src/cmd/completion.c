/*
 * `trapeze completion SHELL`: a script that lets that shell complete command lines. The scripts know nothing of verbs: at
 * each key they ask `trapeze completion words` what may stand there (cmd/completion_words.c), so all shells know the same,
 * and what they know is never old. Main thread.
 */
#include "cmd/completion.h"
#include "cmd/status.h"
#include "cmd/verb.h"
#include <errno.h>
#include <string.h>

/* clang-format off */

/* Bash splits at '=' and gives words as they were typed: with quotes, with '~'. */
static const char bash_script[] =
    "# bash completion for trapeze; made by 'trapeze completion bash'\n"
    "_trapeze() {\n"
    "    local words=() current=${COMP_WORDS[COMP_CWORD]} word\n"
    "    for word in \"${COMP_WORDS[@]:0:COMP_CWORD+1}\"; do\n"
    "        word=${word//[\\\"\\'\\\\]/}\n"
    "        [[ $word != '~/'* ]] || word=$HOME/${word:2}\n"
    "        words+=(\"$word\")\n"
    "    done\n"
    "    [ \"$current\" != = ] || current=\n"
    "    COMPREPLY=()\n"
    "    while IFS=$'\\t' read -r word _; do\n"
    "        case $word in\n"
    "        :folder) compopt -o dirnames 2>/dev/null;;\n"
    "        :file) compopt -o default 2>/dev/null;;\n"
    "        \"$current\"*) COMPREPLY+=(\"$word\");;\n"
    "        esac\n"
    "    done < <(\"${words[0]}\" completion words -- \"${words[@]:1}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _trapeze trapeze\n";

/* As a file named _trapeze in $fpath it is the function's body, else it says for whom it is. */
static const char zsh_script[] =
    "#compdef trapeze\n"
    "# zsh completion for trapeze; made by 'trapeze completion zsh'\n"
    "_trapeze() {\n"
    "    local -a before candidates\n"
    "    local word text\n"
    "    before=(\"${(@)${(@Q)words[1,CURRENT-1]}/#\\~\\//$HOME/}\")\n"
    "    if [[ $PREFIX == --*=* ]]; then\n"
    "        before+=(\"${PREFIX%%=*}\")\n"
    "        compset -P 1 '*='\n"
    "    fi\n"
    "    while IFS=$'\\t' read -r word text; do\n"
    "        case $word in\n"
    "        :folder) _files -/;;\n"
    "        :file) _files;;\n"
    "        *) candidates+=(\"$word:$text\");;\n"
    "        esac\n"
    "    done < <(\"${before[1]}\" completion words -- \"${before[@]:1}\" \"$PREFIX\" 2>/dev/null)\n"
    "    [[ -z $candidates ]] || _describe word candidates\n"
    "}\n"
    "if [[ $funcstack[1] == _trapeze ]]; then\n"
    "    _trapeze \"$@\"\n"
    "else\n"
    "    compdef _trapeze trapeze\n"
    "fi\n";

/* Fish wants the whole word, with what stands before its '='. */
static const char fish_script[] =
    "# fish completion for trapeze; made by 'trapeze completion fish'\n"
    "function __trapeze_words\n"
    "    set -l before (string replace -r '^~/' \"$HOME/\" -- (commandline -opc))\n"
    "    set -l current (commandline -ct)\n"
    "    set -l start ''\n"
    "    if string match -q -- '--*=*' $current\n"
    "        set -l parts (string split -m 1 = -- $current)\n"
    "        set start $parts[1]=\n"
    "        set -a before $parts[1]\n"
    "        set current $parts[2]\n"
    "    end\n"
    "    for line in ($before[1] completion words -- $before[2..] \"$current\" 2>/dev/null)\n"
    "        switch $line\n"
    "            case ':folder'\n"
    "                printf '%s\\n' $start(__fish_complete_directories \"$current\")\n"
    "            case ':file'\n"
    "                printf '%s\\n' $start(__fish_complete_path \"$current\")\n"
    "            case '*'\n"
    "                printf '%s\\n' $start$line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c trapeze -f -a '(__trapeze_words)'\n";

/* clang-format on */

static const struct {
    const char *shell, *script;
} scripts[] = {
    {"bash", bash_script},
    {"fish", fish_script},
    {"zsh", zsh_script},
};

static const struct args_spec *options(void)
{
    return verb_help_only;
}

static int print_script(const struct verb *self, const char *shell, struct err *err)
{
    for (unsigned i = 0; i < ARRAY_LEN(scripts); i++) {
        if (strcmp(scripts[i].shell, shell))
            continue;
        fputs(scripts[i].script, stdout);
        return STATUS_OK;
    }
    err_set(err, EINVAL, "'%s' is not known; there are bash, fish and zsh", shell);
    return verb_usage_error(self, err);
}

static int run(const struct verb *self, char **argv)
{
    struct err err = ERR_INIT;
    struct args args;
    int i;

    args_init(&args, verb_help_only, argv);
    if ((i = args_next(&args, &err)) == 0) {
        verb_print_help(self, stdout);
        return STATUS_OK;
    }
    if (i == ARGS_END)
        err_set(&err, EINVAL, "for which shell? There are bash, fish and zsh");
    else if (i == ARGS_OPERAND && !strcmp(args.value, "words"))
        return completion_words(args.argv);
    else if (i == ARGS_OPERAND && *args.argv)
        err_set(&err, EINVAL, "'%s' is too many", *args.argv);
    if (err.code)
        return verb_usage_error(self, &err);
    return print_script(self, args.value, &err);
}

const struct verb verb_completion = {
    .name = "completion",
    .operands = "SHELL",
    .summary = "Print a script that completes command lines (bash, fish, zsh)",
    .options = options,
    .notes = "For this shell: source <(trapeze completion bash)\n",
    .run = run,
};

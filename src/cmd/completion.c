/*
 * `trapeze completion bash`: a script that completes verbs, their options and the names of guests. It is made from the
 * table of verbs, so it knows what this program knows.
 */
#include "cmd/status.h"
#include "cmd/subverb.h"
#include <errno.h>
#include <string.h>

static const struct args_spec *options(void)
{
    return verb_help_only;
}

static void print_words(const struct args_spec *options)
{
    printf("words='");
    for (const struct args_spec *s = options; s->name; s++)
        if (s->help)
            printf("%s--%s", s == options ? "" : " ", s->name);
    putchar('\'');
}

static void print_subverbs(const struct verb *v)
{
    printf("    %s)\n"
           "        if [ \"$COMP_CWORD\" -eq 2 ]; then\n"
           "            mapfile -t COMPREPLY < <(compgen -W '",
           v->name);
    for (unsigned i = 0; v->subverbs[i]; i++)
        printf("%s%s", i ? " " : "", v->subverbs[i]->name);
    puts("' -- \"$current\")\n"
         "            return\n"
         "        fi\n"
         "        case ${COMP_WORDS[2]} in");
    for (unsigned i = 0; v->subverbs[i]; i++) {
        printf("        %s) ", v->subverbs[i]->name);
        print_words(v->subverbs[i]->options);
        puts(";;");
    }
    puts("        esac;;");
}

static void print_verb(const struct verb *v)
{
    if (v->subverbs) {
        print_subverbs(v);
        return;
    }
    printf("    %s) ", v->name);
    print_words(v->options());
    printf("%s;;\n", strstr(v->operands, "GUEST") ? " guests=1" : "");
}

/* Options with a value, after which anything may stand. */
static void print_script(void)
{
    puts("# bash completion for trapeze; made by 'trapeze completion bash'\n"
         "_trapeze() {\n"
         "    local current=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words= guests=\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        mapfile -t COMPREPLY < <(compgen -W '");
    for (unsigned i = 0; verbs[i]; i++)
        printf("%s%s", i ? " " : "", verbs[i]->name);
    puts("' -- \"$current\")\n"
         "        return\n"
         "    fi\n"
         "    case $verb in");
    for (unsigned i = 0; verbs[i]; i++)
        print_verb(verbs[i]);
    puts("    esac\n"
         "    if [[ $current == -* ]]; then\n"
         "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "    elif [ -n \"$guests\" ]; then\n"
         "        words=$(\"${COMP_WORDS[0]}\" ps -a 2>/dev/null | awk 'NR > 1 { print $2 }')\n"
         "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "    elif [ \"$verb\" = snapshot ]; then\n"
         "        words=$(\"${COMP_WORDS[0]}\" snapshot ls 2>/dev/null | awk 'NR > 1 { print $2 "
         "}')\n"
         "        [ \"${COMP_WORDS[2]}\" != create ] ||\n"
         "            words+=\" $(\"${COMP_WORDS[0]}\" ps 2>/dev/null | awk 'NR > 1 { print $2 "
         "}')\"\n"
         "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "    fi\n"
         "}\n"
         "complete -o default -F _trapeze trapeze");
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
        err_set(&err, EINVAL, "for which shell? There is bash");
    else if (i == ARGS_OPERAND && strcmp(args.value, "bash"))
        err_set(&err, EINVAL, "'%s' is not known; there is bash", args.value);
    else if (i == ARGS_OPERAND && *args.argv)
        err_set(&err, EINVAL, "'%s' is too many", *args.argv);
    if (err.code)
        return verb_usage_error(self, &err);
    print_script();
    return STATUS_OK;
}

const struct verb verb_completion = {
    .name = "completion",
    .operands = "SHELL",
    .summary = "Print a script that completes command lines (bash)",
    .options = options,
    .notes = "For this shell: source <(trapeze completion bash)\n",
    .run = run,
};

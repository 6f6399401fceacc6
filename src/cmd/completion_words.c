/*
 * `trapeze completion words -- WORD...`: what may stand in the place of the last word. It knows the verbs' tables of options,
 * and reads what an operand is from the usage line: a GUEST, a SNAPSHOT, a FILE. Names are those of the host that --root
 * on the command line says. Main thread.
 */
#include "cmd/completion.h"

#include "cmd/status.h"
#include "cmd/subverb.h"
#include "host/host.h"
#include "host/snapshot.h"
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 256

/* A command line, cut off before the word that is typed. */
struct line {
    const struct verb *verb;
    const struct args_spec *options;
    const char *usage; /* its operands */
    const char *root;  /* NULL: not given */
    unsigned operands; /* that are there */
};

static void print_word(const char *word, const char *meaning)
{
    printf("%s\t%s\n", word, meaning);
}

static void print_guests(struct host *h)
{
    struct record *list = NULL;
    size_t count = 0;

    if (records_list(h->records, &list, &count, NULL))
        return;
    for (size_t i = 0; i < count; i++)
        print_word(list[i].name, list[i].state == RECORD_RUNNING ? "guest, runs" : "guest, ended");
    records_free_list(list, count);
}

static void print_snapshots(struct host *h)
{
    struct snapshot *list = NULL;
    size_t count = 0;

    if (snapshots_list(h, &list, &count, NULL, NULL))
        return;
    for (size_t i = 0; i < count; i++) {
        char text[RECORD_NAME_SIZE + 32];

        snprintf(text, sizeof(text), "snapshot of %s", list[i].guest);
        print_word(list[i].name, text);
    }
    snapshots_free_list(list, count);
}

/* A root that is not there stays so: who only presses a key makes no folders. */
static void print_names(const struct line *line, void (*print)(struct host *h))
{
    struct host h;

    if (line->root && access(line->root, F_OK))
        return;
    if (host_open(&h, line->root, NULL))
        return;
    print(&h);
    host_close(&h);
}

static void print_verbs(void)
{
    for (unsigned i = 0; verbs[i]; i++)
        print_word(verbs[i]->name, verbs[i]->summary);
}

/* What a usage line calls it, and what that means here. `disk` means images by FORMAT, others the form of their output. */
static void print_kind(const struct line *line, const char *kind)
{
    if (!strcmp(kind, "GUEST")) {
        print_names(line, print_guests);
    } else if (!strcmp(kind, "SNAPSHOT")) {
        print_names(line, print_snapshots);
    } else if (!strcmp(kind, "VERB")) {
        print_verbs();
    } else if (!strcmp(kind, "SHELL")) {
        puts("bash\nfish\nzsh");
    } else if (!strcmp(kind, "FORMAT")) {
        puts(line->verb == &verb_disk ? "qcow2\nraw" : "json");
    } else if (!strcmp(kind, "DIR")) {
        puts(":folder");
    } else if (strstr(kind, "FILE") || !strcmp(kind, "KERNEL")) {
        puts(":file");
    }
}

/* "--backing FILE " and "[--count N] " are no operands. */
static const char *skip_options(const char *usage)
{
    for (;;) {
        usage += strspn(usage, " ");
        if (!strncmp(usage, "[-", 2) || !strncmp(usage, "[options]", 9)) {
            usage += strcspn(usage, "]");
            usage += *usage == ']';
        } else if (*usage == '-') {
            usage += strcspn(usage, " ");
            usage += strspn(usage, " ");
            usage += strcspn(usage, " ");
        } else {
            return usage;
        }
    }
}

/* What operand `n` is called, from 0 on; empty: there is none. */
static void operand_kind(const char *usage, unsigned n, char ret_kind[64])
{
    for (;; n--) {
        usage = skip_options(usage);
        usage += strspn(usage, "[");
        size_t len = strcspn(usage, " ");
        size_t name = strspn(usage, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-");
        bool repeats = len >= 3 && memmem(usage, len, "...", 3);

        if (!n || !len || repeats) {
            snprintf(ret_kind, 64, "%.*s", (int)name, usage);
            return;
        }
        usage += len;
    }
}

static void print_options(const struct args_spec *options)
{
    char word[64];

    for (const struct args_spec *s = options; s->name; s++) {
        if (!s->help)
            continue;
        snprintf(word, sizeof(word), "--%s", s->name);
        print_word(word, s->help);
    }
}

/* Is it an option that takes what follows? */
static const struct args_spec *wants_value(const struct args_spec *options, const char *word)
{
    for (const struct args_spec *s = options; s->name; s++) {
        if (!s->arg)
            continue;
        if (!strncmp(word, "--", 2) && !strcmp(word + 2, s->name))
            return s;
        if (s->letter && word[0] == '-' && word[1] == s->letter && !word[2])
            return s;
    }
    return NULL;
}

static void read_line(struct line *line, char **words)
{
    struct err err = ERR_INIT;
    struct args args;

    args_init(&args, line->options, words);
    for (int i; (i = args_next(&args, &err)) != ARGS_END;) {
        if (i == ARGS_OPERAND)
            line->operands++;
        else if (i >= 0 && !strcmp(line->options[i].name, "root"))
            line->root = args.value;
    }
}

/* words: those behind the verb, NULL at the end; the last of the `n` is being typed. */
static void complete(struct line *line, char **words, unsigned n)
{
    const struct args_spec *option = n > 1 ? wants_value(line->options, words[n - 2]) : NULL;
    char *typed = words[n - 1];
    char kind[64];

    words[n - (option ? 2 : 1)] = NULL;
    read_line(line, words);
    if (option) {
        operand_kind(option->arg, 0, kind);
        print_kind(line, kind);
    } else if (*typed == '-') {
        print_options(line->options);
    } else {
        operand_kind(line->usage, line->operands, kind);
        print_kind(line, kind);
    }
}

static void complete_subverb(const struct verb *v, char **words, unsigned n)
{
    for (unsigned i = 0; v->subverbs[i]; i++) {
        struct line line = {v, v->subverbs[i]->options, .usage = v->subverbs[i]->usage};

        if (n == 1)
            print_word(v->subverbs[i]->name, v->subverbs[i]->summary);
        else if (!strcmp(v->subverbs[i]->name, words[0]))
            complete(&line, words + 1, n - 1);
    }
}

/* `--name` `=` `value` become two words. Returns how many there are. */
static unsigned join(char **argv, char *ret_words[WORDS_MAX])
{
    static char empty[] = "";
    unsigned n = 0;

    for (; *argv && n + 2 < WORDS_MAX; argv++) {
        bool sign = n && !strcmp(*argv, "=") && !strncmp(ret_words[n - 1], "--", 2);

        if (!sign)
            ret_words[n++] = *argv;
        else if (!argv[1])
            ret_words[n++] = empty;
    }
    ret_words[n] = NULL;
    return n;
}

int completion_words(char **argv)
{
    char *words[WORDS_MAX];
    unsigned n = join(*argv ? argv + 1 : argv, words);
    const struct verb *v = n > 1 ? verb_find(words[0]) : NULL;

    if (n <= 1) {
        print_verbs();
    } else if (v && v->subverbs) {
        complete_subverb(v, words + 1, n - 1);
    } else if (v) {
        struct line line = {v, v->options(), .usage = v->operands};

        complete(&line, words + 1, n - 1);
    }
    return STATUS_OK;
}

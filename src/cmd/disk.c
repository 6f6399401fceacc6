/*
 * `trapeze disk VERB`: disk images without a machine. The verbs are those of qemu-img, and so are their options and
 * output where there is no reason for something else. Main thread.
 */
#include "cmd/disk.h"
#include "cmd/verb.h"
#include "vm/value.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define USAGE_CODE EBADRQC /* marks errors of the command line; nothing below uses it */

static const struct disk_verb *const disk_verbs[] = {
    &disk_check_verb, &disk_commit_verb, &disk_compare_verb, &disk_convert_verb, &disk_create_verb,
    &disk_info_verb,  &disk_map_verb,    &disk_rebase_verb,  &disk_resize_verb,
};

int disk_usage(struct err *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, USAGE_CODE, "%s", text);
}

int disk_size(const char *text, u64 *ret_bytes, struct err *err)
{
    static const char letters[] = "bkmgtpe";
    const char *letter;
    char *end;
    double number;

    errno = 0;
    number = strtod(text, &end);
    letter = *end ? strchr(letters, *end | 0x20) : letters;
    if (end == text || errno || text[0] == '-' || text[0] == '+' || !letter || (*end && end[1]) ||
        strspn(text, "0123456789.") != (size_t)(end - text))
        return disk_usage(
            err, "'%s' is no size; a number of bytes, or with k, M, G, T, P or E behind it", text);
    if (!strchr(text, '.')) { /* exact, beyond what a double holds */
        u64 whole = strtoull(text, &end, 10), unit = 1ull << (10 * (letter - letters));

        if (errno || MUL_OVERFLOWS(whole, unit, &whole) || whole > INT64_MAX)
            return disk_usage(err, "'%s' is too large", text);
        *ret_bytes = whole;
        return 0;
    }
    number *= (double)(1ull << (10 * (letter - letters)));
    if (!(number >= 0 && number < (double)INT64_MAX))
        return disk_usage(err, "'%s' is too large", text);
    *ret_bytes = (u64)number;
    return 0;
}

int disk_output(const char *value, bool *ret_json, struct err *err)
{
    if (value && strcmp(value, "json") && strcmp(value, "human"))
        return disk_usage(err, "--output '%s' is not known; there are human and json", value);
    *ret_json = value && !strcmp(value, "json");
    return 0;
}

void disk_json_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

void disk_size_text(u64 bytes, char text[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double number = (double)bytes;
    unsigned unit = 0;

    while (number >= 1024 && unit + 1 < ARRAY_LEN(units)) {
        number /= 1024;
        unit++;
    }
    snprintf(text, 32, "%.3g %s", number, units[unit]);
}

void disk_print_size(const char *label, u64 bytes)
{
    char text[32];

    disk_size_text(bytes, text);
    printf("%s: %s (%llu bytes)\n", label, text, (unsigned long long)bytes);
}

/* --- the verb itself --- */

static const struct disk_verb *find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(disk_verbs); i++)
        if (!strcmp(disk_verbs[i]->name, name))
            return disk_verbs[i];
    return NULL;
}

static void print_verb_help(const struct disk_verb *v)
{
    printf("usage: trapeze disk %s %s\n%s.\n\n", v->name, v->usage, v->summary);
    args_print(v->options, stdout);
    puts("\nMore in the manual: man trapeze-disk");
}

static void print_help(const struct verb *self, FILE *out)
{
    fprintf(out, "usage: trapeze disk %s\n%s.\n\n", self->operands, self->summary);
    for (unsigned i = 0; i < ARRAY_LEN(disk_verbs); i++)
        fprintf(out, "  %-10s %s\n", disk_verbs[i]->name, disk_verbs[i]->summary);
    fputs("\n'trapeze disk VERB --help' tells more of each. The manual: man trapeze-disk\n", out);
}

static int unknown_verb(const char *name)
{
    const char *names[ARRAY_LEN(disk_verbs) + 1] = {0};
    const char *near;

    for (unsigned i = 0; i < ARRAY_LEN(disk_verbs); i++)
        names[i] = disk_verbs[i]->name;
    near = value_nearest(name, names);
    fprintf(stderr, "trapeze disk: there is no verb '%s'", name);
    if (near)
        fprintf(stderr, ", did you mean '%s'?", near);
    fputs("\nSee 'trapeze help disk'.\n", stderr);
    return STATUS_USAGE;
}

/* Returns 0, -errno, or 1 when --help was there. */
static int read_args(const struct disk_verb *v, char **argv, struct disk_args *ret_args,
                     struct err *err)
{
    struct args args;

    args_init(&args, v->options, argv);
    for (int i; (i = args_next(&args, err)) != ARGS_END;) {
        if (i == ARGS_BAD)
            return disk_usage(err, "%s", ((struct err) * err).msg);
        if (i == ARGS_OPERAND) {
            if (ret_args->operands == v->operands_max)
                return disk_usage(err, "'%s' is one operand too many", args.value);
            ret_args->operand[ret_args->operands++] = args.value;
            continue;
        }
        if (!strcmp(v->options[i].name, "help"))
            return 1;
        ret_args->value[i] = args.value ? args.value : "";
    }
    if (ret_args->operands < v->operands_min)
        return disk_usage(err, "too few operands: trapeze disk %s %s", v->name, v->usage);
    return 0;
}

static int run_verb(const struct disk_verb *v, char **argv)
{
    struct disk_args a = {0};
    struct err err = ERR_INIT;
    int rc = read_args(v, argv, &a, &err);

    if (rc == 1) {
        print_verb_help(v);
        return STATUS_OK;
    }
    if (!rc)
        rc = v->run(&a, &err);
    if (rc >= 0)
        return rc;
    fflush(stdout);
    fprintf(stderr, "trapeze disk %s: %s\n", v->name, err.msg);
    if (rc != -USAGE_CODE)
        return STATUS_HOST;
    fprintf(stderr, "See 'trapeze disk %s --help'.\n", v->name);
    return STATUS_USAGE;
}

static const struct args_spec *options(void)
{
    return verb_help_only;
}

static int run(const struct verb *self, char **argv)
{
    const struct disk_verb *v;

    if (!argv[0]) {
        print_help(self, stderr);
        return STATUS_USAGE;
    }
    if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        verb_print_help(self, stdout);
        return STATUS_OK;
    }
    v = find(argv[0]);
    return v ? run_verb(v, argv + 1) : unknown_verb(argv[0]);
}

const struct verb verb_disk = {
    .name = "disk",
    .operands = "VERB [...]",
    .summary = "Make, look at, check and change disk images",
    .options = options,
    .notes = "Verbs:\n"
             "  check      find damage in an image, and mend it\n"
             "  commit     write what an image holds into its backing image\n"
             "  compare    tell whether two images have the same content\n"
             "  convert    copy an image into another format\n"
             "  create     make an empty image\n"
             "  info       what an image is\n"
             "  map        where its data is\n"
             "  rebase     give an image another backing image\n"
             "  resize     change the size of the disk\n"
             "\n'trapeze disk VERB --help' tells more of each.\n",
    .run = run,
};

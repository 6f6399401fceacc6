/*
 * `trapeze disk VERB`: disk images without a machine. The verbs are those of qemu-img, and so are their options and
 * output where there is no reason for something else. Main thread.
 */
#include "cmd/disk.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct subverb *const disk_verbs[] = {
    &disk_check_verb, &disk_commit_verb, &disk_compare_verb, &disk_convert_verb, &disk_create_verb,
    &disk_info_verb,  &disk_map_verb,    &disk_rebase_verb,  &disk_resize_verb,  NULL,
};

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
        return sub_usage(
            err, "'%s' is no size; a number of bytes, or with k, M, G, T, P or E behind it", text);
    if (!strchr(text, '.')) { /* exact, beyond what a double holds */
        u64 whole = strtoull(text, &end, 10), unit = 1ull << (10 * (letter - letters));

        if (errno || MUL_OVERFLOWS(whole, unit, &whole) || whole > INT64_MAX)
            return sub_usage(err, "'%s' is too large", text);
        *ret_bytes = whole;
        return 0;
    }
    number *= (double)(1ull << (10 * (letter - letters)));
    if (!(number >= 0 && number < (double)INT64_MAX))
        return sub_usage(err, "'%s' is too large", text);
    *ret_bytes = (u64)number;
    return 0;
}

int disk_output(const char *value, bool *ret_json, struct err *err)
{
    if (value && strcmp(value, "json") && strcmp(value, "human"))
        return sub_usage(err, "--output '%s' is not known; there are human and json", value);
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

void disk_progress(struct block_progress *p, u64 done, u64 size)
{
    unsigned percent = size ? (unsigned)((double)done * 100 / (double)size) : 100;

    if (percent == p->percent)
        return;
    p->percent = percent;
    printf("    (%u.00/100%%)\r", percent);
    fflush(stdout);
}

void disk_progress_end(const struct block_progress *p)
{
    if (p->percent != UINT32_MAX)
        putchar('\n');
}

int disk_refuse(const struct sub_args *a, const struct args_spec *specs,
                const struct disk_refusal *list, struct err *err)
{
    for (; list->why; list++)
        if (a->value[list->option])
            return sub_usage(err, "--%s is not offered: %s", specs[list->option].name, list->why);
    return 0;
}

int disk_cache(const char *mode, bool *ret_sync, struct err *err)
{
    static const char *const modes[] = {"unsafe", "writeback", "writethrough", "none",
                                        "directsync"};
    unsigned i = 0;

    while (mode && i < ARRAY_LEN(modes) && strcmp(mode, modes[i]) != 0)
        i++;
    if (i == ARRAY_LEN(modes))
        return sub_usage(err,
                         "cache mode '%s' is not known; there are unsafe, writeback, writethrough, "
                         "none and directsync",
                         mode);
    if (ret_sync)
        *ret_sync = i != 0;
    return 0;
}

static const struct args_spec *options(void)
{
    return verb_help_only;
}

const struct verb verb_disk = {
    .name = "disk",
    .operands = "VERB [...]",
    .summary = "Make, look at, check and change disk images",
    .options = options,
    .subverbs = disk_verbs,
    .run = subverb_run,
};

/*
 * Values as people type them. Pure functions over strings; any thread.
 */
#include "vm/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAREST_LEN 32 /* longer words are not compared */

/* Digits only: strtoull would also take spaces and signs. Returns the first character that is not
 * part of it. */
static const char *scan_number(const char *text, u64 *ret_number)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    const char *set = hex ? "0123456789abcdefABCDEF" : "0123456789";
    size_t len = strspn(digits, set);

    if (!len)
        return NULL;
    errno = 0;
    u64 number = strtoull(digits, NULL, hex ? 16 : 10);
    if (errno == ERANGE)
        return NULL;
    *ret_number = number;
    return digits + len;
}

int value_number(const char *text, u64 min, u64 max, u64 *ret_number, struct err *err)
{
    u64 number = 0;
    const char *end = scan_number(text, &number);

    if (!end || *end)
        return err_set(err, EINVAL, "'%s' is not a number; allowed is %" PRIu64 " to %" PRIu64,
                       text, min, max);
    if (number < min || number > max)
        return err_set(err, ERANGE, "%s is out of range; allowed is %" PRIu64 " to %" PRIu64, text,
                       min, max);
    *ret_number = number;
    return 0;
}

int value_size(const char *text, u64 *ret_bytes, struct err *err)
{
    static const struct {
        char letter;
        u64 unit;
    } units[] = {{'K', KiB}, {'M', MiB}, {'G', GiB}, {'T', 1024 * GiB}};
    u64 number = 0, unit = MiB, bytes;
    const char *end = scan_number(text, &number);

    if (end && *end) {
        char letter = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;

        unit = 0;
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
            if (units[i].letter == letter)
                unit = units[i].unit;
        end++;
        if (*end && strcmp(end, "B") && strcmp(end, "iB"))
            unit = 0;
    }
    if (!end || !unit)
        return err_set(err, EINVAL,
                       "'%s' is not a size; write a number with K, M, G or T, such as 512M or 2G",
                       text);
    if (MUL_OVERFLOWS(number, unit, &bytes))
        return err_set(err, ERANGE, "the size '%s' is too large", text);
    *ret_bytes = bytes;
    return 0;
}

void value_size_print(u64 bytes, char *buf, size_t len)
{
    if (bytes && bytes % GiB == 0)
        snprintf(buf, len, "%" PRIu64 "G", (u64)(bytes / GiB));
    else if (bytes % MiB == 0)
        snprintf(buf, len, "%" PRIu64 "M", (u64)(bytes / MiB));
    else
        snprintf(buf, len, "%" PRIu64 "K", (u64)(bytes / KiB));
}

int value_choice(const char *text, const char *const *choices, unsigned *ret_index, struct err *err)
{
    char list[256] = "";
    size_t used = 0;
    const char *near;

    for (unsigned i = 0; choices[i]; i++) {
        if (!strcmp(text, choices[i])) {
            *ret_index = i;
            return 0;
        }
        int n = snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", choices[i]);
        used = MIN(used + (size_t)n, sizeof(list) - 1);
    }
    near = value_nearest(text, choices);
    if (near)
        return err_set(err, EINVAL, "'%s' is not known, did you mean '%s'? Allowed: %s", text, near,
                       list);
    return err_set(err, EINVAL, "'%s' is not known; allowed: %s", text, list);
}

/* Edits (insert, delete, replace, swap of neighbours) that turn a into b: optimal string alignment.
 */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][NEAREST_LEN + 1];
    size_t alen = strlen(a), blen = strlen(b);

    if (alen > NEAREST_LEN || blen > NEAREST_LEN)
        return NEAREST_LEN;
    for (size_t j = 0; j <= blen; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= alen; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= blen; j++) {
            unsigned cost = above[j - 1] + (a[i - 1] != b[j - 1]);

            cost = MIN(cost, above[j] + 1);
            cost = MIN(cost, row[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cost = MIN(cost, above2[j - 2] + 1);
            row[j] = cost;
        }
    }
    return rows[alen % 3][blen];
}

const char *value_nearest(const char *text, const char *const *words)
{
    const char *best = NULL;
    unsigned best_distance = strlen(text) < 4 ? 2 : 3; /* must be below */

    for (unsigned i = 0; words[i]; i++) {
        unsigned d = distance(text, words[i]);

        /* A word cut short ("mem", "ker") is a slip as well. */
        if (d && strlen(text) >= 3 && !strncmp(text, words[i], strlen(text)))
            d = 1;
        if (d < best_distance) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

char *value_item(char **cursor)
{
    char *item = *cursor, *to = item;

    if (!item)
        return NULL;
    for (const char *from = item;; from++) {
        if (from[0] == ',' && from[1] == ',') {
            from++;
        } else if (from[0] == ',' || !from[0]) {
            *cursor = from[0] ? (char *)from + 1 : NULL;
            break;
        }
        *to++ = *from;
    }
    *to = 0;
    return item;
}

void value_quote(const char *text, char *buf, size_t len)
{
    size_t used = 0;

    for (; *text && used + 2 < len; text++) {
        if (*text == ',')
            buf[used++] = ',';
        buf[used++] = *text;
    }
    buf[used] = 0;
}

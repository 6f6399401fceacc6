/* The difference of two pages. Invariant: a difference is checked as a whole before the page changes. */
#include "vm/migrate/delta.h"

#include "vm/migrate/wire.h"
#include <errno.h>
#include <string.h>

#define WORDS (MIGRATE_PAGE_BYTES / 8)

static u64 word_at(const u8 *page, unsigned index)
{
    u64 word;

    memcpy(&word, page + 8 * index, 8);
    return word;
}

int migrate_delta_make(const u8 *old, const u8 *new, u8 *ret_delta, int max)
{
    unsigned at = 0, last = 0;
    int len = 0;

    for (;;) {
        while (at < WORDS && word_at(old, at) == word_at(new, at))
            at++;
        if (at == WORDS)
            return len;
        unsigned first = at;
        while (at < WORDS && word_at(old, at) != word_at(new, at))
            at++;
        int bytes = (int)(at - first) * 8;
        if (len + 4 + bytes > max)
            return -1;
        migrate_put(ret_delta + len, first - last, 2);
        migrate_put(ret_delta + len + 2, at - first, 2);
        memcpy(ret_delta + len + 4, new + 8 * first, (size_t)bytes);
        len += 4 + bytes;
        last = at;
    }
}

/* Walks the runs; with page NULL only looks at them. */
static int walk(u8 *page, const u8 *delta, u32 len)
{
    u32 at = 0, word = 0;

    while (at < len) {
        if (len - at < 4)
            return -EPROTO;
        u32 skip = (u32)migrate_get(delta + at, 2), words = (u32)migrate_get(delta + at + 2, 2);
        if (!words || skip > WORDS - word || words > WORDS - word - skip ||
            words * 8 > len - at - 4)
            return -EPROTO;
        word += skip;
        if (page)
            memcpy(page + 8 * word, delta + at + 4, 8 * words);
        word += words;
        at += 4 + 8 * words;
    }
    return 0;
}

int migrate_delta_apply(u8 *page, const u8 *delta, u32 len, struct err *err)
{
    if (walk(NULL, delta, len))
        return err_set(err, EPROTO, "a page's difference leaves the page");
    return walk(page, delta, len);
}

/* Any bytes as a snapshot stream. What loads must save, and load again, to the same bytes. */
#include "fuzz.h"

#include "state/set.h"
#include "state_sample.h"

#include <stdlib.h>
#include <string.h>

/* Damaged checksums would hide everything behind them, so they are made right where a section is
 * plausible. */
#define STREAM_HEAD_BYTES 16
#define SECTION_HEAD_BYTES 48

static u32 crc32_of(const u8 *data, size_t len)
{
    u32 crc = UINT32_MAX;

    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? (crc >> 1) ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

static void mend_checksums(u8 *data, size_t size)
{
    size_t at = STREAM_HEAD_BYTES;

    while (range_fits(at, SECTION_HEAD_BYTES, size)) {
        size_t len = SECTION_HEAD_BYTES;
        u64 payload;
        u32 crc;

        memcpy(&payload, data + at + 40, sizeof(payload));
        if (payload > size || !range_fits(at + len, payload + 4, size))
            return;
        len += payload;
        crc = crc32_of(data + at, len);
        memcpy(data + at + len, &crc, sizeof(crc));
        at += len + 4;
    }
}

static int check(void *opaque, const void *scratch, struct err *err)
{
    const struct sample *s = scratch;

    return s->ready > s->port ? err_set(err, 22, "ready is past the end") : 0;
}

static void load(const u8 *data, size_t size)
{
    struct sample a = {0}, b = {0};
    struct state_entry one = {
        .name = "part", .instance = 0, .table = &sample_table, .object = &a, .check = check};
    struct state_entry two = {
        .name = "part", .instance = 1, .table = &sample_table, .object = &b, .check = check};
    struct state_buf in = {.data = (u8 *)data, .len = size}, first = {0}, second = {0};
    struct state_source from = state_buf_source(&in);
    struct state_sink to = state_buf_sink(&first);
    struct state_set set = {0};

    state_set_add(&set, &one, NULL);
    state_set_add(&set, &two, NULL);
    if (state_set_load(&set, &from, NULL))
        return;
    if (state_set_save(&set, &to, NULL))
        abort();
    from = state_buf_source(&first);
    to = state_buf_sink(&second);
    if (state_set_load(&set, &from, NULL) || state_set_save(&set, &to, NULL) ||
        first.len != second.len || memcmp(first.data, second.data, first.len))
        abort();
    state_buf_fini(&first);
    state_buf_fini(&second);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    auto_free u8 *copy = malloc(MAX(size, (size_t)1));

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    load(copy, size);
    mend_checksums(copy, size);
    load(copy, size);
    return 0;
}

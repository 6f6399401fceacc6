/* Any bytes as one direction of a migration: the first byte says which side reads them. */
#include "fuzz.h"

#include "vm/migrate/frames.h"
#include "vm/migrate/page.h"
#include "vm/migrate/sizes.h"

#include <stdlib.h>
#include <string.h>

#define PAGES 64

struct reader {
    struct migrate_memory memory;
    struct migrate_decoder decoder;
    atomic_ullong seen[PAGES / 64];
    u8 *ram;
};

/* What is handed out is read to its end: a sanitizer knows whether it is all there. */
static void take_frames(const u8 *body, u32 len)
{
    struct migrate_frame f;

    while (migrate_frame_next(&body, &len, &f, NULL) > 0)
        for (u32 i = 0; i < f.len; i++)
            (void)*(const volatile u8 *)&f.bytes[i];
}

/* Any bytes of a HELLO may stand where its sizes do. */
static void take_sizes(const u8 *bytes, u32 len)
{
    struct state_buf buf = {.data = (u8 *)(uintptr_t)bytes, .len = len};
    struct state_source from = state_buf_source(&buf);
    u64 sizes[2];

    migrate_sizes_load(&from, ARRAY_LEN(sizes), sizes, NULL);
}

static void take(struct reader *r, const struct migrate_head *head, const u8 *body)
{
    struct migrate_hello hello;
    const u8 *config;

    if (head->type == MIGRATE_PAGES)
        migrate_decoder_apply(&r->decoder, &r->memory, head->flags, body, head->len, NULL);
    if (head->type == MIGRATE_FRAMES)
        take_frames(body, head->len);
    if (head->type != MIGRATE_HELLO || migrate_hello_get(body, head->len, &hello, &config, NULL))
        return;
    if (hello.config_bytes > head->len)
        abort();
    take_sizes(config, hello.config_bytes);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct reader r = {.ram = calloc(PAGES, MIGRATE_PAGE_BYTES)};
    enum migrate_side side = size && data[0] & 1 ? MIGRATE_TO_SOURCE : MIGRATE_TO_DESTINATION;
    struct migrate_head head;
    u32 sequence = 0;
    size_t at = 1;

    r.memory = (struct migrate_memory){.ram = r.ram, .pages = PAGES, .memfd = -1, .seen = r.seen};
    if (r.ram && !migrate_decoder_init(&r.decoder, NULL)) {
        while (range_fits(at, MIGRATE_HEAD_BYTES, size)) {
            u8 bytes[MIGRATE_HEAD_BYTES];

            memcpy(bytes, data + at, sizeof(bytes));
            migrate_put(bytes + 8, sequence, 4); /* a fuzzer should not have to learn counting */
            if (migrate_head_get(bytes, side, sequence++, &head, NULL) ||
                !range_fits(at + sizeof(bytes), head.len, size))
                break;
            take(&r, &head, data + at + sizeof(bytes));
            at += sizeof(bytes) + head.len;
        }
    }
    migrate_decoder_fini(&r.decoder);
    free(r.ram);
    return 0;
}

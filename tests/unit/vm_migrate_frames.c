/* FRAMES: what is written is read; nothing else is handed to a device. */
#include "unit.h"

#include "vm/migrate/frames.h"

#include <stdlib.h>

static u32 put(u8 *to, const struct migrate_frame *f)
{
    migrate_frame_put(f, to);
    memset(to + MIGRATE_FRAME_HEAD, (int)f->len, f->len);
    return MIGRATE_FRAME_HEAD + f->len;
}

static void round_trip(void **state)
{
    struct migrate_frame in[] = {
        {.network = 0, .len = 14},
        {.network = 3, .len = 60, .offload = {.csum_good = true}},
        {.network = 1,
         .len = 200,
         .offload = {.csum_partial = true,
                     .gso = NET_GSO_TCP6,
                     .ecn = true,
                     .hdr_len = 74,
                     .gso_size = 100,
                     .csum_start = 54,
                     .csum_offset = 16}},
    };
    u8 body[1000];
    const u8 *at = body;
    struct migrate_frame out;
    u32 len = 0;

    for (unsigned i = 0; i < ARRAY_LEN(in); i++)
        len += put(body + len, &in[i]);
    for (unsigned i = 0; i < ARRAY_LEN(in); i++) {
        assert_int_equal(migrate_frame_next(&at, &len, &out, NULL), 1);
        assert_int_equal(out.network, in[i].network);
        assert_int_equal(out.len, in[i].len);
        assert_int_equal(out.bytes[0], in[i].len);
        assert_memory_equal(&out.offload, &in[i].offload, sizeof(out.offload));
    }
    assert_int_equal(migrate_frame_next(&at, &len, &out, NULL), 0);
}

/* Whatever single byte is another one: what is handed out stays inside of the message, and its offload inside of it. */
static void bytes_changed(void **state)
{
    struct migrate_frame in = {
        .len = 64,
        .offload = {.csum_partial = true, .csum_start = 34, .csum_offset = 16, .hdr_len = 54}};
    u32 size = MIGRATE_FRAME_HEAD + in.len;
    u8 *body = malloc(size); /* on the heap: sanitizers know its end */

    for (unsigned at = 0; at < MIGRATE_FRAME_HEAD; at++)
        for (unsigned value = 0; value < 256; value++) {
            const u8 *left = body;
            struct migrate_frame out;
            u32 len = size;

            put(body, &in);
            body[at] = (u8)value;
            while (migrate_frame_next(&left, &len, &out, NULL) > 0) {
                assert_true(out.bytes + out.len <= body + size);
                assert_true(!out.offload.csum_partial ||
                            out.offload.csum_start + out.offload.csum_offset + 2u <= out.len);
                assert_true(!out.offload.gso || out.offload.gso_size);
            }
        }
    free(body);
}

static void cut_off(void **state)
{
    struct migrate_frame in = {.len = 40}, out;
    u8 body[MIGRATE_FRAME_HEAD + 40];

    for (u32 len = 1; len < sizeof(body); len++) {
        const u8 *at = body;
        u32 left = len;

        put(body, &in);
        assert_int_equal(migrate_frame_next(&at, &left, &out, NULL), -EPROTO);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(round_trip),
    cmocka_unit_test(bytes_changed),
    cmocka_unit_test(cut_off),
};
UNIT_MAIN(tests)

/* bzImages made up in a test, with a payload or without. */
#ifndef BOARD_BZIMAGE_H
#define BOARD_BZIMAGE_H

#include "board_image.h"
#include <lz4.h>
#include <zlib.h>

#define SETUP (5 * 512)
#define KERNEL_MAP 0xffffffff80000000ull
#define PREF 0x1000000ull
#define PAYLOAD_AT 0x1000

/* A bzImage without payload: its entry is 0x200 into what follows the setup part. */
static inline void make_bzimage(struct image *i)
{
    i->len = 0;
    image_put(i, 0x1f1, 4, 1);
    image_put(i, 0x1f4, 0, 4);
    image_put(i, 0x1fe, 0xaa55, 2);
    image_put(i, 0x200, 0x66eb, 2);
    memcpy(i->bytes + 0x202, "HdrS", 4);
    image_put(i, 0x206, 0x20f, 2);
    image_put(i, 0x211, 1, 1);
    image_put(i, 0x22c, 0x7fffffff, 4);
    image_put(i, 0x230, 0x200000, 4);
    image_put(i, 0x234, 1, 1);
    image_put(i, 0x236, 1, 2);
    image_put(i, 0x238, 2047, 4);
    image_put(i, 0x258, PREF, 8);
    image_put(i, 0x260, 0x800000, 4);
    image_put(i, SETUP + 0x200, 0x90909090, 4);
    image_put(i, SETUP + 0x7ff, 0, 1);
}

/* A vmlinux of one segment of 8 KiB, with a word to relocate of each kind, and its relocations. */
static inline size_t make_vmlinux(u8 *out, bool inverse_list)
{
    static const s32 lists[] = {0, (s32)0x81000100, 0, (s32)0x81000300, 0, (s32)0x81000200};
    static const s32 new_lists[] = {0, (s32)0x81000100, 0, (s32)0x81000200};
    struct image *v = calloc(1, sizeof(*v));
    struct image_phdr p = {1, 0x1000, KERNEL_MAP + PREF, PREF, 0x2000, 0x4000};
    size_t len;

    assert_non_null(v);
    image_elf64(v, 0, PREF + 0x10, 1);
    image_phdr64(v, 0, 0, &p);
    image_put(v, 0x1000 + 0x100, KERNEL_MAP + PREF + 0x1234, 8);
    image_put(v, 0x1000 + 0x200, (u32)(KERNEL_MAP + PREF + 0x1234), 4);
    image_put(v, 0x1000 + 0x300, 0x10000000, 4);
    image_put(v, 0x1000 + 0x1fff, 0, 1);
    memcpy(out, v->bytes, v->len);
    len = v->len;
    free(v);
    if (inverse_list) {
        memcpy(out + len, lists, sizeof(lists));
        return len + sizeof(lists);
    }
    memcpy(out + len, new_lists, sizeof(new_lists));
    return len + sizeof(new_lists);
}

static inline void set_payload(struct image *i, const u8 *bytes, size_t len)
{
    for (size_t n = 0; n < len; n++)
        image_put(i, SETUP + PAYLOAD_AT + n, bytes[n], 1);
    image_put(i, 0x248, PAYLOAD_AT, 4);
    image_put(i, 0x24c, len, 4);
}

/* Packs as the kernel's build does: the legacy LZ4 frame and the length. */
static inline void pack_lz4(struct image *i, const u8 *in, size_t len, u32 claimed)
{
    u8 out[32768] = {0x02, 0x21, 0x4c, 0x18};
    int n = LZ4_compress_default((const char *)in, (char *)out + 8, (int)len, sizeof(out) - 16);
    u32 block = (u32)n;

    assert_true(n > 0);
    memcpy(out + 4, &block, 4);
    memcpy(out + 8 + n, &claimed, 4);
    set_payload(i, out, 12 + (size_t)n);
}

static inline void pack_gzip(struct image *i, u8 *in, size_t len)
{
    u8 packed[20000];
    z_stream z = {
        .next_in = in, .avail_in = (uInt)len, .next_out = packed, .avail_out = sizeof(packed)};

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END); /* ends with the length itself */
    set_payload(i, packed, z.total_out);
    deflateEnd(&z);
}

#endif

/*
 * Any bytes as a qcow2 image: opened, checked, read through, mended, written to. Nothing may crash, hang, or take memory
 * by a foreign number. What was mended must be whole, and an image that is whole must stay so when it is written to.
 */
#include "block/image.h"
#include "block/prealloc.h"
#include "block/qcow2.h"
#include "block/qcow2_pack.h"
#include "block_memory.h"
#include "fuzz.h"

#define READ_BYTES (64 * KiB)
#define EXTENTS_MAX 4096

static struct block_image *opened(const u8 *data, size_t size, const struct block_image_options *o)
{
    struct memory_file *m = memory_file_new(data, size);
    struct block_image *image = NULL;
    struct err err = ERR_INIT;

    if (!m || block_image_from(&m->file, o, &image, &err))
        return NULL;
    return image;
}

static void read_through(struct block_image *image)
{
    static u8 buf[READ_BYTES];
    u64 offset = 0, size = block_image_size(image);

    for (unsigned n = 0; n < EXTENTS_MAX && offset < size; n++) {
        struct block_image *owner;
        struct block_extent e;
        struct err err = ERR_INIT;

        if (block_image_map(image, offset, size - offset, &e, &owner, &err)) {
            offset += image->fmt->cluster_bytes;
            continue;
        }
        if (!e.len || e.len > size - offset)
            abort();
        if (n < 16)
            block_image_read(image, buf, MIN(e.len, READ_BYTES), offset, &err);
        offset += e.len;
    }
}

static void see_snapshot(void *opaque, unsigned n, const struct qcow2_snapshot *s)
{
    if (strlen(s->id) >= sizeof(s->id) || strlen(s->name) >= sizeof(s->name))
        abort();
}

/*
 * Two entries may lead to one cluster, which counts two then. When one of them is written to, the other has the cluster to
 * itself and does not know it: it will be copied once too often, and that is all.
 */
static void note_fault(struct qcow2_check *c, bool leak, const char *text)
{
    *(u64 *)c->opaque += !leak && !strstr(text, "marked as shared, but is not");
}

static u64 new_damage(struct block_image *image)
{
    u64 faults = 0;
    struct qcow2_check c = {.report = note_fault, .opaque = &faults};

    return qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL) ? UINT64_MAX : faults;
}

static u64 damage(struct block_image *image, enum qcow2_repair repair)
{
    struct qcow2_check c = {0};

    return qcow2_check(image->fmt, repair, &c, NULL) ? UINT64_MAX : c.corruptions;
}

/* Compressed clusters at the ends of the disk and in between, the last of them given back again. */
static void pack_into(struct block_image *image)
{
    u64 size = block_image_size(image), bytes = image->fmt->cluster_bytes;
    u64 clusters = (size + bytes - 1) / bytes;
    struct qcow2_piece list[6] = {0};
    static u8 junk[512];

    if (clusters < ARRAY_LEN(list) || bytes <= sizeof(junk))
        return;
    for (unsigned n = 0; n < ARRAY_LEN(list); n++) {
        list[n].offset = (clusters - 1) * n / (ARRAY_LEN(list) - 1) * bytes;
        list[n].len = 60 + n * 90;
    }
    if (qcow2_pieces_place(image->fmt, list, ARRAY_LEN(list), NULL))
        return;
    for (unsigned n = 0; n < ARRAY_LEN(list); n++)
        block_file_write(image->file, junk, list[n].len, list[n].host);
    qcow2_pieces_link(image->fmt, list, ARRAY_LEN(list) - 1, NULL);
    qcow2_pieces_drop(image->fmt, list + ARRAY_LEN(list) - 1, 1);
}

/* Writes here and there; an image without damage must not get any. */
static void write_to(const u8 *data, size_t size, bool whole)
{
    static const struct block_image_options rw = {.format = "qcow2"};
    struct block_image *image = opened(data, size, &rw);
    u8 buf[3000];
    u64 end;

    if (!image)
        return;
    end = block_image_size(image);
    memset(buf, 0x5a, sizeof(buf));
    for (unsigned n = 0; n < 8 && end > sizeof(buf); n++) {
        u64 offset = (n * 0x9e3779b97f4a7c15ull) % (end - sizeof(buf));

        block_image_write(image, buf, sizeof(buf), offset, NULL);
        block_image_zero(image, offset / 2, sizeof(buf), n % 2, NULL);
        block_image_discard(image, offset / 3, sizeof(buf), NULL);
    }
    pack_into(image);
    block_image_preallocate(image, end / 2, MIN(end, end / 2 + 64 * KiB), BLOCK_PREALLOC_METADATA,
                            NULL);
    block_image_flush(image, NULL);
    if (whole && new_damage(image))
        abort();
    qcow2_set_backing(image->fmt, size % 2 ? "base" : NULL, "raw", NULL);
    if (!image->fmt->ops->freeze(image->fmt, NULL) && whole && new_damage(image))
        abort();
    block_image_close(image);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static const struct block_image_options ro = {.format = "qcow2", .readonly = true},
                                            mend = {.format = "qcow2", .repair = true};
    struct block_image *image = opened(data, size, &ro);
    bool whole = false;

    if (!image)
        return 0;
    whole = !damage(image, QCOW2_REPAIR_NONE);
    read_through(image);
    qcow2_snapshots(image->fmt, see_snapshot, NULL, NULL);
    block_image_close(image);
    write_to(data, size, whole);
    image = opened(data, size, &mend);
    if (image) {
        if (!damage(image, QCOW2_REPAIR_ALL) && damage(image, QCOW2_REPAIR_NONE))
            abort();
        block_image_close(image);
    }
    return 0;
}

/*
 * The internal snapshots of a qcow2 image, to be shown. qcow2.txt, "Snapshots". They are other programs': here they are
 * listed and kept. The table is hostile: it is read in pieces whose size the image does not choose. Any thread.
 */
#include "block/qcow2.h"
#include <errno.h>

#define FIXED_BYTES 40
#define EXTRA_KNOWN 24

static u32 get32(const u8 *b)
{
    u32 v;

    memcpy(&v, b, sizeof(v));
    return be32toh(v);
}

static u64 get64(const u8 *b)
{
    u64 v;

    memcpy(&v, b, sizeof(v));
    return be64toh(v);
}

static int text_at(struct block_file *f, u64 at, u32 len, char *ret_text)
{
    int rc = block_file_read(f, ret_text, len, at);

    if (!rc)
        ret_text[len] = '\0';
    return rc;
}

/* One entry at `at`; *ret_next is where the next one begins. */
static int read_entry(struct block_file *f, u64 at, struct qcow2_snapshot *s, u64 *ret_next)
{
    u8 fixed[FIXED_BYTES], extra[EXTRA_KNOWN] = {0};
    u32 id_len, name_len, extra_len;
    int rc = block_file_read(f, fixed, sizeof(fixed), at);

    if (rc)
        return rc;
    id_len = get32(fixed + 12) >> 16;
    name_len = get32(fixed + 12) & 0xffff;
    extra_len = get32(fixed + 36);
    at += FIXED_BYTES;
    rc = block_file_read(f, extra, MIN(extra_len, (u32)EXTRA_KNOWN), at);
    at += extra_len;
    if (!rc)
        rc = text_at(f, at, id_len, s->id);
    if (!rc)
        rc = text_at(f, at + id_len, name_len, s->name);
    if (rc)
        return rc;
    s->seconds = get32(fixed + 16);
    s->nanoseconds = get32(fixed + 20);
    s->clock_ns = get64(fixed + 24);
    s->state_bytes = extra_len >= 8 ? get64(extra) : get32(fixed + 32);
    s->has_size = extra_len >= 16;
    s->has_icount = extra_len >= EXTRA_KNOWN && get64(extra + 16) != UINT64_MAX;
    s->icount = get64(extra + 16);
    *ret_next = ALIGN_UP(at + id_len + name_len, 8ull);
    return 0;
}

int qcow2_snapshots(struct block_format *f,
                    void (*tell)(void *opaque, unsigned n, const struct qcow2_snapshot *s),
                    void *opaque, struct err *err)
{
    const struct qcow2 *q = qcow2_of(f);
    struct qcow2_snapshot s;
    u64 at = q->h.snapshots_offset;

    for (u32 i = 0; i < q->h.snapshots; i++) {
        int rc = read_entry(f->file, at, &s, &at);

        if (rc)
            return err_sys(err, -rc, "%s: entry %u of the snapshot table at 0x%llx", f->file->name,
                           i, (unsigned long long)q->h.snapshots_offset);
        tell(opaque, i, &s);
    }
    return 0;
}

/*
 * Committing and rebasing: see restack.h.
 *
 * Invariant: what an image needs is on the medium before what makes it needed: the base before the top is emptied, what
 * is written into the top before its header names another base.
 *
 * In the caller's thread; copying has more.
 */
#include "block/restack.h"
#include "block/copy.h"
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int block_commit(struct block_image *top, struct block_image *base, bool keep,
                 struct block_progress *progress, struct err *err)
{
    struct block_copy copy = {.from = top, .to = base, .last = top, .progress = progress};
    int rc = 0;

    while (copy.last->backing)
        copy.last = copy.last->backing;

    if (block_image_size(base) < block_image_size(top))
        rc = block_image_resize(base, block_image_size(top), err);
    if (!rc)
        rc = block_copy(&copy, err);
    if (!rc)
        rc = block_image_flush(base, err);
    if (!rc && !keep)
        rc = qcow2_empty(top->fmt, err);
    return rc;
}

/* --- rebase --- */

/* One cluster that the image itself does not hold: what it shows now must still show on the new base. */
static int keep_cluster(struct block_image *top, struct block_image *base, u64 offset, u64 len,
                        u8 *both, struct err *err)
{
    u8 *old = both, *new = both + top->fmt->cluster_bytes;
    int rc = block_image_read(top, old, len, offset, err);

    if (!rc && base)
        rc = block_read_padded(base, new, len, offset, err);
    if (!rc && !base)
        memset(new, 0, len);
    if (rc || !memcmp(old, new, len))
        return rc;
    /* Without a backing image so far, zeros need no entry, and would get none. */
    rc = -EOPNOTSUPP; /* as version 2 says, too */
    if (block_is_zero(old, len) && top->fmt->backing_name)
        rc = top->fmt->ops->zero(top->fmt, offset, len, false, err);
    return rc == -EOPNOTSUPP ? block_image_write(top, old, len, offset, err) : rc;
}

static int keep_content(struct block_image *top, struct block_image *base,
                        struct block_progress *progress, struct err *err)
{
    u64 size = block_image_size(top), bytes = top->fmt->cluster_bytes, end;
    auto_free u8 *both = malloc(2 * bytes);
    int rc = 0;

    if (!both)
        return err_set(err, ENOMEM, "no memory");
    for (u64 offset = 0; !rc && offset < size; offset = end) {
        struct block_extent e;

        rc = top->fmt->ops->map(top->fmt, offset, size - offset, &e, err);
        end = offset + e.len;
        if (rc || e.kind != BLOCK_KIND_ABSENT)
            continue;
        for (u64 at = offset; !rc && at < end; at += bytes)
            rc = keep_cluster(top, base, at, MIN(bytes, size - at), both, err);
        if (progress)
            progress->tell(progress, end, size);
    }
    return rc;
}

int block_rebase(struct block_image *top, struct block_image *base, const char *name,
                 const char *format, struct block_progress *progress, struct err *err)
{
    int rc = keep_content(top, base, progress, err);

    return rc ? rc : qcow2_set_backing(top->fmt, name, format, err);
}

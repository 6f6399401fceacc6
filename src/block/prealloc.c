/*
 * Preallocation: clusters are handed out and linked as for a write, only that nothing but zeros is put into them, in
 * whatever way was asked for. In the caller's thread.
 */
#include "block/prealloc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEP_BYTES \
    (1 * GiB) /* at once: a host that works for minutes on one call cannot be stopped */
#define ZEROS_BYTES (1 * MiB)

static int write_zeros(struct block_file *f, u64 host, u64 len)
{
    auto_free u8 *zeros = calloc(1, ZEROS_BYTES);
    int rc = zeros ? 0 : -ENOMEM;

    for (u64 done = 0; !rc && done < len; done += ZEROS_BYTES)
        rc = block_file_write(f, zeros, MIN(len - done, ZEROS_BYTES), host + done);
    return rc;
}

static int fill(struct block_file *f, u64 host, u64 len, enum block_prealloc how, struct err *err)
{
    int rc = 0;

    if (how == BLOCK_PREALLOC_FULL)
        rc = write_zeros(f, host, len);
    else if (f->size < host + len || how == BLOCK_PREALLOC_METADATA)
        rc = block_file_zero(f, host, len, true);
    if (!rc && how == BLOCK_PREALLOC_FALLOC)
        rc = block_file_zero(f, host, len, false);
    return rc ? err_sys(err, -rc, "%s: cannot set space apart at 0x%llx", f->name,
                        (unsigned long long)host)
              : 0;
}

int block_image_preallocate(struct block_image *i, u64 from, u64 to, enum block_prealloc how,
                            struct err *err)
{
    const struct block_format_ops *ops = i->fmt->ops;
    u64 offset = ALIGN_UP(from, (u64)i->fmt->cluster_bytes);
    bool raw = !strcmp(ops->name, "raw");
    struct block_room r;
    int rc = 0;

    while (how != BLOCK_PREALLOC_OFF && !rc && offset < to) {
        rc = ops->room(i->fmt, offset, MIN(to - offset, STEP_BYTES), &r, err);
        if (rc)
            break;
        offset = r.start + r.len;
        /* Raw images have room everywhere; others, where something is already. */
        if (!r.fresh && !raw)
            continue;
        rc = fill(r.file, r.host, r.len, how, err);
        if (r.fresh && !rc)
            rc = ops->link(i->fmt, &r, err);
        if (r.fresh && rc)
            ops->drop(i->fmt, &r);
    }
    return rc;
}

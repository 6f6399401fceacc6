/*
 * Copying into compressed clusters. A piece is read as a whole; each cluster of it is packed without a lock; then all of
 * them get their places, side by side, are written in as few writes as that makes possible, and are linked.
 *
 * What does not become smaller stays as it is, and what is zeros takes no space. Each thread of block_copy() has one.
 */
#include "block/copy_packed.h"
#include "block/qcow2_pack.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct copy_packed {
    const struct block_copy *c;
    pthread_mutex_t *turn;
    struct qcow2_packer *packer;
    u8 *out; /* packed clusters behind each other */
    struct qcow2_piece *list;
    unsigned n;
    u64 out_bytes;
    u64 plain, plain_bytes; /* a run of the piece that is written as it is */
};

struct copy_packed *copy_packed_new(const struct block_copy *c, pthread_mutex_t *turn)
{
    struct copy_packed *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->c = c;
    p->turn = turn;
    p->packer = qcow2_packer_new(c->to->fmt);
    p->out = malloc(COPY_PIECE_BYTES);
    p->list = calloc(COPY_PIECE_BYTES / c->to->fmt->cluster_bytes, sizeof(*p->list));
    if (p->packer && p->out && p->list)
        return p;
    copy_packed_free(p);
    return NULL;
}

void copy_packed_free(struct copy_packed *p)
{
    if (!p)
        return;
    qcow2_packer_free(p->packer);
    free(p->out);
    free(p->list);
    free(p);
}

static int write_plain(struct copy_packed *p, u64 offset, const u8 *buf, struct err *err)
{
    u64 at = offset + p->plain, size = block_image_size(p->c->to);
    int rc;

    if (!p->plain_bytes)
        return 0;
    pthread_mutex_lock(p->turn);
    rc = block_image_write(p->c->to, buf + p->plain, MIN(p->plain_bytes, size - at), at, err);
    pthread_mutex_unlock(p->turn);
    p->plain_bytes = 0;
    return rc;
}

/* Those that lie side by side in one write. The file always has whole clusters. */
static int write_places(struct copy_packed *p, struct err *err)
{
    struct block_file *file = p->c->to->fmt->file;
    u64 start = p->list[0].host, bytes = 0, end;
    const u8 *from = p->out;
    int rc = 0;

    for (unsigned i = 0; !rc && i < p->n; i++) {
        bytes += p->list[i].len;
        end = p->list[i].host + p->list[i].len;
        if (i + 1 < p->n && p->list[i + 1].host == end)
            continue;
        rc = block_file_write(file, from, bytes, start);
        from += bytes;
        bytes = 0;
        start = i + 1 < p->n ? p->list[i + 1].host : 0;
        if (!rc && ALIGN_UP(end, (u64)p->c->to->fmt->cluster_bytes) > file->size)
            rc = block_file_zero(file, end, -end & (p->c->to->fmt->cluster_bytes - 1), true);
    }
    return rc ? err_sys(err, -rc, "%s: cannot write compressed clusters", file->name) : 0;
}

static int write_packed(struct copy_packed *p, struct err *err)
{
    struct block_format *to = p->c->to->fmt;
    int rc;

    if (!p->n)
        return 0;
    pthread_mutex_lock(p->turn);
    rc = qcow2_pieces_place(to, p->list, p->n, err);
    if (!rc) {
        rc = write_places(p, err);
        if (rc)
            qcow2_pieces_drop(to, p->list, p->n);
        else
            rc = qcow2_pieces_link(to, p->list, p->n, err);
    }
    pthread_mutex_unlock(p->turn);
    return rc;
}

/* Is all of it something that the target shows by itself? */
static int needs_nothing(const struct copy_packed *p, u64 offset, u64 len, bool *ret_nothing,
                         struct err *err)
{
    bool nothing = p->c->last != NULL;

    for (u64 end = offset + len; nothing && offset < end;) {
        struct block_extent e;
        int rc = block_copy_map(p->c, offset, end - offset, &e, err);

        if (rc)
            return rc;
        nothing = e.kind == BLOCK_KIND_ABSENT;
        offset += e.len;
    }
    *ret_nothing = nothing;
    return 0;
}

/* One cluster, or what the disk has of it at its end: `at` in the piece. */
static int pack(struct copy_packed *p, u64 offset, u64 at, u64 len, const u8 *buf, struct err *err)
{
    u32 bytes = p->c->to->fmt->cluster_bytes, packed = 0;
    bool nothing, whole = len == bytes || offset + at + len == block_image_size(p->c->to);
    int rc = needs_nothing(p, offset + at, len, &nothing, err);

    if (rc)
        return rc;
    if (nothing || block_is_zero(buf + at, len)) {
        rc = write_plain(p, offset, buf, err);
        if (rc || nothing || p->c->to_is_zero)
            return rc;
        return block_image_zero(p->c->to, offset + at, len, true, err);
    }
    if (whole)
        packed = qcow2_pack(p->packer, buf + at, p->out + p->out_bytes);
    if (packed) {
        p->list[p->n++] = (struct qcow2_piece){.offset = offset + at, .len = packed};
        p->out_bytes += packed;
        return write_plain(p, offset, buf, err);
    }
    p->plain = p->plain_bytes ? p->plain : at;
    p->plain_bytes += len;
    return 0;
}

int copy_packed_piece(struct copy_packed *p, u64 offset, u64 end, u8 *buf, struct err *err)
{
    u64 bytes = p->c->to->fmt->cluster_bytes, len = end - offset;
    int rc = block_image_read(p->c->from, buf, len, offset, err);

    memset(buf + len, 0, ALIGN_UP(len, bytes) - len);
    p->n = 0;
    p->out_bytes = p->plain_bytes = 0;
    for (u64 at = 0; !rc && at < len; at += bytes)
        rc = pack(p, offset, at, MIN(bytes, len - at), buf, err);
    if (!rc)
        rc = write_plain(p, offset, buf, err);
    return rc ? rc : write_packed(p, err);
}

/*
 * The cache of L2 tables and of refcount blocks: each is one cluster of the file, found by its place in the table above
 * it, dropped when it is the one that was not used for longest.
 *
 * Invariants: a dirty refcount block may be written at any time, a dirty L2 table only by a commit, which orders it
 * behind what it refers to. With the lock of the image held.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

#define CACHE_BYTES (16 * MiB)
#define CACHE_TABLES_MIN 4

int qcow2_cache_init(struct qcow2_cache *c, u32 nslots, u64 cluster_bytes)
{
    *c = (struct qcow2_cache){.nslots = nslots};
    c->limit = (u32)MAX(CACHE_BYTES / cluster_bytes, (u64)CACHE_TABLES_MIN);
    c->slots = calloc(MAX(nslots, 1u), sizeof(c->slots[0]));
    return c->slots ? 0 : -ENOMEM;
}

void qcow2_cache_fini(struct qcow2_cache *c)
{
    for (struct qcow2_table *t = c->newest, *older; t; t = older) {
        older = t->older;
        free(t);
    }
    free(c->slots);
    *c = (struct qcow2_cache){0};
}

int qcow2_cache_grow(struct qcow2_cache *c, u32 nslots)
{
    struct qcow2_table **slots;

    if (nslots <= c->nslots)
        return 0;
    slots = realloc(c->slots, nslots * sizeof(slots[0]));
    if (!slots)
        return -ENOMEM;
    memset(slots + c->nslots, 0, (nslots - c->nslots) * sizeof(slots[0]));
    c->slots = slots;
    c->nslots = nslots;
    return 0;
}

static void unlink_table(struct qcow2_cache *c, struct qcow2_table *t)
{
    *(t->newer ? &t->newer->older : &c->newest) = t->older;
    *(t->older ? &t->older->newer : &c->oldest) = t->newer;
}

static void link_newest(struct qcow2_cache *c, struct qcow2_table *t)
{
    t->newer = NULL;
    t->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = t;
    c->newest = t;
}

static bool is_dirty(const struct qcow2_table *t)
{
    return t->dirty_from < t->dirty_to;
}

void qcow2_table_drop(struct qcow2_cache *c, u32 index)
{
    struct qcow2_table *t = index < c->nslots ? c->slots[index] : NULL;

    if (!t)
        return;
    c->dirty -= is_dirty(t);
    unlink_table(c, t);
    c->slots[index] = NULL;
    c->count--;
    free(t);
}

void qcow2_table_dirty(struct qcow2_cache *c, struct qcow2_table *t, u32 from, u32 to)
{
    if (!is_dirty(t)) {
        t->dirty_from = from;
        t->dirty_to = to;
        c->dirty++;
        return;
    }
    t->dirty_from = MIN(t->dirty_from, from);
    t->dirty_to = MAX(t->dirty_to, to);
}

int qcow2_table_write(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_table *t,
                      struct err *err)
{
    u32 from = ALIGN_DOWN(t->dirty_from, 512u), to = ALIGN_UP(t->dirty_to, 512u);
    int rc;

    if (!is_dirty(t))
        return 0;
    rc = block_file_write(q->fmt.file, (u8 *)t->entries + from, to - from, t->host + from);
    if (rc)
        return err_sys(err, -rc, "%s: cannot write metadata at 0x%llx", q->fmt.file->name,
                       (unsigned long long)t->host);
    t->dirty_from = t->dirty_to = 0;
    c->dirty--;
    return 0;
}

/* Makes place for one more. The oldest may be needed again by what we do to get rid of it, so it is
 * looked up once more afterwards. */
static int make_place(struct qcow2 *q, struct qcow2_cache *c, struct err *err)
{
    int rc = 0;

    while (!rc && c->count >= c->limit) {
        if (!is_dirty(c->oldest))
            qcow2_table_drop(c, c->oldest->index);
        else if (c == &q->blocks)
            rc = qcow2_table_write(q, c, c->oldest, err);
        else
            rc = qcow2_commit(q, err);
    }
    return rc;
}

static int add_table(struct qcow2 *q, struct qcow2_cache *c, u32 index, u64 host,
                     struct qcow2_table **ret_table, struct err *err)
{
    struct qcow2_table *t;
    int rc = make_place(q, c, err);

    if (rc)
        return rc;
    t = calloc(1, sizeof(*t) + qcow2_cluster(q));
    if (!t)
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    t->host = host;
    t->index = index;
    c->slots[index] = t;
    link_newest(c, t);
    c->count++;
    *ret_table = t;
    return 0;
}

int qcow2_table_get(struct qcow2 *q, struct qcow2_cache *c, u32 index, u64 host,
                    struct qcow2_table **ret_table, struct err *err)
{
    struct qcow2_table *t = c->slots[index];
    int rc;

    if (!t) {
        if (!range_fits(host, qcow2_cluster(q), q->fmt.file->size))
            return err_set(err, EIO, "%s: qcow2 table at 0x%llx lies past the end of the file",
                           q->fmt.file->name, (unsigned long long)host);
        rc = add_table(q, c, index, host, &t, err);
        if (rc)
            return rc;
        rc = block_file_read(q->fmt.file, t->entries, qcow2_cluster(q), host);
        if (rc) {
            qcow2_table_drop(c, index);
            return err_sys(err, -rc, "%s: cannot read the qcow2 table at 0x%llx", q->fmt.file->name,
                           (unsigned long long)host);
        }
    } else if (t != c->newest) {
        unlink_table(c, t);
        link_newest(c, t);
    }
    *ret_table = t;
    return 0;
}

int qcow2_table_put(struct qcow2 *q, struct qcow2_cache *c, u32 index, u64 host,
                    struct qcow2_table **ret_table, struct err *err)
{
    int rc;

    qcow2_table_drop(c, index);
    rc = add_table(q, c, index, host, ret_table, err);
    if (!rc)
        qcow2_table_dirty(c, *ret_table, 0, (u32)qcow2_cluster(q));
    return rc;
}

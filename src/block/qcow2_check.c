/*
 * Finds damage in a qcow2 image, and mends what can be mended without guessing.
 *
 * Everything that refers to clusters is walked and counted: header, tables, internal snapshots, bitmaps. Then the counts
 * are compared with the image's own. A count that is too high is a leak: space is lost, nothing else. One that is too low
 * is corruption: the cluster may be handed out again. So is a COPIED flag where the count is not one, and an entry that
 * points to where nothing can be.
 *
 * Repairing writes counts and flags anew; an entry that points nowhere stays, for what it pointed to cannot be known.
 * With the image to ourselves; the lock is not taken.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define L2_WALKS_MAX (64 * MiB) /* tables; snapshots can name one table many times */
#define SNAPSHOT_BYTES_MAX (16 * MiB)

struct walk {
    struct qcow2 *q;
    struct qcow2_check *c;
    u16 *counts; /* as they should be */
    u64 n;       /* clusters of the file */
    u64 next;    /* where the guest's next cluster would be, were it not fragmented; 0: not known */
    u64 l2_walks;
    bool own_counts; /* count the refcount structures too */
    bool quiet;      /* a second look: faults were reported */
};

__attribute__((format(printf, 3, 4))) static void fault(struct walk *w, bool leak, const char *fmt,
                                                        ...)
{
    char text[200];
    va_list ap;

    if (w->quiet)
        return;
    *(leak ? &w->c->leaks : &w->c->corruptions) += 1;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (w->c->report)
        w->c->report(w->c, leak, text);
}

/* Bytes that something refers to. */
static bool count(struct walk *w, u64 host, u64 bytes, const char *what)
{
    u64 first = host >> w->q->h.cluster_bits, last = (host + bytes - 1) >> w->q->h.cluster_bits;

    if (!bytes)
        return true;
    if (!range_fits(host, bytes, w->n << w->q->h.cluster_bits)) {
        fault(w, false, "%s at 0x%llx lies past the end of the file", what,
              (unsigned long long)host);
        return false;
    }
    for (u64 c = first; c <= last; c++)
        w->counts[c] += w->counts[c] < UINT16_MAX;
    w->c->end = MAX(w->c->end, (last + 1) << w->q->h.cluster_bits);
    return true;
}

static void note_data(struct walk *w, u64 host)
{
    w->c->allocated++;
    w->c->fragmented += w->next && host != w->next;
    w->next = host + qcow2_cluster(w->q);
}

static void walk_entry(struct walk *w, u64 entry, bool active)
{
    struct err err = ERR_INIT;
    u64 host = entry & QCOW2_HOST;
    bool at_zero = w->q->fmt.data_external && entry == QCOW2_COPIED; /* of the data file */

    if (!(entry & (QCOW2_PACKED | QCOW2_HOST | QCOW2_ZERO)) && !at_zero)
        return;
    if (qcow2_entry_check(w->q, entry, &err)) {
        fault(w, false, "%s", err.msg);
        return;
    }
    if (entry & QCOW2_PACKED) {
        struct qcow2_packed p = qcow2_packed(&w->q->h, entry);

        count(w, p.host, MIN((u64)p.len, w->q->fmt.file->size - p.host), "compressed cluster");
        w->c->packed += active;
        w->c->allocated += active;
        w->c->fragmented += active; /* as qemu-img counts them */
        return;
    }
    if (host && !w->q->fmt.data_external)
        count(w, host, qcow2_cluster(w->q), "data cluster");
    if (active && (host || at_zero))
        note_data(w, host);
}

static int walk_l2(struct walk *w, u64 host, u64 *table, bool active, struct err *err)
{
    int rc;

    if (++w->l2_walks > L2_WALKS_MAX)
        return err_set(err, EFBIG, "%s: too many L2 tables to check", w->q->fmt.file->name);
    if (!count(w, host, qcow2_cluster(w->q), "L2 table"))
        return 0;
    rc = block_file_read(w->q->fmt.file, table, qcow2_cluster(w->q), host);
    if (rc == -EIO) {
        fault(w, false, "L2 table at 0x%llx cannot be read", (unsigned long long)host);
        return 0;
    }
    if (rc)
        return err_sys(err, -rc, "%s: L2 table at 0x%llx", w->q->fmt.file->name,
                       (unsigned long long)host);
    w->next = 0; /* each table is looked at alone, as qemu-img does it */
    for (u64 i = 0; i < BIT(w->q->l2_bits); i++)
        walk_entry(w, be64toh(table[i]), active);
    return 0;
}

static int walk_l1(struct walk *w, const u64 *l1, u32 entries, u64 host, bool active,
                   struct err *err)
{
    auto_free u64 *table = malloc(qcow2_cluster(w->q));
    int rc = 0;

    if (!table)
        return err_set(err, ENOMEM, "%s: no memory", w->q->fmt.file->name);
    count(w, host, entries * 8ull, "L1 table");
    for (u32 i = 0; !rc && i < entries; i++) {
        struct err why = ERR_INIT;

        if (qcow2_l1_check(w->q, l1[i], &why))
            fault(w, false, "%s", why.msg);
        else if (l1[i] & QCOW2_HOST)
            rc = walk_l2(w, l1[i] & QCOW2_HOST, table, active, err);
    }
    return rc;
}

static int walk_snapshot(struct walk *w, u64 host, u32 entries, struct err *err)
{
    auto_free u64 *l1 = NULL;
    int rc;

    if (entries * 8ull > QCOW2_L1_BYTES_MAX || host % qcow2_cluster(w->q) ||
        !range_fits(host, entries * 8ull, w->q->fmt.file->size)) {
        fault(w, false, "L1 table of a snapshot at 0x%llx (%u entries) is not in the file",
              (unsigned long long)host, entries);
        return 0;
    }
    l1 = malloc(entries * 8ull + 8);
    if (!l1)
        return err_set(err, ENOMEM, "%s: no memory", w->q->fmt.file->name);
    rc = block_file_read(w->q->fmt.file, l1, entries * 8ull, host);
    if (rc)
        return err_sys(err, -rc, "%s: L1 table of a snapshot", w->q->fmt.file->name);
    for (u32 i = 0; i < entries; i++)
        l1[i] = be64toh(l1[i]);
    return walk_l1(w, l1, entries, host, false, err);
}

/* qcow2.txt, "Snapshots": 40 bytes, extra data, id, name, each entry padded to 8. */
static int walk_snapshots(struct walk *w, struct err *err)
{
    u64 at = w->q->h.snapshots_offset, start = at;

    for (u32 i = 0; i < w->q->h.snapshots; i++) {
        u8 entry[40];
        u64 l1;
        u32 l1_entries, extra;
        u16 id, name;
        int rc = block_file_read(w->q->fmt.file, entry, sizeof(entry), at);

        if (rc || at - start > SNAPSHOT_BYTES_MAX) {
            fault(w, false, "the snapshot table does not end in the file");
            return 0;
        }
        memcpy(&l1, entry, 8);
        memcpy(&l1_entries, entry + 8, 4);
        memcpy(&id, entry + 12, 2);
        memcpy(&name, entry + 14, 2);
        memcpy(&extra, entry + 36, 4);
        rc = walk_snapshot(w, be64toh(l1), be32toh(l1_entries), err);
        if (rc)
            return rc;
        at = ALIGN_UP(at + 40 + be32toh(extra) + be16toh(id) + be16toh(name), 8ull);
    }
    count(w, start, at - start, "snapshot table");
    return 0;
}

static int walk_bitmap(struct walk *w, u64 host, u32 entries, struct err *err)
{
    auto_free u64 *table = NULL;
    int rc;

    if (host % qcow2_cluster(w->q) || !range_fits(host, entries * 8ull, w->q->fmt.file->size)) {
        fault(w, false, "table of a bitmap at 0x%llx is not in the file", (unsigned long long)host);
        return 0;
    }
    table = malloc(entries * 8ull + 8);
    if (!table)
        return err_set(err, ENOMEM, "%s: no memory", w->q->fmt.file->name);
    rc = block_file_read(w->q->fmt.file, table, entries * 8ull, host);
    if (rc)
        return err_sys(err, -rc, "%s: table of a bitmap", w->q->fmt.file->name);
    count(w, host, entries * 8ull, "table of a bitmap");
    for (u32 i = 0; i < entries; i++)
        if (be64toh(table[i]) & QCOW2_HOST)
            count(w, be64toh(table[i]) & QCOW2_HOST, qcow2_cluster(w->q), "bitmap cluster");
    return 0;
}

/* qcow2.txt, "Bitmap directory": 24 bytes, extra data, name, padded to 8. */
static int walk_bitmaps(struct walk *w, struct err *err)
{
    const struct qcow2_header *h = &w->q->h;
    u64 at = 0;

    if (!h->bitmaps || !(h->autoclear & QCOW2_BITMAPS))
        return 0;
    count(w, h->bitmaps_offset, h->bitmaps_bytes, "bitmap directory");
    for (u32 i = 0; i < h->bitmaps; i++) {
        u8 entry[24];
        u64 table;
        u32 entries, extra;
        u16 name;
        int rc = range_fits(at, sizeof(entry), h->bitmaps_bytes)
                     ? block_file_read(w->q->fmt.file, entry, sizeof(entry), h->bitmaps_offset + at)
                     : -EIO;

        if (rc) {
            fault(w, false, "the bitmap directory ends early");
            return 0;
        }
        memcpy(&table, entry, 8);
        memcpy(&entries, entry + 8, 4);
        memcpy(&name, entry + 18, 2);
        memcpy(&extra, entry + 20, 4);
        rc = walk_bitmap(w, be64toh(table), be32toh(entries), err);
        if (rc)
            return rc;
        at = ALIGN_UP(at + sizeof(entry) + be32toh(extra) + be16toh(name), 8ull);
    }
    return 0;
}

/* Returns false when the counts cannot be kept where they are. */
static bool walk_refcounts(struct walk *w)
{
    struct qcow2 *q = w->q;
    u64 bytes = qcow2_cluster(q);
    bool good = count(w, q->h.reftable_offset, q->reftable_entries * 8ull, "refcount table");

    for (u32 i = 0; i < q->reftable_entries; i++) {
        u64 host = q->reftable[i];

        if (!host)
            continue;
        if (host & (bytes - 1) || !range_fits(host, bytes, q->fmt.file->size)) {
            fault(w, false, "refcount table entry %u is damaged (0x%llx)", i,
                  (unsigned long long)host);
            good = false;
        } else if (!count(w, host, bytes, "refcount block") ||
                   w->counts[host >> q->h.cluster_bits] > 1) {
            fault(w, false, "refcount block at 0x%llx is something else too",
                  (unsigned long long)host);
            good = false;
        }
    }
    return good;
}

/* Counts everything; *ret_good as walk_refcounts(). */
static int walk_all(struct walk *w, bool *ret_good, struct err *err)
{
    const struct qcow2_header *h = &w->q->h;
    int rc;

    count(w, 0, qcow2_cluster(w->q), "header");
    rc = walk_l1(w, w->q->l1, h->l1_entries, h->l1_offset, !w->quiet, err);
    if (!rc)
        rc = walk_snapshots(w, err);
    if (!rc)
        rc = walk_bitmaps(w, err);
    if (!rc && w->own_counts)
        *ret_good = walk_refcounts(w);
    return rc;
}

/* --- flags --- */

/* An entry whose COPIED flag does not go with the count (to be mended: the right one; else the image's own, as qemu-img
 * judges it); returns what it should be. */
static u64 flag_checked(struct walk *w, u64 entry, const char *what, u64 *ret_fixed)
{
    u64 host = entry & QCOW2_HOST, cluster = host >> w->q->h.cluster_bits, own = 0;
    bool copied = entry & QCOW2_COPIED, mend = *ret_fixed != UINT64_MAX;

    if (!host || entry & QCOW2_PACKED || cluster >= w->n)
        return entry;
    if (!mend && qcow2_refcount(w->q, cluster, &own, NULL))
        return entry;
    if (copied == ((mend ? w->counts[cluster] : own) == 1))
        return entry;
    if (mend)
        ++*ret_fixed;
    else
        fault(w, false, "%s at 0x%llx: %s", what, (unsigned long long)host,
              copied ? "marked as not shared, but it is" : "marked as shared, but is not");
    return entry ^ QCOW2_COPIED;
}

static int flags_of_l2(struct walk *w, u64 host, u64 *table, bool mend, struct err *err)
{
    u64 fixed = mend ? 0 : UINT64_MAX;
    int rc = block_file_read(w->q->fmt.file, table, qcow2_cluster(w->q), host);

    if (rc)
        return 0; /* reported before */
    for (u64 i = 0; i < BIT(w->q->l2_bits); i++) {
        u64 entry = be64toh(table[i]);

        if (!w->q->fmt.data_external && !qcow2_entry_check(w->q, entry, NULL))
            table[i] = htobe64(flag_checked(w, entry, "data cluster", &fixed));
    }
    if (!mend || !fixed)
        return 0;
    w->c->corruptions_fixed += fixed;
    rc = block_file_write(w->q->fmt.file, table, qcow2_cluster(w->q), host);
    return rc ? err_sys(err, -rc, "%s: cannot write an L2 table", w->q->fmt.file->name) : 0;
}

/* Looks at the flags of the active tables, or (mend) sets them right. */
static int walk_flags(struct walk *w, bool mend, struct err *err)
{
    struct qcow2 *q = w->q;
    auto_free u64 *table = malloc(qcow2_cluster(q));
    u64 fixed = mend ? 0 : UINT64_MAX;
    int rc = 0;

    if (!table)
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    for (u32 i = 0; !rc && i < q->h.l1_entries; i++) {
        u64 before = q->l1[i], entry;

        if (qcow2_l1_check(q, before, NULL) || !(before & QCOW2_HOST))
            continue;
        rc = flags_of_l2(w, before & QCOW2_HOST, table, mend, err);
        entry = flag_checked(w, before, "L2 table", &fixed);
        if (rc || !mend || entry == before)
            continue;
        q->l1[i] = entry;
        entry = htobe64(entry);
        rc = block_file_write(q->fmt.file, &entry, sizeof(entry), q->h.l1_offset + i * 8ull);
        if (rc)
            err_sys(err, -rc, "%s: cannot write the L1 table", q->fmt.file->name);
    }
    if (mend)
        w->c->corruptions_fixed += fixed;
    return rc;
}

/* --- counts --- */

static int compare_one(struct walk *w, u64 cluster, bool mend_leaks, struct err *err)
{
    u64 should = cluster < w->n ? w->counts[cluster] : 0, is = 0;
    int rc = qcow2_refcount(w->q, cluster, &is, err);

    if (rc || is == should)
        return rc;
    if (is > should && mend_leaks) {
        w->c->leaks_fixed++;
        return qcow2_refcount_set(w->q, cluster, should, err);
    }
    fault(w, is > should, "cluster at 0x%llx: refcount %llu, but %llu references",
          (unsigned long long)cluster << w->q->h.cluster_bits, (unsigned long long)is,
          (unsigned long long)should);
    return 0;
}

/* Every cluster that either side knows of. Areas without a block count as zero. */
static int compare_counts(struct walk *w, bool mend_leaks, struct err *err)
{
    u64 per_block = BIT(w->q->rb_bits),
        areas = MAX((u64)w->q->reftable_entries, (w->n + per_block - 1) / per_block);
    int rc = 0;

    for (u64 area = 0; !rc && area < areas; area++) {
        bool has_block = area < w->q->reftable_entries && w->q->reftable[area];
        u64 end = has_block ? (area + 1) * per_block : MIN((area + 1) * per_block, w->n);

        for (u64 c = area * per_block; !rc && c < end; c++)
            rc = compare_one(w, c, mend_leaks, err);
    }
    return rc;
}

/* --- all of it --- */

static int look(struct walk *w, bool mend_leaks, bool *ret_counts_good, struct err *err)
{
    u64 before;
    int rc = walk_all(w, ret_counts_good, err);

    before = w->c->corruptions;
    if (!rc && *ret_counts_good)
        rc = compare_counts(w, false, err);
    if (!rc && mend_leaks && *ret_counts_good && w->c->leaks) {
        w->c->leaks = 0;
        w->quiet = true;
        rc = compare_counts(w, true, err);
        w->quiet = false;
        if (!rc)
            rc = qcow2_write_counts(w->q, err);
    }
    if (!rc && w->c->corruptions > before)
        *ret_counts_good = false;
    /* Where all counts are right, the flags follow from them. */
    if (!rc)
        rc = walk_flags(w, mend_leaks && !w->c->corruptions && !w->c->leaks, err);
    return rc || !mend_leaks ? rc : qcow2_sync(w->q, err);
}

/* Flags and counts as they were found to be right; then everything is looked at again. */
static int mend_all(struct walk *w, bool counts_good, struct err *err)
{
    struct qcow2 *q = w->q;
    u64 found = w->c->corruptions;
    int rc = walk_flags(w, true, err);

    if (!rc && !counts_good) { /* the old structures are not worth a reference any more */
        memset(w->counts, 0, w->n * sizeof(u16));
        w->own_counts = false;
        w->quiet = true;
        rc = walk_all(w, &counts_good, err);
        if (!rc)
            rc = qcow2_rebuild(q, w->counts, w->n, err);
        if (!rc)
            rc = walk_flags(w, true, err); /* clusters may have been shared with them alone */
    }
    if (!rc)
        rc = qcow2_sync(q, err);
    if (rc)
        return rc;
    struct qcow2_check again = {0};
    rc = qcow2_check(&q->fmt, QCOW2_REPAIR_NONE, &again, err);
    w->c->corruptions = again.corruptions;
    w->c->leaks = again.leaks;
    w->c->corruptions_fixed = found > again.corruptions ? found - again.corruptions : 0;
    return rc;
}

static int clear_marks(struct qcow2 *q, struct err *err)
{
    u64 incompat = q->h.incompat & ~(QCOW2_CORRUPT | QCOW2_DIRTY);
    int rc;

    if (q->h.version < 3 || incompat == q->h.incompat)
        return 0;
    rc = qcow2_header_put64(q, QCOW2_AT_INCOMPAT, incompat, err);
    if (!rc)
        rc = qcow2_sync(q, err);
    if (!rc)
        q->h.incompat = incompat;
    return rc;
}

int qcow2_check(struct block_format *f, enum qcow2_repair repair, struct qcow2_check *c,
                struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    struct walk w = {.q = q, .c = c, .own_counts = true};
    bool counts_good = true;
    int rc;

    w.n = (f->file->size + qcow2_cluster(q) - 1) >> q->h.cluster_bits;
    c->clusters = (f->size + qcow2_cluster(q) - 1) >> q->h.cluster_bits;
    w.counts = calloc(MAX(w.n, 1ull), sizeof(u16));
    if (!w.counts)
        return err_set(err, ENOMEM, "%s: no memory for the counts of %llu clusters", f->file->name,
                       (unsigned long long)w.n);
    rc = look(&w, repair != QCOW2_REPAIR_NONE, &counts_good, err);
    if (!rc && repair == QCOW2_REPAIR_ALL && c->corruptions)
        rc = mend_all(&w, counts_good, err);
    if (!rc && repair == QCOW2_REPAIR_ALL && !c->corruptions)
        rc = clear_marks(q, err);
    free(w.counts);
    return rc;
}

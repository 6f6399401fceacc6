/*
 * The header of a qcow2 image and its extensions. Every number is checked before anything is done with it: sizes of
 * tables against limits and the file, offsets against clusters and the file, text against its place.
 *
 * qcow2.txt, "Header", "Feature name table", "Bitmaps extension".
 */
#include "block/qcow2.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CLUSTER_BITS_MIN 9
#define CLUSTER_BITS_MAX 21
#define NAME_MAX_BYTES 1023
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES 0x6803f857u
#define EXT_BITMAPS 0x23852875u
#define EXT_LUKS 0x0537be77u
#define EXT_DATA_FILE 0x44415441u
#define FEATURE_NAME_BYTES 48 /* type, bit, 46 characters */

static u32 get32(const u8 *at)
{
    u32 v;

    memcpy(&v, at, sizeof(v));
    return be32toh(v);
}

static u64 get64(const u8 *at)
{
    u64 v;

    memcpy(&v, at, sizeof(v));
    return be64toh(v);
}

static void put32(u8 *at, u32 v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof(v));
}

static void put64(u8 *at, u64 v)
{
    v = htobe64(v);
    memcpy(at, &v, sizeof(v));
}

/* --- reading --- */

static int read_fields(const u8 *b, struct qcow2_header *h, const char *name, struct err *err)
{
    if (get32(b) != QCOW2_MAGIC)
        return err_set(err, EINVAL, "%s: not a qcow2 image (no QFI\\xfb at its start)", name);
    h->version = get32(b + 4);
    if (h->version != 2 && h->version != 3)
        return err_set(err, ENOTSUP, "%s: qcow2 version %u; there are 2 and 3", name, h->version);
    h->cluster_bits = get32(b + 20);
    if (h->cluster_bits < CLUSTER_BITS_MIN || h->cluster_bits > CLUSTER_BITS_MAX)
        return err_set(err, EINVAL, "%s: qcow2 clusters of 2^%u bytes; 2^9 to 2^21 are allowed",
                       name, h->cluster_bits);
    h->size = get64(b + 24);
    if (get32(b + 32))
        return err_set(err, ENOTSUP, "%s: qcow2 image is encrypted, which is not supported", name);
    h->l1_entries = get32(b + 36);
    h->l1_offset = get64(b + 40);
    h->reftable_offset = get64(b + 48);
    h->reftable_clusters = get32(b + 56);
    h->snapshots = get32(b + 60);
    h->snapshots_offset = get64(b + 64);
    h->refcount_order = 4;
    h->header_len = QCOW2_V2_HEADER_BYTES;
    return 0;
}

static int read_v3_fields(const u8 *b, size_t len, struct qcow2_header *h, const char *name,
                          struct err *err)
{
    u8 compression;

    h->incompat = get64(b + 72);
    h->compat = get64(b + 80);
    h->autoclear = get64(b + 88);
    h->refcount_order = get32(b + 96);
    h->header_len = get32(b + 100);
    if (h->header_len < QCOW2_V3_HEADER_BYTES || h->header_len % 8 || h->header_len > len)
        return err_set(err, EINVAL, "%s: qcow2 header of %u bytes; 104 to a cluster, in steps of 8",
                       name, h->header_len);
    if (h->refcount_order > 6)
        return err_set(err, EINVAL, "%s: qcow2 refcounts of 2^%u bits; at most 64", name,
                       h->refcount_order);
    compression = h->header_len > QCOW2_V3_HEADER_BYTES ? b[104] : 0;
    if (compression > QCOW2_ZSTD)
        return err_set(err, ENOTSUP,
                       "%s: qcow2 compression type %u; known are 0 (zlib) and 1 (zstd)", name,
                       compression);
    if (compression && !(h->incompat & QCOW2_COMPRESSION))
        return err_set(err, EINVAL, "%s: qcow2 compression type without its feature bit", name);
    h->compression = compression;
    return 0;
}

/* A table of `bytes` at `offset`: in whole clusters, and all of it in the file. */
static int check_table(const struct qcow2_header *h, u64 offset, u64 bytes, u64 file_size,
                       const char *what, const char *name, struct err *err)
{
    if (offset & (BIT(h->cluster_bits) - 1))
        return err_set(err, EINVAL, "%s: qcow2 %s at 0x%llx does not begin a cluster", name, what,
                       (unsigned long long)offset);
    if (!range_fits(offset, bytes, file_size) || (bytes && !offset))
        return err_set(err, EINVAL, "%s: qcow2 %s at 0x%llx lies past the end of the file", name,
                       what, (unsigned long long)offset);
    return 0;
}

static int check_tables(const struct qcow2_header *h, u64 file_size, const char *name,
                        struct err *err)
{
    u64 span_bits = 2 * h->cluster_bits - 3, needed = h->size >> span_bits;
    u64 l1_bytes = h->l1_entries * 8ull,
        reftable_bytes = (u64)h->reftable_clusters << h->cluster_bits;

    needed += (h->size & (BIT(span_bits) - 1)) != 0;
    if (h->size > INT64_MAX - 512 || needed > QCOW2_L1_BYTES_MAX / 8)
        return err_set(err, EFBIG, "%s: qcow2 disk of 0x%llx bytes is too large for its clusters",
                       name, (unsigned long long)h->size);
    if (l1_bytes > QCOW2_L1_BYTES_MAX || h->l1_entries < needed)
        return err_set(err, EINVAL, "%s: qcow2 L1 table of %u entries, where %llu are needed", name,
                       h->l1_entries, (unsigned long long)needed);
    if (check_table(h, h->l1_offset, l1_bytes, file_size, "L1 table", name, err))
        return -EINVAL;
    if (!h->reftable_clusters || reftable_bytes > QCOW2_REFTABLE_BYTES_MAX)
        return err_set(err, EINVAL,
                       "%s: qcow2 refcount table of %u clusters; 1 to 8 MiB are allowed", name,
                       h->reftable_clusters);
    if (check_table(h, h->reftable_offset, reftable_bytes, file_size, "refcount table", name, err))
        return -EINVAL;
    if (h->snapshots > QCOW2_SNAPSHOTS_MAX)
        return err_set(err, EINVAL, "%s: qcow2 with %u snapshots; at most %d", name, h->snapshots,
                       QCOW2_SNAPSHOTS_MAX);
    return h->snapshots ? check_table(h, h->snapshots_offset, h->snapshots * 40ull, file_size,
                                      "snapshot table", name, err)
                        : 0;
}

/* Text of the image as a string of ours; control characters and zeros in names are refused. */
static int take_text(const u8 *at, size_t len, const char *what, const char *name, char **ret_text,
                     struct err *err)
{
    char *text;

    for (size_t i = 0; i < len; i++)
        if (at[i] < ' ' || at[i] == 0x7f)
            return err_set(err, EINVAL, "%s: qcow2 %s has control characters in it", name, what);
    text = strndup((const char *)at, len);
    if (!text)
        return err_set(err, ENOMEM, "%s: no memory", name);
    free(*ret_text);
    *ret_text = text;
    return 0;
}

/* The image's own name for a feature bit, made printable. */
static void feature_name(const u8 *b, size_t len, const struct qcow2_header *h, u32 bit,
                         char *ret_name, size_t size)
{
    u64 at = h->header_len;

    ret_name[0] = '\0';
    while (at + 8 <= len && get32(b + at)) {
        u32 type = get32(b + at), bytes = get32(b + at + 4);

        at += 8;
        if (!range_fits(at, bytes, len))
            return;
        for (u32 i = 0; type == EXT_FEATURE_NAMES && i + FEATURE_NAME_BYTES <= bytes;
             i += FEATURE_NAME_BYTES) {
            const u8 *entry = b + at + i;

            if (entry[0] != 0 || entry[1] != bit)
                continue;
            snprintf(ret_name, size, " (%.46s)", (const char *)entry + 2);
            for (char *p = ret_name; *p; p++)
                if (!isprint((unsigned char)*p))
                    *p = '?';
        }
        at += ALIGN_UP(bytes, 8u);
    }
}

static int check_features(const u8 *b, size_t len, const struct qcow2_header *h, const char *name,
                          struct err *err)
{
    u64 unknown = h->incompat & ~QCOW2_INCOMPAT_KNOWN;
    char text[64];
    u32 bit;

    if (!unknown)
        return 0;
    bit = (u32)__builtin_ctzll(unknown);
    feature_name(b, len, h, bit, text, sizeof(text));
    return err_set(err, ENOTSUP,
                   "%s: qcow2 needs incompatible feature %u%s, which is not supported", name, bit,
                   text);
}

static int read_bitmaps(const u8 *at, u32 bytes, struct qcow2_header *h, u64 file_size,
                        const char *name, struct err *err)
{
    if (bytes != 24)
        return err_set(err, EINVAL, "%s: qcow2 bitmaps extension of %u bytes", name, bytes);
    h->bitmaps = get32(at);
    h->bitmaps_bytes = get64(at + 8);
    h->bitmaps_offset = get64(at + 16);
    if (h->bitmaps > 65535 || h->bitmaps_bytes > 64 * MiB)
        return err_set(err, EINVAL, "%s: qcow2 with %u bitmaps, %llu bytes of directory", name,
                       h->bitmaps, (unsigned long long)h->bitmaps_bytes);
    return check_table(h, h->bitmaps_offset, h->bitmaps_bytes, file_size, "bitmap directory", name,
                       err);
}

static int read_extensions(const u8 *b, size_t len, struct qcow2_header *h, u64 file_size,
                           struct block_format *fmt, const char *name, struct err *err)
{
    u64 at = h->header_len;

    while (at + 8 <= len && get32(b + at)) {
        u32 type = get32(b + at), bytes = get32(b + at + 4);
        int rc = 0;

        at += 8;
        if (!range_fits(at, bytes, len))
            return err_set(err, EINVAL, "%s: qcow2 header extension 0x%x is longer than its place",
                           name, type);
        if (type == EXT_BACKING_FORMAT)
            rc = take_text(b + at, bytes, "backing format", name, &fmt->backing_format, err);
        else if (type == EXT_DATA_FILE)
            rc = take_text(b + at, bytes, "data file name", name, &fmt->data_name, err);
        else if (type == EXT_BITMAPS && h->autoclear & QCOW2_BITMAPS)
            rc = read_bitmaps(b + at, bytes, h, file_size, name, err);
        else if (type == EXT_LUKS)
            rc =
                err_set(err, ENOTSUP, "%s: qcow2 image is encrypted, which is not supported", name);
        if (rc)
            return rc;
        at += ALIGN_UP((u64)bytes, 8u);
    }
    return 0;
}

static int read_backing(const u8 *b, size_t len, struct block_format *fmt, const char *name,
                        struct err *err)
{
    u64 offset = get64(b + QCOW2_AT_BACKING);
    u32 bytes = get32(b + 16);

    if (!offset)
        return 0;
    if (bytes > NAME_MAX_BYTES || !range_fits(offset, bytes, len))
        return err_set(err, EINVAL,
                       "%s: qcow2 backing file name (%u bytes at 0x%llx) is not in the header",
                       name, bytes, (unsigned long long)offset);
    return bytes ? take_text(b + offset, bytes, "backing file name", name, &fmt->backing_name, err)
                 : 0;
}

static int read_cluster(struct block_file *file, u8 *b, size_t len, struct qcow2_header *h,
                        struct block_format *fmt, struct err *err)
{
    u64 backing = get64(b + QCOW2_AT_BACKING), ext_end = len;
    int rc = 0;

    if (h->version == 3)
        rc = read_v3_fields(b, len, h, file->name, err);
    if (!rc)
        rc = check_features(b, len, h, file->name, err);
    if (!rc)
        rc = check_tables(h, file->size, file->name, err);
    if (!rc)
        rc = read_backing(b, len, fmt, file->name, err);
    if (!rc && backing >= h->header_len && backing < len)
        ext_end = backing; /* extensions end where the name begins */
    if (!rc)
        rc = read_extensions(b, ext_end, h, file->size, fmt, file->name, err);
    fmt->data_external = h->incompat & QCOW2_DATA_FILE;
    return rc;
}

int qcow2_header_read(struct block_file *file, struct qcow2_header *h, struct block_format *fmt,
                      struct err *err)
{
    u8 first[QCOW2_V3_HEADER_BYTES + 8] = {0};
    auto_free u8 *cluster = NULL;
    size_t len;
    int rc = block_file_read(file, first, MIN(sizeof(first), (size_t)file->size), 0);

    *h = (struct qcow2_header){0};
    if (rc)
        return err_sys(err, -rc, "%s: cannot read the header", file->name);
    rc = read_fields(first, h, file->name, err);
    if (rc)
        return rc;
    len = MIN(BIT(h->cluster_bits), file->size);
    if (len < sizeof(first))
        return err_set(err, EINVAL, "%s: qcow2 file of %zu bytes ends in its header", file->name,
                       len);
    cluster = malloc(len);
    if (!cluster)
        return err_set(err, ENOMEM, "%s: no memory", file->name);
    rc = block_file_read(file, cluster, len, 0);
    if (rc)
        return err_sys(err, -rc, "%s: cannot read the header", file->name);
    rc = read_fields(cluster, h, file->name, err); /* again: it may have changed meanwhile */
    if (!rc && BIT(h->cluster_bits) < len)
        rc = err_set(err, EBUSY, "%s: changes while it is read", file->name);
    return rc ? rc : read_cluster(file, cluster, len, h, fmt, err);
}

/* --- writing --- */

static const struct {
    u8 type, bit;
    const char *name;
} feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

/* Appends an extension; returns the offset behind it, or 0 when it does not fit. */
static u64 put_extension(u8 *b, u64 at, u64 end, u32 type, const void *data, u32 bytes)
{
    if (!at || !range_fits(at, 8ull + ALIGN_UP(bytes, 8u), end))
        return 0;
    put32(b + at, type);
    put32(b + at + 4, bytes);
    memcpy(b + at + 8, data, bytes);
    return at + 8 + ALIGN_UP(bytes, 8u);
}

static u64 put_extensions(u8 *b, u64 at, u64 end, const struct qcow2_header *h,
                          const struct block_format *fmt)
{
    u8 names[ARRAY_LEN(feature_names) * FEATURE_NAME_BYTES] = {0}, bitmaps[24] = {0};

    for (unsigned i = 0; i < ARRAY_LEN(feature_names); i++) {
        u8 *entry = names + i * FEATURE_NAME_BYTES;

        entry[0] = feature_names[i].type;
        entry[1] = feature_names[i].bit;
        memcpy(entry + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    if (fmt->backing_format)
        at = put_extension(b, at, end, EXT_BACKING_FORMAT, fmt->backing_format,
                           (u32)strlen(fmt->backing_format));
    if (fmt->data_name)
        at = put_extension(b, at, end, EXT_DATA_FILE, fmt->data_name, (u32)strlen(fmt->data_name));
    if (h->bitmaps && h->autoclear & QCOW2_BITMAPS) {
        put32(bitmaps, h->bitmaps);
        put64(bitmaps + 8, h->bitmaps_bytes);
        put64(bitmaps + 16, h->bitmaps_offset);
        at = put_extension(b, at, end, EXT_BITMAPS, bitmaps, sizeof(bitmaps));
    }
    /* A small cluster may have no place for what is only for people. */
    if (h->version == 3 && at && at + sizeof(names) + 16 + NAME_MAX_BYTES < end)
        at = put_extension(b, at, end, EXT_FEATURE_NAMES, names, sizeof(names));
    return at && at + 8 <= end ? at + 8 : 0; /* the end marker is zeros */
}

/* The first `end` bytes. name_at: the name of the backing file is there already; 0: put it behind the extensions. */
static int make(const struct qcow2_header *h, const struct block_format *fmt, u8 *cluster, u64 end,
                u64 name_at, struct err *err)
{
    u64 at = h->version == 3 ? 112 : QCOW2_V2_HEADER_BYTES;
    size_t name_len = fmt->backing_name ? strlen(fmt->backing_name) : 0;

    memset(cluster, 0, end);
    put32(cluster, QCOW2_MAGIC);
    put32(cluster + 4, h->version);
    put32(cluster + 20, h->cluster_bits);
    put64(cluster + 24, h->size);
    put32(cluster + 36, h->l1_entries);
    put64(cluster + 40, h->l1_offset);
    put64(cluster + 48, h->reftable_offset);
    put32(cluster + 56, h->reftable_clusters);
    put32(cluster + 60, h->snapshots);
    put64(cluster + 64, h->snapshots_offset);
    if (h->version == 3) {
        put64(cluster + 72, h->incompat);
        put64(cluster + 80, h->compat);
        put64(cluster + 88, h->autoclear);
        put32(cluster + 96, h->refcount_order);
        put32(cluster + 100, (u32)at);
        cluster[104] = (u8)h->compression;
    }
    at = put_extensions(cluster, at, end, h, fmt);
    if (name_len > NAME_MAX_BYTES || !at || (!name_at && !range_fits(at, name_len, end)))
        return err_set(
            err, ENAMETOOLONG,
            "the name of the backing file does not fit into the header (clusters of %llu bytes)",
            (unsigned long long)BIT(h->cluster_bits));
    if (name_len) {
        put64(cluster + QCOW2_AT_BACKING, name_at ? name_at : at);
        put32(cluster + 16, (u32)name_len);
        if (!name_at)
            memcpy(cluster + at, fmt->backing_name, name_len);
    }
    return 0;
}

int qcow2_header_make(const struct qcow2_header *h, const struct block_format *fmt, u8 *cluster,
                      struct err *err)
{
    return make(h, fmt, cluster, BIT(h->cluster_bits), 0, err);
}

int qcow2_header_sector(const struct qcow2_header *h, const struct block_format *fmt, u64 name_at,
                        u8 sector[512], struct err *err)
{
    return make(h, fmt, sector, 512, name_at, err);
}

static int put(struct qcow2 *q, u32 at, const void *bytes, size_t len, struct err *err)
{
    int rc = block_file_write(q->fmt.file, bytes, len, at);

    return rc ? err_sys(err, -rc, "%s: cannot write the header", q->fmt.file->name) : 0;
}

int qcow2_header_put64(struct qcow2 *q, u32 at, u64 value, struct err *err)
{
    u8 b[8];

    put64(b, value);
    return put(q, at, b, sizeof(b), err);
}

int qcow2_header_put96(struct qcow2 *q, u32 at, u64 wide, u32 narrow, bool wide_first,
                       struct err *err)
{
    u8 b[12];

    put64(b + (wide_first ? 0 : 4), wide);
    put32(b + (wide_first ? 8 : 0), narrow);
    return put(q, at, b, sizeof(b), err);
}

int qcow2_header_whole(struct block_format *f, bool whole, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    u8 magic[4];
    int rc = whole ? f->ops->freeze(f, err) : 0;

    if (rc)
        return rc;
    put32(magic, whole ? QCOW2_MAGIC : 0);
    rc = put(q, 0, magic, sizeof(magic), err);
    return rc ? rc : qcow2_sync(q, err);
}

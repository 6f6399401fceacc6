/*
 * The contract between disk formats and what moves bytes. A format only maps ranges of the guest's disk to ranges of
 * files and makes room for new ones; it never touches the guest's bytes, except that it can unpack a compressed
 * cluster. Formats wait for their own metadata, which they cache.
 *
 * To write where nothing may be written in place: room() hands out new clusters, which nobody can see yet; the caller
 * fills all of them; link() makes them the guest's. The format orders its metadata so that whatever prefix or subset of
 * the writes since the last flush reaches the medium, the image stays consistent.
 *
 * All calls may come from any thread. Two that change the same range at a time are the caller's mistake.
 */
#ifndef BLOCK_FORMAT_H
#define BLOCK_FORMAT_H

#include "block/file.h"

enum block_kind {
    BLOCK_KIND_DATA,   /* bytes of a file */
    BLOCK_KIND_ZERO,   /* reads as zeros */
    BLOCK_KIND_ABSENT, /* not in this image: the backing image's, zeros without one */
    BLOCK_KIND_PACKED, /* a compressed cluster: unpack() */
};

struct block_extent {
    enum block_kind kind;
    u64 len;                 /* bytes from the offset asked for, at least 1 */
    struct block_file *file; /* DATA, PACKED: where they are */
    u64 host;                /* DATA: offset there; PACKED: of the compressed bytes */
    u64 cluster;             /* PACKED: where the cluster begins in the guest's disk */
    u32 packed_len;          /* PACKED: compressed bytes, at most */
    bool in_place;           /* DATA: may be written where it is */
    bool room;               /* ZERO: takes space in the file all the same (host) */
};

/* Where to write [offset, ...): `start` <= offset; whole clusters when fresh. */
struct block_room {
    struct block_file *file;
    u64 start, len; /* of the guest's disk */
    u64 host;       /* where `start` is in the file */
    bool fresh;     /* to be filled, then linked or dropped */
};

struct block_format;

struct block_format_ops {
    const char *name;
    void (*close)(struct block_format *f); /* flushes what it can; the file stays the caller's */
    /* offset < size. */
    int (*map)(struct block_format *f, u64 offset, u64 len, struct block_extent *ret_extent,
               struct err *err);
    /* map() of this offset needs no input or output now. */
    bool (*ready)(struct block_format *f, u64 offset);
    /* buf: a whole cluster. */
    int (*unpack)(struct block_format *f, const struct block_extent *e, void *buf, struct err *err);
    int (*room)(struct block_format *f, u64 offset, u64 len, struct block_room *ret_room,
                struct err *err);
    int (*link)(struct block_format *f, const struct block_room *r, struct err *err);
    void (*drop)(struct block_format *f, const struct block_room *r);
    /* Whole clusters, or up to the end of the disk, read as zeros from now on. unmap: without taking space.
     * -EOPNOTSUPP: write zeros instead. */
    int (*zero)(struct block_format *f, u64 offset, u64 len, bool unmap, struct err *err);
    int (*flush)(struct block_format *f, struct err *err); /* everything is on the medium */
    /* Like flush, and nothing will be written any more: as a close leaves it. It stays open, read-only. */
    int (*freeze)(struct block_format *f, struct err *err);
    /* Bytes that appear read as zeros unless a backing image has them. */
    int (*resize)(struct block_format *f, u64 size, struct err *err);
};

struct block_format {
    const struct block_format_ops *ops;
    struct block_file *file; /* the image */
    struct block_file *data; /* where DATA is: the image or an external file */
    u64 size;                /* of the guest's disk, bytes */
    u32 cluster_bytes;       /* what is mapped at once */
    bool readonly;
    /* What the image says of other files, NULL: nothing. Foreign text: never to be opened unseen. */
    char *backing_name, *backing_format, *data_name;
    bool data_external;
};

struct block_format_options {
    bool readonly;
    bool
        repair; /* open in spite of damage that check() can mend; nothing else may be done with it */
};

/* Take the file's content for that format. The file stays the caller's. */
int block_raw_open(struct block_file *file, const struct block_format_options *o,
                   struct block_format **ret_format, struct err *err);
int block_qcow2_open(struct block_file *file, const struct block_format_options *o,
                     struct block_format **ret_format, struct err *err);

#endif

/*
 * The snapshot stream: a head, named sections, an end that counts them. Read as hostile input.
 *
 *   head     "TRAPEZE\0", u32 format version, u32 0
 *   section  name[32] padded with zeros, u32 instance, u32 version, u64 length; `length` bytes; u32
 * CRC-32 of both end      a section called "end", version 0, length 0, whose instance is the number
 * of sections before it
 *
 * All numbers are little-endian. A reader learns the length before it reads the bytes, and decides
 * itself how much it is ready to take: nothing here allocates.
 */
#ifndef STATE_STREAM_H
#define STATE_STREAM_H

#include "base/err.h"

#define STATE_MAGIC "TRAPEZE" /* the first bytes, with the zero */
#define STATE_FORMAT 1
#define STATE_NAME_BYTES 32 /* with at least one zero */

/* Where a stream goes: takes all len bytes, or -errno. */
struct state_sink {
    int (*write)(void *opaque, const void *buf, size_t len);
    void *opaque;
};

/* Where a stream comes from: gives exactly len bytes, or -errno; -ENODATA when it ends before. */
struct state_source {
    int (*read)(void *opaque, void *buf, size_t len);
    void *opaque;
};

struct state_section {
    char name[STATE_NAME_BYTES];
    u32 instance, version;
    u64 len; /* bytes */
    u32 crc; /* reader only: of the head, to go on with over the bytes */
};

int state_write_head(const struct state_sink *to, struct err *err);
int state_write_section(const struct state_sink *to, const char *name, u32 instance, u32 version,
                        const void *bytes, u64 len, struct err *err);
int state_write_end(const struct state_sink *to, u32 sections, struct err *err);

int state_read_head(const struct state_source *from, struct err *err);
/* The next section's head. Names are checked to be printable; everything else is the caller's to
 * judge. */
int state_read_section(const struct state_source *from, struct state_section *ret_section,
                       struct err *err);
/* Its section->len bytes, and the checksum: -EBADMSG when it is wrong. */
int state_read_bytes(const struct state_source *from, const struct state_section *section,
                     void *ret_bytes, struct err *err);
/* The same for bytes that nobody keeps: only the checksum is of interest. */
int state_check_bytes(const struct state_source *from, const struct state_section *section,
                      struct err *err);
bool state_is_end(const struct state_section *section);

/* A stream in memory. */
struct state_buf {
    u8 *data; /* writing: on the heap, owned */
    size_t len, capacity;
    size_t at; /* reading: the next byte */
};

void state_buf_fini(struct state_buf *b);
struct state_sink state_buf_sink(struct state_buf *b);
struct state_source state_buf_source(struct state_buf *b);

/* A stream through a descriptor, which stays the caller's; *fd must live as long as the result. */
struct state_sink state_fd_sink(int *fd);
struct state_source state_fd_source(int *fd);

#endif

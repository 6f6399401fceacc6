/*
 * The snapshot stream's framing. Invariants:
 *  1. No byte of a section is believed before the checksum over its head and all of its bytes held;
 * only the length is used earlier, and by the caller's own bounds.
 *  2. Nothing is allocated from a number in the stream.
 */
#include "state/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#define HEAD_BYTES 16
#define SECTION_HEAD_BYTES (STATE_NAME_BYTES + 4 + 4 + 8)
#define END_NAME "end"

static const char magic[] = STATE_MAGIC;

static void put_number(u8 *buf, u64 value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        buf[i] = (u8)(value >> (i * 8));
}

static u64 get_number(const u8 *buf, unsigned bytes)
{
    u64 value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (u64)buf[i] << (i * 8);
    return value;
}

static int put(const struct state_sink *to, const void *buf, size_t len, struct err *err)
{
    int rc = len ? to->write(to->opaque, buf, len) : 0;

    return rc ? err_sys(err, -rc, "cannot write saved state") : 0;
}

static int get(const struct state_source *from, void *buf, size_t len, struct err *err)
{
    int rc = len ? from->read(from->opaque, buf, len) : 0;

    if (rc == -ENODATA)
        return err_set(err, ENODATA, "saved state ends too early");
    return rc ? err_sys(err, -rc, "cannot read saved state") : 0;
}

int state_write_head(const struct state_sink *to, struct err *err)
{
    u8 head[HEAD_BYTES] = {0};

    memcpy(head, magic, sizeof(magic));
    put_number(head + 8, STATE_FORMAT, 4);
    return put(to, head, sizeof(head), err);
}

int state_write_section(const struct state_sink *to, const char *name, u32 instance, u32 version,
                        const void *bytes, u64 len, struct err *err)
{
    u8 head[SECTION_HEAD_BYTES] = {0}, sum[4];
    size_t name_len = strlen(name);
    u32 crc;
    int rc;

    if (!name_len || name_len >= STATE_NAME_BYTES)
        return err_set(err, EINVAL, "state section '%s': name has 1 to %d letters", name,
                       STATE_NAME_BYTES - 1);
    memcpy(head, name, name_len);
    put_number(head + STATE_NAME_BYTES, instance, 4);
    put_number(head + STATE_NAME_BYTES + 4, version, 4);
    put_number(head + STATE_NAME_BYTES + 8, len, 8);
    crc = (u32)crc32_z(0, head, sizeof(head));
    if (len)
        crc = (u32)crc32_z(crc, bytes, len);
    put_number(sum, crc, 4);
    rc = put(to, head, sizeof(head), err);
    if (!rc)
        rc = put(to, bytes, len, err);
    return rc ? rc : put(to, sum, sizeof(sum), err);
}

int state_write_end(const struct state_sink *to, u32 sections, struct err *err)
{
    return state_write_section(to, END_NAME, sections, 0, NULL, 0, err);
}

int state_read_head(const struct state_source *from, struct err *err)
{
    u8 head[HEAD_BYTES];
    int rc = get(from, head, sizeof(head), err);

    if (rc)
        return rc;
    if (memcmp(head, magic, sizeof(magic)))
        return err_set(err, EINVAL, "this is not a saved state of ours");
    if (get_number(head + 8, 4) != STATE_FORMAT || get_number(head + 12, 4))
        return err_set(err, ENOTSUP, "saved state has format %" PRIu64 ", this program reads %d",
                       get_number(head + 8, 4), STATE_FORMAT);
    return 0;
}

/* Printable ASCII, then zeros to the end, at least one. */
static bool is_good_name(const u8 *name)
{
    unsigned len = 0;

    while (len < STATE_NAME_BYTES && name[len] > ' ' && name[len] < 0x7f)
        len++;
    for (unsigned i = len; i < STATE_NAME_BYTES; i++) {
        if (name[i])
            return false;
    }
    return len > 0 && len < STATE_NAME_BYTES;
}

int state_read_section(const struct state_source *from, struct state_section *ret_section,
                       struct err *err)
{
    u8 head[SECTION_HEAD_BYTES];
    int rc = get(from, head, sizeof(head), err);

    if (rc)
        return rc;
    if (!is_good_name(head))
        return err_set(err, EBADMSG, "saved state has a section whose name is rubbish");
    memcpy(ret_section->name, head, STATE_NAME_BYTES);
    ret_section->instance = (u32)get_number(head + STATE_NAME_BYTES, 4);
    ret_section->version = (u32)get_number(head + STATE_NAME_BYTES + 4, 4);
    ret_section->len = get_number(head + STATE_NAME_BYTES + 8, 8);
    ret_section->crc = (u32)crc32_z(0, head, sizeof(head));
    return 0;
}

/* What stands behind a section's bytes, whose checksum is `crc`. */
static int get_sum(const struct state_source *from, const struct state_section *section, u32 crc,
                   struct err *err)
{
    u8 sum[4];
    int rc = get(from, sum, sizeof(sum), err);

    if (rc)
        return err_wrap(err, "%s", section->name);
    if (crc != get_number(sum, 4))
        return err_set(err, EBADMSG, "%s: checksum is wrong; the saved state is damaged",
                       section->name);
    return 0;
}

int state_read_bytes(const struct state_source *from, const struct state_section *section,
                     void *ret_bytes, struct err *err)
{
    u32 crc = section->crc;

    if (get(from, ret_bytes, section->len, err))
        return err_wrap(err, "%s", section->name);
    if (section->len)
        crc = (u32)crc32_z(crc, ret_bytes, section->len);
    return get_sum(from, section, crc, err);
}

int state_check_bytes(const struct state_source *from, const struct state_section *section,
                      struct err *err)
{
    u32 crc = section->crc;
    u8 buf[4 * KiB];

    for (u64 left = section->len, n; left; left -= n) {
        n = MIN(left, sizeof(buf));
        if (get(from, buf, n, err))
            return err_wrap(err, "%s", section->name);
        crc = (u32)crc32_z(crc, buf, n);
    }
    return get_sum(from, section, crc, err);
}

bool state_is_end(const struct state_section *section)
{
    return !strcmp(section->name, END_NAME);
}

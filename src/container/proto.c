/*
 * Protocol Buffers' wire format: a message is a list of fields, each a key (number and wire type) and a varint, a
 * length with bytes, or 4 or 8 bytes.
 */
#include "container/proto.h"

#include <stdlib.h>
#include <string.h>

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

void proto_fini(struct proto *p)
{
    free(p->data);
    *p = (struct proto){0};
}

static void put(struct proto *p, const void *data, size_t len)
{
    if (p->len + len > p->size) {
        size_t size = MAX(2 * p->size, p->len + len + 256);
        u8 *bigger = realloc(p->data, size);

        p->failed |= !bigger;
        if (!bigger)
            return;
        p->data = bigger;
        p->size = size;
    }
    memcpy(p->data + p->len, data, len);
    p->len += len;
}

static void put_varint(struct proto *p, u64 value)
{
    u8 bytes[10];
    size_t n = 0;

    do
        bytes[n++] = (u8)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    while (value >>= 7);
    put(p, bytes, n);
}

void proto_u64(struct proto *p, unsigned field, u64 value)
{
    put_varint(p, (u64)field << 3 | WIRE_VARINT);
    put_varint(p, value);
}

static void put_bytes(struct proto *p, unsigned field, const void *data, size_t len)
{
    put_varint(p, (u64)field << 3 | WIRE_BYTES);
    put_varint(p, len);
    if (len)
        put(p, data, len);
}

void proto_str(struct proto *p, unsigned field, const char *text)
{
    if (text)
        put_bytes(p, field, text, strlen(text));
}

void proto_msg(struct proto *p, unsigned field, const struct proto *sub)
{
    p->failed |= sub->failed;
    put_bytes(p, field, sub->data, sub->len);
}

static bool take_varint(const u8 **data, size_t *len, u64 *ret)
{
    u64 value = 0;

    for (unsigned shift = 0; shift < 64 && *len; shift += 7) {
        u8 byte = *(*data)++;

        (*len)--;
        value |= (u64)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

bool proto_next(const u8 **data, size_t *len, struct proto_field *ret)
{
    struct proto_field f = {0};
    u64 key, n;

    if (!take_varint(data, len, &key))
        return false;
    f.field = (unsigned)(key >> 3);
    switch (key & 7) {
    case WIRE_VARINT:
        if (!take_varint(data, len, &f.value))
            return false;
        *ret = f;
        return true;
    case WIRE_FIXED64:
        n = 8;
        break;
    case WIRE_FIXED32:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!take_varint(data, len, &n))
            return false;
        break;
    default:
        return false;
    }
    if (n > *len)
        return false;
    f.data = *data;
    f.len = n;
    *data += n;
    *len -= n;
    *ret = f;
    return true;
}

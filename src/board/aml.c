/*
 * ACPI machine language, as much of it as describing fixed hardware takes. ACPI 6.4, 20.2
 * (grammar), 6.4 (resources).
 *
 * Package lengths are always written in the form of three bytes, so that a package can be filled
 * before its length is known.
 */
#include "board/aml.h"

#include <string.h>

enum {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_METHOD = 0x14,
    AML_EXT = 0x5b,
    AML_EXT_DEVICE = 0x82,
    AML_ROOT = 0x5c,
    AML_NOTIFY = 0x86,
};

void aml_bytes(struct aml *a, const void *bytes, size_t len)
{
    if (a->overflow || len > a->cap - a->len) {
        a->overflow = true;
        return;
    }
    memcpy(a->buf + a->len, bytes, len);
    a->len += len;
}

void aml_byte(struct aml *a, u8 byte)
{
    aml_bytes(a, &byte, 1);
}

void aml_int(struct aml *a, u64 value)
{
    if (value <= 1) {
        aml_byte(a, (u8)value);
    } else if (value <= 0xff) {
        aml_byte(a, AML_BYTE);
        aml_bytes(a, &value, 1);
    } else if (value <= 0xffff) {
        aml_byte(a, AML_WORD);
        aml_bytes(a, &value, 2);
    } else if (value <= 0xffffffff) {
        aml_byte(a, AML_DWORD);
        aml_bytes(a, &value, 4);
    } else {
        aml_byte(a, AML_QWORD);
        aml_bytes(a, &value, 8);
    }
}

void aml_string(struct aml *a, const char *s)
{
    aml_byte(a, AML_STRING);
    aml_bytes(a, s, strlen(s) + 1);
}

void aml_name(struct aml *a, const char *name)
{
    aml_byte(a, AML_NAME);
    aml_bytes(a, name, 4);
}

void aml_name_int(struct aml *a, const char *name, u64 value)
{
    aml_name(a, name);
    aml_int(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *s)
{
    aml_name(a, name);
    aml_string(a, s);
}

static u32 hex(char c)
{
    return (u32)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_name_eisa(struct aml *a, const char *name, const char *id)
{
    u32 v = (u32)(id[0] - 0x40) << 26 | (u32)(id[1] - 0x40) << 21 | (u32)(id[2] - 0x40) << 16 |
            hex(id[3]) << 12 | hex(id[4]) << 8 | hex(id[5]) << 4 | hex(id[6]);

    v = __builtin_bswap32(v);
    aml_name(a, name);
    aml_byte(a, AML_DWORD);
    aml_bytes(a, &v, 4);
}

static struct aml_scope begin(struct aml *a)
{
    struct aml_scope s = {.at = a->len};

    aml_bytes(a, "\0\0\0", 3);
    return s;
}

void aml_end(struct aml *a, struct aml_scope s)
{
    size_t len = a->len - s.at;

    if (a->overflow || len >= 1 << 20) {
        a->overflow = true;
        return;
    }
    a->buf[s.at] = (u8)(0x80 | (len & 15));
    a->buf[s.at + 1] = (u8)(len >> 4);
    a->buf[s.at + 2] = (u8)(len >> 12);
}

struct aml_scope aml_device(struct aml *a, const char *name)
{
    struct aml_scope s;

    aml_byte(a, AML_EXT);
    aml_byte(a, AML_EXT_DEVICE);
    s = begin(a);
    aml_bytes(a, name, 4);
    return s;
}

struct aml_scope aml_root_scope(struct aml *a, const char *name)
{
    struct aml_scope s;

    aml_byte(a, AML_SCOPE);
    s = begin(a);
    aml_byte(a, AML_ROOT);
    aml_bytes(a, name, 4);
    return s;
}

struct aml_scope aml_method(struct aml *a, const char *name, u8 args)
{
    struct aml_scope s;

    aml_byte(a, AML_METHOD);
    s = begin(a);
    aml_bytes(a, name, 4);
    aml_byte(a, args);
    return s;
}

void aml_notify(struct aml *a, const char *object, u8 value)
{
    aml_byte(a, AML_NOTIFY);
    aml_bytes(a, object, 4);
    aml_int(a, value);
}

struct aml_scope aml_package(struct aml *a, u8 elements)
{
    struct aml_scope s;

    aml_byte(a, AML_PACKAGE);
    s = begin(a);
    aml_byte(a, elements);
    return s;
}

struct aml_crs aml_crs(struct aml *a)
{
    struct aml_crs c;

    aml_name(a, "_CRS");
    aml_byte(a, AML_BUFFER);
    c.name = begin(a);
    aml_byte(a, AML_WORD);
    aml_bytes(a, "\0\0", 2);
    c.start = a->len;
    return c;
}

void aml_crs_end(struct aml *a, struct aml_crs c)
{
    u16 len;

    aml_bytes(a, "\x79\x00", 2); /* end tag; checksum 0 means "not checked" */
    len = (u16)(a->len - c.start);
    if (!a->overflow)
        memcpy(a->buf + c.start - 2, &len, 2);
    aml_end(a, c.name);
}

void aml_crs_io(struct aml *a, u16 base, u8 len)
{
    aml_bytes(a, "\x47\x01", 2); /* I/O port, 16-bit decode */
    aml_bytes(a, &base, 2);
    aml_bytes(a, &base, 2);
    aml_byte(a, 1);
    aml_byte(a, len);
}

void aml_crs_irq(struct aml *a, unsigned irq)
{
    u16 mask = (u16)(1u << irq);

    aml_byte(a, 0x22);
    aml_bytes(a, &mask, 2);
}

/* Address space descriptors, 6.4.3.5: min and max fixed, produced for the children. */
struct window {
    u8 tag, type, type_flags;
    unsigned width; /* bytes of each value */
    u64 first, last;
};

static void window(struct aml *a, const struct window *w)
{
    u64 len = w->last - w->first + 1, zero = 0;
    u16 size = (u16)(3 + 5 * w->width);

    aml_byte(a, w->tag);
    aml_bytes(a, &size, 2);
    aml_byte(a, w->type);
    aml_byte(a, 0x0c);
    aml_byte(a, w->type_flags);
    aml_bytes(a, &zero, w->width); /* granularity */
    aml_bytes(a, &w->first, w->width);
    aml_bytes(a, &w->last, w->width);
    aml_bytes(a, &zero, w->width); /* translation */
    aml_bytes(a, &len, w->width);
}

void aml_crs_bus(struct aml *a, u16 first, u16 last)
{
    window(a, &(struct window){.tag = 0x88, .type = 2, .width = 2, .first = first, .last = last});
}

void aml_crs_io_window(struct aml *a, u16 first, u16 last)
{
    window(a,
           &(struct window){
               .tag = 0x88, .type = 1, .type_flags = 3, .width = 2, .first = first, .last = last});
}

void aml_crs_mem32(struct aml *a, u32 base, u32 len)
{
    aml_bytes(a, "\x86\x09\x00\x01", 4); /* 32-bit fixed memory, writable */
    aml_bytes(a, &base, 4);
    aml_bytes(a, &len, 4);
}

void aml_crs_window32(struct aml *a, u32 base, u32 len)
{
    window(a, &(struct window){.tag = 0x87,
                               .type = 0,
                               .type_flags = 1,
                               .width = 4,
                               .first = base,
                               .last = (u64)base + len - 1});
}

void aml_crs_window64(struct aml *a, u64 base, u64 len)
{
    window(a, &(struct window){.tag = 0x8a,
                               .type = 0,
                               .type_flags = 1,
                               .width = 8,
                               .first = base,
                               .last = base + len - 1});
}

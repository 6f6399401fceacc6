/*
 * Field tables: how a component describes its saved state. The state is a dedicated struct of
 * fixed-width, guest-visible values; the table names each of them, with the version that brought
 * it. From the table come saving, loading and printing.
 *
 * A table only grows: a new field is put at the end with `since` = the new version. Loading an
 * older version leaves the newer fields as they were, so reset values fill the gap.
 */
#ifndef STATE_FIELD_H
#define STATE_FIELD_H

#include "base/err.h"
#include <stdio.h>

enum field_kind {
    FIELD_UINT,  /* printed in decimal */
    FIELD_SINT,  /* the same, signed */
    FIELD_HEX,   /* printed in hexadecimal: registers, addresses, masks */
    FIELD_BOOL,  /* one byte; only 0 and 1 are loaded */
    FIELD_BYTES, /* one-byte elements without meaning to us */
};

struct field {
    const char *name;
    u32 offset; /* bytes, of the first element in the struct */
    u32 size;   /* bytes of an element: 1, 2, 4 or 8 */
    u32 count;  /* elements */
    u32 stride; /* bytes from one element to the next */
    u32 since;  /* the table's version that brought it, from 1 */
    enum field_kind kind;
};

struct state_table {
    u32 version; /* the newest `since` */
    u32 size;    /* sizeof the struct */
    const struct field *fields;
    unsigned nfields;
};

#define FIELD_SIZE(type, member) sizeof(((type *)0)->member)
#define FIELD_ONE(type, member, version, what)                                               \
    {                                                                                        \
        .name = #member, .offset = offsetof(type, member), .size = FIELD_SIZE(type, member), \
        .count = 1, .stride = FIELD_SIZE(type, member), .since = (version), .kind = (what)   \
    }
#define FIELD_MANY(type, member, version, what)                                                 \
    {                                                                                           \
        .name = #member, .offset = offsetof(type, member), .size = FIELD_SIZE(type, member[0]), \
        .count = FIELD_SIZE(type, member) / FIELD_SIZE(type, member[0]),                        \
        .stride = FIELD_SIZE(type, member[0]), .since = (version), .kind = (what)               \
    }

/* A member, or a member of a member: STATE_HEX(struct x, msr.efer, 1). */
#define STATE_UINT(type, member, since) FIELD_ONE(type, member, since, FIELD_UINT)
#define STATE_SINT(type, member, since) FIELD_ONE(type, member, since, FIELD_SINT)
#define STATE_HEX(type, member, since) FIELD_ONE(type, member, since, FIELD_HEX)
#define STATE_BOOL(type, member, since) FIELD_ONE(type, member, since, FIELD_BOOL)
/* An array of numbers, or of bytes. */
#define STATE_UINTS(type, member, since) FIELD_MANY(type, member, since, FIELD_UINT)
#define STATE_HEXES(type, member, since) FIELD_MANY(type, member, since, FIELD_HEX)
#define STATE_BYTES(type, member, since) FIELD_MANY(type, member, since, FIELD_BYTES)
/* One member of each struct in an array: STATE_EACH(struct x, queue, size, 1, FIELD_UINT). */
#define STATE_EACH(type, array, member, version, what)                           \
    {                                                                            \
        .name = #array "[]." #member, .offset = offsetof(type, array[0].member), \
        .size = FIELD_SIZE(type, array[0].member),                               \
        .count = FIELD_SIZE(type, array) / FIELD_SIZE(type, array[0]),           \
        .stride = FIELD_SIZE(type, array[0]), .since = (version), .kind = (what) \
    }

/* STATE_TABLE(name, struct x, version, fields): `fields` is an array of struct field. */
#define STATE_TABLE(name, type, newest, array) \
    const struct state_table name = {          \
        .version = (newest), .size = sizeof(type), .fields = (array), .nfields = ARRAY_LEN(array)}

/* Finds mistakes of whoever wrote the table: a field outside the struct, of a size that is no
 * number's, newer than the table. 0 or -EINVAL. */
int state_table_check(const struct state_table *t, struct err *err);
/* Bytes that the fields of `version` take in a stream. */
u64 state_table_bytes(const struct state_table *t, u32 version);
/* object to buf, which has state_table_bytes(t, t->version) bytes. Little-endian, packed, in the
 * table's order. */
void state_table_save(const struct state_table *t, const void *object, u8 *buf);
/* buf, which has state_table_bytes(t, version) bytes, to object. -EINVAL names the field that
 * cannot be; object is then half loaded, so hand in a scratch copy. */
int state_table_load(const struct state_table *t, u32 version, const u8 *buf, void *object,
                     struct err *err);
/* One line per field, each indented by two spaces. */
void state_table_print(const struct state_table *t, const void *object, FILE *out);

#endif

/*
 * Field tables. The encoding is ours, not the compiler's: fields in the table's order, elements
 * packed, little-endian. So neither padding nor a reordered struct can change a stream.
 *
 * Runs in the thread that saves or loads; the objects are quiet then.
 */
#include "state/field.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static bool is_number_size(u32 size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

int state_table_check(const struct state_table *t, struct err *err)
{
    for (unsigned i = 0; i < t->nfields; i++) {
        const struct field *f = &t->fields[i];
        u64 last;

        if (!is_number_size(f->size) || !f->count || f->stride < f->size)
            return err_set(err, EINVAL, "state field %s: not a number or an array of numbers",
                           f->name);
        if ((f->kind == FIELD_BOOL || f->kind == FIELD_BYTES) && f->size != 1)
            return err_set(err, EINVAL, "state field %s: its elements must be bytes", f->name);
        last = f->offset + (u64)(f->count - 1) * f->stride;
        if (!range_fits(last, f->size, t->size))
            return err_set(err, EINVAL, "state field %s: outside its struct", f->name);
        if (!f->since || f->since > t->version)
            return err_set(err, EINVAL, "state field %s: version %u of %u", f->name, f->since,
                           t->version);
    }
    return 0;
}

u64 state_table_bytes(const struct state_table *t, u32 version)
{
    u64 bytes = 0;

    for (unsigned i = 0; i < t->nfields; i++) {
        if (t->fields[i].since <= version)
            bytes += (u64)t->fields[i].size * t->fields[i].count;
    }
    return bytes;
}

/* The value of an element, zero-extended. */
static u64 get_element(const struct field *f, const void *object, u32 index)
{
    const u8 *at = (const u8 *)object + f->offset + (size_t)index * f->stride;
    u16 v16;
    u32 v32;
    u64 v64;

    switch (f->size) {
    case 1:
        return *at;
    case 2:
        memcpy(&v16, at, sizeof(v16));
        return v16;
    case 4:
        memcpy(&v32, at, sizeof(v32));
        return v32;
    default:
        memcpy(&v64, at, sizeof(v64));
        return v64;
    }
}

static void set_element(const struct field *f, void *object, u32 index, u64 value)
{
    u8 *at = (u8 *)object + f->offset + (size_t)index * f->stride;
    u16 v16 = (u16)value;
    u32 v32 = (u32)value;

    switch (f->size) {
    case 1:
        *at = (u8)value;
        break;
    case 2:
        memcpy(at, &v16, sizeof(v16));
        break;
    case 4:
        memcpy(at, &v32, sizeof(v32));
        break;
    default:
        memcpy(at, &value, sizeof(value));
    }
}

void state_table_save(const struct state_table *t, const void *object, u8 *buf)
{
    for (unsigned i = 0; i < t->nfields; i++) {
        const struct field *f = &t->fields[i];

        for (u32 n = 0; n < f->count; n++) {
            u64 value = get_element(f, object, n);

            for (u32 byte = 0; byte < f->size; byte++)
                *buf++ = (u8)(value >> (byte * 8));
        }
    }
}

/* One field from buf to object; the bytes it took, or 0 when a value cannot be. */
static u64 load_field(const struct field *f, const u8 *buf, void *object)
{
    for (u32 n = 0; n < f->count; n++, buf += f->size) {
        u64 value = 0;

        for (u32 byte = 0; byte < f->size; byte++)
            value |= (u64)buf[byte] << (byte * 8);
        /* Any other value in a bool is undefined behaviour in C. */
        if (f->kind == FIELD_BOOL && value > 1)
            return 0;
        set_element(f, object, n, value);
    }
    return (u64)f->size * f->count;
}

int state_table_load(const struct state_table *t, u32 version, const u8 *buf, void *object,
                     struct err *err)
{
    for (unsigned i = 0; i < t->nfields; i++) {
        const struct field *f = &t->fields[i];
        u64 took;

        if (f->since > version)
            continue;
        took = load_field(f, buf, object);
        if (!took)
            return err_set(err, EINVAL, "%s: neither true nor false", f->name);
        buf += took;
    }
    return 0;
}

static void print_element(const struct field *f, const void *object, u32 index, FILE *out)
{
    u64 value = get_element(f, object, index);
    unsigned unused_bits = 64 - f->size * 8;

    switch (f->kind) {
    case FIELD_UINT:
        fprintf(out, " %" PRIu64, value);
        break;
    case FIELD_SINT:
        fprintf(out, " %" PRId64, (s64)(value << unused_bits) >> unused_bits);
        break;
    case FIELD_HEX:
        fprintf(out, " 0x%" PRIx64, value);
        break;
    case FIELD_BOOL:
        fprintf(out, " %s", value ? "yes" : "no");
        break;
    case FIELD_BYTES:
        /* A space and a line now and then keep long areas readable. */
        fprintf(out, "%s%02x",
                index % 32 == 0 && f->count > 32 ? "\n    "
                : index % 8 == 0                 ? " "
                                                 : "",
                (unsigned)value);
        break;
    }
}

void state_table_print(const struct state_table *t, const void *object, FILE *out)
{
    for (unsigned i = 0; i < t->nfields; i++) {
        const struct field *f = &t->fields[i];

        fprintf(out, "  %s:", f->name);
        for (u32 n = 0; n < f->count; n++)
            print_element(f, object, n, out);
        fputc('\n', out);
    }
}

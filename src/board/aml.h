/*
 * Writes ACPI machine language into a buffer. ACPI 6.4, chapter 20.
 *
 * A buffer that is too small sets `overflow` and drops the rest; check it once at the end.
 */
#ifndef BOARD_AML_H
#define BOARD_AML_H

#include "base/types.h"

struct aml {
    u8 *buf;
    size_t len, cap;
    bool overflow;
};

/* A package that is open: its length goes in at aml_end(). */
struct aml_scope {
    size_t at;
};

void aml_bytes(struct aml *a, const void *bytes, size_t len);
void aml_byte(struct aml *a, u8 byte);
void aml_int(struct aml *a, u64 value);
void aml_string(struct aml *a, const char *s);
/* name: 4 characters. Opens "Name (name, ...": the object follows. */
void aml_name(struct aml *a, const char *name);
void aml_name_int(struct aml *a, const char *name, u64 value);
void aml_name_string(struct aml *a, const char *name, const char *s);
/* _HID and the like as a compressed EISA id: "PNP0A08". 6.1.5 */
void aml_name_eisa(struct aml *a, const char *name, const char *id);
struct aml_scope aml_device(struct aml *a, const char *name);
struct aml_scope aml_method(struct aml *a, const char *name, u8 args);
/* Notify (object, value); object: 4 characters, looked for upwards. */
void aml_notify(struct aml *a, const char *object, u8 value);
struct aml_scope aml_root_scope(struct aml *a, const char *name); /* Scope (\name) */
struct aml_scope aml_package(struct aml *a, u8 elements);
void aml_end(struct aml *a, struct aml_scope s);

/* Resource templates, 6.4. The descriptors follow aml_crs(), aml_crs_end() closes it. */
struct aml_crs {
    struct aml_scope name;
    size_t start;
};
struct aml_crs aml_crs(struct aml *a);
void aml_crs_end(struct aml *a, struct aml_crs c);
void aml_crs_io(struct aml *a, u16 base, u8 len);
void aml_crs_irq(struct aml *a, unsigned irq); /* edge, active high, exclusive */
void aml_crs_bus(struct aml *a, u16 first, u16 last);
void aml_crs_io_window(struct aml *a, u16 first, u16 last);
void aml_crs_mem32(struct aml *a, u32 base, u32 len); /* fixed */
void aml_crs_window32(struct aml *a, u32 base, u32 len);
void aml_crs_window64(struct aml *a, u64 base, u64 len);

#endif

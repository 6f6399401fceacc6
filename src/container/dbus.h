/* As much of D-Bus as calling a method takes (D-Bus specification: Authentication Protocol, Marshaling). */
#ifndef CONTAINER_DBUS_H
#define CONTAINER_DBUS_H

#include "base/err.h"

#define DBUS_MAX_BYTES 16384

/* A message body under construction; what does not fit sets `overflow` and the call then fails. */
struct dbus_body {
    u8 data[DBUS_MAX_BYTES];
    size_t len;
    bool overflow;
};

struct dbus_method {
    const char *dest, *path, *interface, *member, *signature;
};

/* Connects and authenticates to the bus at "unix:path=/...". A descriptor or -errno. */
int dbus_connect(const char *address, struct err *err);
/* Calls and waits for the answer, whose body is not looked at; an error answer becomes *err. */
int dbus_call(int bus, const struct dbus_method *m, const struct dbus_body *body, struct err *err);

void dbus_align(struct dbus_body *b, size_t to);
void dbus_u32(struct dbus_body *b, u32 v);
void dbus_u64(struct dbus_body *b, u64 v);
void dbus_string(struct dbus_body *b, const char *s);
void dbus_signature(struct dbus_body *b, const char *s);
/* Arrays: the length is filled in at the end. `align` is that of the elements. Returns a mark for dbus_array_end. */
size_t dbus_array_begin(struct dbus_body *b, size_t align);
void dbus_array_end(struct dbus_body *b, size_t mark, size_t align);

#endif

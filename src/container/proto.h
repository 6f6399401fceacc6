/* As much of Protocol Buffers' wire format as CRIU's service needs (protobuf.dev, "Encoding"). */
#ifndef CONTAINER_PROTO_H
#define CONTAINER_PROTO_H

#include "base/types.h"

#include <stddef.h>

/* A message that is being written. Zero to begin with; `failed` once there is no memory. */
struct proto {
    u8 *data;
    size_t len, size;
    bool failed;
};

void proto_fini(struct proto *p);
void proto_u64(struct proto *p, unsigned field, u64 value);
/* NULL is left out. */
void proto_str(struct proto *p, unsigned field, const char *text);
void proto_msg(struct proto *p, unsigned field, const struct proto *sub);

/* One field of a message that is being read. */
struct proto_field {
    unsigned field;
    u64 value;      /* of a number */
    const u8 *data; /* of a string or message, NULL for a number; not terminated */
    size_t len;
};

/* Takes the next field from data[0..len); false at the end, and at what is malformed. */
bool proto_next(const u8 **data, size_t *len, struct proto_field *ret);

#endif

/* A snapshot's manifest as JSON, with a checksum of itself. Read as hostile input. */
#ifndef HOST_SNAPSHOT_MANIFEST_H
#define HOST_SNAPSHOT_MANIFEST_H

#include "host/snapshot.h"
#include <jansson.h>

#define MANIFEST_FORMAT 1
#define MANIFEST_MAX (1 * MiB)

/* A new object. NULL: no memory. */
json_t *manifest_write(const struct snapshot *s);
/* -EBADMSG, -ENOTSUP: *err says what is wrong. */
int manifest_read(const char *text, size_t len, struct snapshot *ret_s, struct err *err);

#endif

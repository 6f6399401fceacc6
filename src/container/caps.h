/* Linux capabilities by name, and putting the sets of a configuration into effect. capabilities(7). */
#ifndef CONTAINER_CAPS_H
#define CONTAINER_CAPS_H

#include "base/err.h"

#define CAPS_KNOWN 41

/* The number of "CAP_CHOWN" (any case, prefix optional), or -1; NULL is allowed. */
int caps_number(const char *name);
/* "CAP_..." of 0 <= number < CAPS_KNOWN. */
const char *caps_name(int number);

/* The sets this process holds now, as masks. */
struct caps_own {
    u64 bounding, permitted;
};
int caps_read_own(struct caps_own *ret, struct err *err);
/* Takes what `own` lacks out of the five sets; returns the mask of what was taken from the bounding set. */
u64 caps_limit(u64 sets[5], const struct caps_own *own);

/* Drops everything outside the mask from the bounding set. Needs CAP_SETPCAP when something is dropped. */
int caps_drop_bounding(u64 keep, struct err *err);
/* Sets effective, permitted, inheritable. */
int caps_set(u64 effective, u64 permitted, u64 inheritable, struct err *err);
/* Raises exactly these ambient capabilities; what the kernel refuses is left out, as runc does. */
int caps_set_ambient(u64 ambient, struct err *err);

#endif

/* Keeps a container from rewriting our executable (CVE-2019-5736). */
#ifndef CONTAINER_GUARD_H
#define CONTAINER_GUARD_H

#include "base/err.h"

/*
 * Returns when /proc/self/exe cannot be opened for writing by anyone who gets hold of it. If need be it
 * executes the program anew from a read-only place, and then does not return.
 */
int guard_self(char **argv, struct err *err);

#endif

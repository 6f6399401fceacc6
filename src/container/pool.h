/* Memory that lives as long as one command: many small allocations, released together. */
#ifndef CONTAINER_POOL_H
#define CONTAINER_POOL_H

#include "base/types.h"

struct pool_block;

struct pool {
    struct pool_block *head;
};

/* A list of strings that ends with a NULL which `n` does not count; `v` is never NULL once filled. */
struct strv {
    char **v;
    size_t n;
};

/* Zeroed memory. Never NULL: a runtime that cannot get a few bytes ends the process. */
void *pool_get(struct pool *p, size_t size);
/* As pool_get for `n` objects; a product that overflows ends the process too. */
void *pool_array(struct pool *p, size_t n, size_t size);
char *pool_str(struct pool *p, const char *s);
char *pool_fmt(struct pool *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds a string (not copied) to a list whose array grows in the pool. */
void pool_strv_add(struct pool *p, struct strv *list, char *s);
/* Puts the working directory in front of a relative path; NULL and "" stay. */
void pool_absolute(struct pool *p, const char **path);
void pool_fini(struct pool *p);

#endif

/*
 * Pool allocation. A verb of the runtime runs for milliseconds and needs a few hundred small objects that
 * all die with it; blocks of a few KiB are faster than malloc and cannot leak one by one.
 *
 * Invariant: `used <= size` in every block, and memory from `used` on is zero.
 */
#include "container/pool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES (8 * KiB)

struct pool_block {
    struct pool_block *next;
    size_t used, size;
    _Alignas(16) char data[];
};

static struct pool_block *block_new(struct pool *p, size_t at_least)
{
    size_t size = MAX(at_least, (size_t)BLOCK_BYTES - sizeof(struct pool_block));
    struct pool_block *b = calloc(1, sizeof(*b) + size);

    if (!b)
        abort();
    b->size = size;
    b->next = p->head;
    p->head = b;
    return b;
}

void *pool_get(struct pool *p, size_t size)
{
    struct pool_block *b = p->head;
    void *ret;

    if (size > SIZE_MAX / 2)
        abort();
    size = ALIGN_UP(size, (size_t)16);
    if (!b || b->size - b->used < size)
        b = block_new(p, size);
    ret = b->data + b->used;
    b->used += size;
    return ret;
}

void *pool_array(struct pool *p, size_t n, size_t size)
{
    size_t bytes;

    if (MUL_OVERFLOWS(n, size, &bytes))
        abort();
    return pool_get(p, bytes);
}

char *pool_str(struct pool *p, const char *s)
{
    size_t len = strlen(s) + 1;

    return memcpy(pool_get(p, len), s, len);
}

char *pool_fmt(struct pool *p, const char *fmt, ...)
{
    va_list ap;
    char *ret;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (len < 0)
        abort();
    ret = pool_get(p, (size_t)len + 1);
    va_start(ap, fmt);
    vsnprintf(ret, (size_t)len + 1, fmt, ap);
    va_end(ap);
    return ret;
}

void pool_strv_add(struct pool *p, struct strv *list, char *s)
{
    /* The array doubles whenever n + 1 (the NULL included) reaches a power of two. */
    if (((list->n + 1) & list->n) == 0) {
        char **grown = pool_array(p, 2 * (list->n + 1), sizeof(char *));

        if (list->n)
            memcpy(grown, list->v, list->n * sizeof(char *));
        list->v = grown;
    }
    list->v[list->n++] = s;
    list->v[list->n] = NULL;
}

void pool_absolute(struct pool *p, const char **path)
{
    char cwd[4096];

    if (*path && (*path)[0] && (*path)[0] != '/' && getcwd(cwd, sizeof(cwd)))
        *path = pool_fmt(p, "%s/%s", cwd, *path);
}

void pool_fini(struct pool *p)
{
    while (p->head) {
        struct pool_block *next = p->head->next;

        free(p->head);
        p->head = next;
    }
}

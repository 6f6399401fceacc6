/*
 * The pages that a restored machine touches first, see working_set.h.
 *
 * The file is one struct list, written at once. A list is whole when the machine ran for all of WORKING_SET_NS; one that is
 * not (the guest had ended by then) is used, and made longer by the next machine.
 *
 * Threads that fetch pages note them, without a lock; its own thread brings pages, waits, and writes the list.
 */
#include "vm/snapshot/working_set.h"

#include "base/cond.h"
#include "mem/dirty.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define MAGIC "TRZWSET1"
#define NO_PAGE UINT32_MAX

/* Little endian. */
struct list {
    char magic[8];
    u32 sum; /* CRC-32 of what follows */
    u32 whole;
    u32 count;
    u32 page[WORKING_SET_PAGES]; /* in the order in which they were touched; NO_PAGE: none */
};

struct working_set {
    struct snapchain *chain;
    int fd;
    int (*enter)(void *opaque);
    void *opaque;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* protects quit, which may be read without it */
    pthread_cond_t ended;
    bool quit;
    bool noting; /* a list is to be written */
    /* While noting, count and page[] are atomic, and count may be more than there is room for. */
    struct list list;
};

/* --- the file --- */

static u32 sum_of(const struct list *l)
{
    return (u32)crc32_z(0, (const u8 *)&l->whole, sizeof(*l) - offsetof(struct list, whole));
}

static void swap_bytes(struct list *l)
{
    l->whole = le32toh(l->whole);
    l->count = le32toh(l->count);
    for (unsigned i = 0; i < WORKING_SET_PAGES; i++)
        l->page[i] = le32toh(l->page[i]);
}

static bool read_list(int fd, struct list *ret_list)
{
    return pread(fd, ret_list, sizeof(*ret_list), 0) == sizeof(*ret_list) &&
           !memcmp(ret_list->magic, MAGIC, sizeof(ret_list->magic)) &&
           le32toh(ret_list->sum) == sum_of(ret_list);
}

/* Others may be noting still. Where it cannot be written there will be none. */
static void write_list(int fd, const struct list *noted, bool whole)
{
    struct list l = {.magic = MAGIC, .whole = whole};

    l.count = MIN(__atomic_load_n(&noted->count, __ATOMIC_RELAXED), (u32)WORKING_SET_PAGES);
    for (unsigned i = 0; i < WORKING_SET_PAGES; i++)
        l.page[i] = __atomic_load_n(&noted->page[i], __ATOMIC_RELAXED);
    swap_bytes(&l);
    l.sum = htole32(sum_of(&l));
    ssize_t n = pwrite(fd, &l, sizeof(l), 0);
    (void)n;
}

static void close_file(struct working_set *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

/* --- the thread --- */

static void note(void *opaque, u64 page)
{
    struct working_set *w = opaque;

    if (page >= NO_PAGE || __atomic_load_n(&w->list.count, __ATOMIC_RELAXED) >= WORKING_SET_PAGES)
        return;
    u32 at = __atomic_fetch_add(&w->list.count, 1, __ATOMIC_RELAXED);
    if (at < WORKING_SET_PAGES)
        __atomic_store_n(&w->list.page[at], (u32)page, __ATOMIC_RELAXED);
}

/* A page that cannot be had is the business of whoever touches it. */
static void bring(struct working_set *w)
{
    u32 count = MIN(__atomic_load_n(&w->list.count, __ATOMIC_RELAXED), (u32)WORKING_SET_PAGES);
    u8 bytes[SNAPMAP_PAGE];

    for (u32 i = 0; i < count && !__atomic_load_n(&w->quit, __ATOMIC_RELAXED); i++) {
        u64 page = __atomic_load_n(&w->list.page[i], __ATOMIC_RELAXED);

        if (page < dirty_pages(w->chain->ram) && lazy_absent(w->chain->ram, page * SNAPMAP_PAGE) &&
            !snapchain_page(w->chain, page, bytes))
            lazy_supply(w->chain->ram, page, bytes);
    }
}

/* true: it has passed; false: it ends earlier. */
static bool wait_for_first_second(struct working_set *w)
{
    struct timespec until = cond_after(WORKING_SET_NS);
    int rc = 0;

    pthread_mutex_lock(&w->lock);
    while (!w->quit && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&w->ended, &w->lock, &until);
    bool passed = !w->quit;
    pthread_mutex_unlock(&w->lock);
    return passed;
}

static void *run(void *opaque)
{
    struct working_set *w = opaque;

    if (w->enter(w->opaque))
        return NULL;
    pthread_setname_np(pthread_self(), "working-set");
    bring(w);
    if (w->noting) {
        bool whole = wait_for_first_second(w);

        __atomic_store_n(&w->chain->fetched, NULL, __ATOMIC_RELEASE);
        write_list(w->fd, &w->list, whole);
        close_file(w);
    }
    return NULL;
}

/* --- life --- */

static void read_or_note(struct working_set *w)
{
    if (read_list(w->fd, &w->list)) {
        swap_bytes(&w->list);
        w->noting = !w->list.whole;
        w->list.count = MIN(w->list.count, (u32)WORKING_SET_PAGES);
    } else {
        w->noting = true;
        w->list.count = 0;
        memset(w->list.page, 0xff, sizeof(w->list.page));
    }
    if (!w->noting) {
        close_file(w);
        return;
    }
    w->chain->fetched_opaque = w;
    __atomic_store_n(&w->chain->fetched, note, __ATOMIC_RELEASE);
}

struct working_set *working_set_start(struct snapchain *chain, int fd, int (*enter)(void *opaque),
                                      void *opaque)
{
    struct working_set *w = calloc(1, sizeof(*w));

    if (!w) {
        close(fd);
        return NULL;
    }
    *w = (struct working_set){.chain = chain, .fd = fd, .enter = enter, .opaque = opaque};
    pthread_mutex_init(&w->lock, NULL);
    cond_init(&w->ended);
    read_or_note(w);
    w->started = !pthread_create(&w->thread, NULL, run, w);
    if (w->started)
        return w;
    working_set_free(w);
    return NULL;
}

void working_set_free(struct working_set *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    __atomic_store_n(&w->quit, true, __ATOMIC_RELAXED);
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    __atomic_store_n(&w->chain->fetched, NULL, __ATOMIC_RELEASE);
    close_file(w);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

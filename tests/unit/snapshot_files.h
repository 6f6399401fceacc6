/* Snapshots' memory in two files that exist only here. */
#ifndef SNAPSHOT_FILES_H
#define SNAPSHOT_FILES_H

#include "unit.h"

#include "vm/snapshot/chain.h"

#include <sys/mman.h>
#include <unistd.h>

enum { RAM = 4 * MiB, PAGES = RAM / SNAPMAP_PAGE };

/* A snapshot's two files. */
struct files {
    int memory, map;
};

static inline u8 *page_of(u8 value)
{
    static u8 page[SNAPMAP_PAGE];

    for (unsigned i = 0; i < SNAPMAP_PAGE; i++)
        page[i] = (u8)(value + i / 64);
    return page;
}

static inline void put_map(struct files *f, const struct snapmap *m)
{
    struct state_sink to = state_fd_sink(&f->map);

    assert_int_equal(snapmap_save(m, &to, NULL), 0);
}

/* `has`: pages, ended by -1; each holds its number plus `more`. `zero`: the same for pages that became zero, or NULL. */
static inline struct files snapshot_of(const int *has, const int *zero, u8 more)
{
    struct files f = {memfd_create("memory", 0), memfd_create("map", 0)};
    struct snapmap m;

    assert_int_equal(ftruncate(f.memory, RAM), 0);
    assert_int_equal(snapmap_init(&m, RAM, zero != NULL, false, NULL), 0);
    for (; *has >= 0; has++) {
        u8 *page = page_of((u8)(*has + more));

        snapmap_set(m.present, (u64)*has, true);
        m.sum[*has] = snapmap_sum(page);
        assert_int_equal(pwrite(f.memory, page, SNAPMAP_PAGE, *has * (off_t)SNAPMAP_PAGE),
                         SNAPMAP_PAGE);
    }
    for (; zero && *zero >= 0; zero++)
        snapmap_set(m.zero, (u64)*zero, true);
    put_map(&f, &m);
    snapmap_fini(&m);
    return f;
}

#endif

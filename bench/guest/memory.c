/* Loads and stores: streams, chains of pointers, copies, string instructions, atomics. */
#include <string.h>

#include "bench.h"

#define SUM_WORDS 4096
#define COPY_BYTES (64ul << 20)
#define TRIAD_DOUBLES (20ul << 17) /* 20 MiB */

/* One operation is one element: read it, add to it, write it back. */
static void sum_run(uint64_t n)
{
    static uint32_t words[SUM_WORDS];
    uint32_t sum = 0;

    for (uint64_t done = 0; done < n; done += SUM_WORDS)
        for (unsigned i = 0; i < SUM_WORDS; i++) {
            sum += words[i];
            words[i] = sum;
        }
    use(sum);
}

/* --- pointer chases: a ring in an order that no prefetcher guesses --- */
static void **ring;

static void make_ring(size_t bytes, size_t stride)
{
    static char *arena;
    size_t count = bytes / stride;
    uint64_t random = 12345;
    uint32_t *order;

    if (!arena)
        arena = bench_alloc(COPY_BYTES);
    order = bench_alloc(count * sizeof(*order));
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (size_t i = count - 1; i > 0; i--) { /* Sattolo: one cycle */
        size_t other;
        uint32_t t;

        random = random * 6364136223846793005u + 1442695040888963407u;
        other = (random >> 33) % i;
        t = order[i];
        order[i] = order[other];
        order[other] = t;
    }
    for (size_t i = 0; i < count; i++)
        *(void **)(arena + i * stride) = arena + order[i] * stride;
    ring = (void **)arena;
}

static bool chase16k_setup(void)
{
    make_ring(16 << 10, 64);
    return true;
}

static bool chase1m_setup(void)
{
    make_ring(1 << 20, 64);
    return true;
}

static bool chase64m_setup(void)
{
    make_ring(COPY_BYTES, 4096 + 64); /* a page further each time, not always the same cache set */
    return true;
}

static void chase_run(uint64_t n)
{
    void **p = ring;

    for (uint64_t i = 0; i < n; i++)
        p = *p;
    use((uint64_t)p);
}

/* --- bulk --- */
static char *from, *to;

static bool copy_setup(void)
{
    if (!from) {
        from = bench_alloc(COPY_BYTES);
        to = bench_alloc(COPY_BYTES);
    }
    return true;
}

static void memcpy_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        memcpy(to, from, hide(COPY_BYTES));
        use((uint64_t)to);
    }
}

static void memset_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        memset(to, (int)i, hide(4096));
        use((uint64_t)to);
    }
}

typedef double v2d __attribute__((vector_size(16)));

static void triad_run(uint64_t n)
{
    static v2d *a, *b, *c;
    const v2d factor = {3.0, 3.0};

    if (!a) {
        a = bench_alloc(TRIAD_DOUBLES * 8);
        b = bench_alloc(TRIAD_DOUBLES * 8);
        c = bench_alloc(TRIAD_DOUBLES * 8);
    }
    for (uint64_t k = 0; k < n; k++) {
        for (size_t i = 0; i < TRIAD_DOUBLES / 2; i++)
            a[i] = b[i] + factor * c[i];
        use((uint64_t)a);
    }
}

static void rep_movsb(uint64_t n, size_t bytes)
{
    for (uint64_t i = 0; i < n; i++) {
        const char *s = from;
        char *d = to;
        size_t count = bytes;

        asm volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(count) : : "memory");
    }
}

static void movsb4k_run(uint64_t n)
{
    rep_movsb(n, 4096);
}

static void movsb64_run(uint64_t n)
{
    rep_movsb(n, 64);
}

static void xadd_run(uint64_t n)
{
    static uint64_t counter;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t one = 1;

        asm volatile("lock xadd %0, %1" : "+r"(one), "+m"(counter) : : "cc");
    }
}

const struct row memory_rows[] = {
    {"sum_store", "memory", sum_run, NULL, SUM_WORDS},
    {"chase_16k", "memory", chase_run, chase16k_setup, 0},
    {"chase_1m", "memory", chase_run, chase1m_setup, 0},
    {"chase_64m", "memory", chase_run, chase64m_setup, 0},
    {"memcpy_64m", "memory", memcpy_run, copy_setup, 0},
    {"memset_4k", "memory", memset_run, copy_setup, 0},
    {"triad_20m", "memory", triad_run, NULL, 0},
    {"rep_movsb_4k", "other", movsb4k_run, copy_setup, 0},
    {"rep_movsb_64", "other", movsb64_run, copy_setup, 0},
    {"lock_xadd", "other", xadd_run, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};

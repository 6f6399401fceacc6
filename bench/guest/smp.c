/* Two processors at once: independent work, and every way to be in each other's way. An operation is one of either thread. */
#include <pthread.h>
#include <unistd.h>

#include "bench.h"
#include "pingpong.h"

/* So much that starting the two threads does not count. */
#define SHA_BATCH 1000
#define LOCK_BATCH 50000

static bool two_cpus(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

struct half {
    void (*work)(uint64_t n);
    uint64_t n;
    int cpu;
};

static void *half_main(void *arg)
{
    struct half *h = arg;

    bench_pin(h->cpu);
    h->work(h->n);
    return NULL;
}

/* n operations on two processors, half on each. */
static void both(void (*work)(uint64_t n), uint64_t n)
{
    struct half halves[2] = {{work, n / 2 + 1, 0}, {work, n / 2 + 1, 1}};
    pthread_t t[2];

    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, half_main, &halves[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

static void sha_work(uint64_t n)
{
    static const uint8_t block[64] = "two processors";
    uint32_t state[8] = {0};

    for (uint64_t i = 0; i < n; i++)
        bench_sha256_block(state, block);
    use(state[0]);
}

static struct {
    volatile int held;
    uint64_t counter;
    char pad[64];
} spin __attribute__((aligned(64)));

static void spin_work(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        while (__atomic_exchange_n(&spin.held, 1, __ATOMIC_ACQUIRE))
            while (spin.held)
                __builtin_ia32_pause();
        spin.counter++;
        __atomic_store_n(&spin.held, 0, __ATOMIC_RELEASE);
    }
}

static uint64_t contended __attribute__((aligned(64)));

static void xadd_work(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        use(__atomic_fetch_add(&contended, 1, __ATOMIC_SEQ_CST));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void mutex_work(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        pthread_mutex_lock(&mutex);
        spin.counter++;
        pthread_mutex_unlock(&mutex);
    }
}

static void smp_sha_run(uint64_t n)
{
    both(sha_work, n);
}

static void smp_spin_run(uint64_t n)
{
    both(spin_work, n);
}

static void smp_xadd_run(uint64_t n)
{
    both(xadd_work, n);
}

static void smp_mutex_run(uint64_t n)
{
    both(mutex_work, n);
}

static void smp_pipe_run(uint64_t n)
{
    bench_pingpong(n, 0, 1);
}

const struct row smp_rows[] = {
    {"smp_sha256", "smp", smp_sha_run, two_cpus, SHA_BATCH},
    {"smp_spinlock", "smp", smp_spin_run, two_cpus, LOCK_BATCH},
    {"smp_xadd", "smp", smp_xadd_run, two_cpus, LOCK_BATCH},
    {"smp_mutex", "smp", smp_mutex_run, two_cpus, LOCK_BATCH},
    {"smp_pipe", "other", smp_pipe_run, two_cpus, 0},
    {NULL, NULL, NULL, NULL, 0},
};

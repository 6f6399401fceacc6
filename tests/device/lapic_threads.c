/*
 * Local APICs from several threads at once, as vCPUs use them: a token goes round by IPIs while messages come from a
 * device. Each thread sleeps until it is kicked: a kick that is lost hangs the test (the runner ends it), which is
 * lapic.c's invariant 2. TSan looks at the rest.
 */
#include "pc.h"
#include <pthread.h>
#include <semaphore.h>

#define CPUS 4
#define ROUNDS 5000
#define TOKEN 0x41
#define DEVICE 0x62

struct ring {
    struct pc pc;
    struct cpu {
        struct ring *ring;
        unsigned index;
        sem_t kicked;
        unsigned tokens, messages;
    } cpu[CPUS];
};

static void kick(void *opaque, unsigned cpu, u32 bits)
{
    struct ring *r = opaque;

    sem_post(&r->cpu[cpu].kicked);
}

static void pass_on(struct pc *pc, unsigned from)
{
    struct accel_intc intc = board_intc(pc->b);

    intc.write_msr(intc.opaque, from, 0x830, (u64)((from + 1) % CPUS) << 32 | TOKEN);
}

/* Takes whatever is pending. */
static void serve(struct cpu *c)
{
    struct pc *pc = &c->ring->pc;
    struct accel_intc intc = board_intc(pc->b);

    while (intc.pending(intc.opaque, c->index)) {
        int vector = intc.acknowledge(intc.opaque, c->index);

        if (vector == DEVICE)
            c->messages++;
        if (vector == TOKEN) {
            c->tokens++;
            if (c->tokens <= ROUNDS)
                pass_on(pc, c->index);
        }
        intc.write_msr(intc.opaque, c->index, 0x80b, 0);
    }
}

static void *run(void *opaque)
{
    struct cpu *c = opaque;

    while (c->tokens < ROUNDS) {
        serve(c);
        if (c->tokens < ROUNDS)
            sem_wait(&c->kicked);
    }
    return NULL;
}

static void test_ring(void **state)
{
    struct ring *r = calloc(1, sizeof(*r));
    pthread_t thread[CPUS];
    struct msi_sink msi;

    assert_non_null(r);
    pc_init(&r->pc, CPUS);
    pc_enable_apics(&r->pc);
    r->pc.b->lapic.kicker = (struct cpu_kicker){kick, r};
    for (unsigned i = 0; i < CPUS; i++) {
        struct accel_intc intc = board_intc(r->pc.b);

        r->cpu[i].ring = r;
        r->cpu[i].index = i;
        sem_init(&r->cpu[i].kicked, 0, 0);
        assert_true(intc.write_msr(intc.opaque, i, 0x1b, MEMMAP_LAPIC | 0xc00));
    }
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run, &r->cpu[i]), 0);
    pass_on(&r->pc, 0);
    msi = board_msi(r->pc.b);
    for (unsigned i = 0; i < ROUNDS; i++)
        msi_send(&msi, 0xfee00000 | (i % CPUS) << 12, DEVICE);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    for (unsigned i = 0; i < CPUS; i++) {
        assert_true(r->cpu[i].tokens >= ROUNDS);
        sem_destroy(&r->cpu[i].kicked);
    }
    pc_fini(&r->pc);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ring)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Copies a running payload's memory, in rounds, as a migration or a snapshot does, and compares: after each stop the copy
 * must be RAM, byte for byte. The payload (guest/payload/moving.c) writes in every way there is, on 1 to 8 processors.
 *
 * usage: moving ACCELERATOR PAYLOAD CPUS [STOPS [away]]
 *
 * A stop: processors run; rounds of collect and copy while they do; they are stopped; one more round; compare. With a
 * log that misses a store, or a collector that lets a processor finish a store that it has begun, pages differ.
 * away: behind each stop all of memory is taken away, and comes back from the copy when it is touched.
 *
 * Threads: one per vCPU; the main one collects.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image.h"
#include "mem/dirty.h"
#include "mem/lazy.h"
#include "ports.h"

#define RAM_BYTES (34 * MiB)
#define PORT_FORK 0x510
#define CPUS_MAX 8
#define ROUNDS 3
#define STARTS 5000 /* of logs, while processors run */

/* The payload's, see there. */
struct control {
    u32 forked, stop, cpus, finished;
    u64 rounds[CPUS_MAX];
};

struct runner {
    struct machine m;
    unsigned cpus;
    struct vcpu *vcpu[CPUS_MAX];
    pthread_t thread[CPUS_MAX];
    struct x86_cpu start[CPUS_MAX]; /* of each; [0] is what it was when it stopped */
    struct io_region fork_port;

    pthread_mutex_t lock; /* protects the rest */
    pthread_cond_t change;
    bool go, quit;
    unsigned running, attached;
    u64 turn; /* counts go */
    const char *failed;
    u64 control; /* its address in the guest, 0: not told yet */
};

static u64 fork_read(void *opaque, u64 offset, unsigned size)
{
    struct runner *r = opaque;

    return r->cpus;
}

static void fork_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct runner *r = opaque;

    pthread_mutex_lock(&r->lock);
    r->control = value;
    pthread_cond_broadcast(&r->change);
    pthread_mutex_unlock(&r->lock);
}

static const struct io_ops fork_ops = {fork_read, fork_write};

/* --- vCPU threads --- */

struct vcpu_arg {
    struct runner *r;
    unsigned index;
};

/* Waits for its next turn; false: there is none. */
static bool wait_turn(struct runner *r, u64 *turn)
{
    bool run;

    pthread_mutex_lock(&r->lock);
    while (!r->quit && (!r->go || r->turn == *turn))
        pthread_cond_wait(&r->change, &r->lock);
    *turn = r->turn;
    run = !r->quit;
    pthread_mutex_unlock(&r->lock);
    return run;
}

static void turn_over(struct runner *r, const char *failed)
{
    pthread_mutex_lock(&r->lock);
    r->running--;
    if (failed)
        r->failed = failed;
    pthread_cond_broadcast(&r->change);
    pthread_mutex_unlock(&r->lock);
}

static bool attach(struct runner *r, unsigned index)
{
    struct err err = ERR_INIT;
    int rc = r->m.ops->vcpu_attach(r->vcpu[index], &err);

    if (!rc)
        rc = r->m.ops->vcpu_set(r->vcpu[index], &r->start[index], &err);
    if (rc)
        printf("# processor %u: %s\n", index, err.msg);
    return !rc;
}

static void *vcpu_main(void *opaque)
{
    struct vcpu_arg arg = *(struct vcpu_arg *)opaque;
    struct runner *r = arg.r;
    struct err err = ERR_INIT;
    bool attached = false;
    u64 turn = 0;

    free(opaque);
    while (wait_turn(r, &turn)) {
        const char *failed = NULL;

        if (!attached && !attach(r, arg.index))
            failed = "a processor cannot start";
        attached = true;
        if (!failed && r->m.ops->vcpu_run(r->vcpu[arg.index], &err) != VCPU_STOPPED)
            failed = err.code ? err.msg : "a processor shut down";
        if (failed)
            printf("# processor %u: %s\n", arg.index, failed);
        /* The first one hands its state on to those that come after it. */
        if (arg.index == 0 && r->m.ops->vcpu_get(r->vcpu[0], &r->start[0], &err))
            failed = "no state to be had";
        turn_over(r, failed);
    }
    return NULL;
}

static int add_vcpu(struct runner *r, unsigned index, struct err *err)
{
    struct vcpu_arg *arg = calloc(1, sizeof(*arg));
    int rc = arg ? r->m.ops->vcpu_new(r->m.accel, index, &r->vcpu[index], err) : -ENOMEM;

    if (rc)
        return rc;
    *arg = (struct vcpu_arg){.r = r, .index = index};
    rc = pthread_create(&r->thread[index], NULL, vcpu_main, arg);
    return rc ? err_sys(err, rc, "thread") : 0;
}

static void go(struct runner *r, unsigned n)
{
    pthread_mutex_lock(&r->lock);
    r->go = true;
    r->turn++;
    r->running = n;
    pthread_cond_broadcast(&r->change);
    pthread_mutex_unlock(&r->lock);
}

static void wait_all(struct runner *r)
{
    pthread_mutex_lock(&r->lock);
    while (r->running)
        pthread_cond_wait(&r->change, &r->lock);
    r->go = false;
    pthread_mutex_unlock(&r->lock);
}

/* The event is sticky: it may not be sent to those that stand still. */
static void halt(struct runner *r)
{
    if (!r->go)
        return;
    for (unsigned i = 0; i < r->cpus && r->vcpu[i]; i++)
        r->m.ops->vcpu_event(r->vcpu[i], VCPU_EV_STOP);
    wait_all(r);
}

/* --- the machine --- */

static int machine_start(struct runner *r, const char *payload, struct err *err)
{
    struct machine *m = &r->m;
    u32 entry = 0;
    int rc = gmem_init(&m->ram, RAM_BYTES, err);

    if (!rc)
        rc = machine_ports_init(m, err);
    r->fork_port = (struct io_region){
        .name = "fork", .base = PORT_FORK, .len = 4, .ops = &fork_ops, .opaque = r};
    if (!rc)
        rc = aspace_map(&m->pio, &r->fork_port, err);
    if (!rc)
        rc = cpu_model_init(&m->model, "host", r->cpus, err);
    if (!rc)
        rc = image_load(&m->ram, payload, &entry, err);
    m->config.ram = &m->ram;
    m->config.mmio = &m->mmio;
    m->config.pio = &m->pio;
    m->config.model = &m->model;
    m->config.cpus = r->cpus;
    m->config.name = "payload";
    if (!rc)
        rc = m->ops->new (&m->config, &m->accel, err);
    image_entry(&r->start[0], entry);
    if (!rc)
        rc = add_vcpu(r, 0, err);
    m->vcpu = r->vcpu[0];
    return rc;
}

/* Lets the payload come to its loop, stops it there and makes the other processors, which go on from the same place. */
static int machine_fork(struct runner *r, struct err *err)
{
    u32 one = 1;
    int rc = 0;

    go(r, 1);
    pthread_mutex_lock(&r->lock);
    while (!r->control && r->running)
        pthread_cond_wait(&r->change, &r->lock);
    pthread_mutex_unlock(&r->lock);
    halt(r);
    if (!r->control)
        return err_set(err, EIO, "the payload does not come to its loop");
    for (unsigned i = 1; i < r->cpus && !rc; i++) {
        r->start[i] = r->start[0];
        r->start[i].gpr[RBX] = i;
        rc = add_vcpu(r, i, err);
    }
    gmem_write(&r->m.ram, r->control, &one, sizeof(one));
    return rc;
}

static void machine_stop(struct runner *r)
{
    pthread_mutex_lock(&r->lock);
    r->quit = true;
    pthread_cond_broadcast(&r->change);
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->cpus; i++)
        if (r->vcpu[i])
            pthread_join(r->thread[i], NULL);
    for (unsigned i = 0; i < r->cpus; i++)
        if (r->vcpu[i])
            r->m.ops->vcpu_free(r->vcpu[i]);
    if (r->m.accel)
        r->m.ops->free(r->m.accel);
    aspace_fini(&r->m.mmio);
    aspace_fini(&r->m.pio);
    gmem_fini(&r->m.ram);
}

/* --- the copy --- */

struct copy {
    struct dirty_log log;
    u8 *bytes;
    u64 *bits;
    u64 collects, pages, collect_ns;
    u64 fetches; /* atomic */
    bool away;
};

static u64 now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)(now.tv_sec * NS_PER_S + now.tv_nsec);
}

static int copy_round(struct runner *r, struct copy *c, struct err *err)
{
    struct gmem *ram = &r->m.ram;
    u64 count = 0, start = now_ns();
    int rc = dirty_collect(ram, &c->log, c->bits, &count, err);

    c->collect_ns += now_ns() - start;
    c->collects++;
    c->pages += count;
    for (u64 p = 0; !rc && p < dirty_pages(ram); p++)
        if (c->bits[p / 64] >> (p % 64) & 1)
            memcpy(c->bytes + p * 4096, ram->base + p * 4096, 4096);
    return rc;
}

/* Until every processor has made some rounds: then each has met its pages again. */
static void let_advance(struct runner *r, u64 rounds)
{
    const struct control *control = gmem_ptr_ro(&r->m.ram, r->control, sizeof(*control));
    bool failed = false;

    for (unsigned i = 0; i < r->cpus; i++) {
        u64 from = __atomic_load_n(&control->rounds[i], __ATOMIC_RELAXED);

        while (!failed && __atomic_load_n(&control->rounds[i], __ATOMIC_RELAXED) - from < rounds) {
            sched_yield();
            pthread_mutex_lock(&r->lock);
            failed = r->failed;
            pthread_mutex_unlock(&r->lock);
        }
    }
}

static bool same(const struct runner *r, const struct copy *c)
{
    bool all = true;

    for (u64 p = 0; p < dirty_pages(&r->m.ram); p++)
        if (memcmp(c->bytes + p * 4096, r->m.ram.base + p * 4096, 4096)) {
            if (all)
                printf("# the page at 0x%llx differs\n", p * 4096ull);
            all = false;
        }
    return all;
}

/* Logs begin and end at any moment: a processor may be in the middle of an access, and looks only once whether there is one. */
static int start_often(struct runner *r, struct copy *c, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < STARTS && !rc; i++) {
        u64 until = now_ns() + 1000 + i * 7919ull % 20000;

        while (now_ns() < until) /* they get on */
            ;
        rc = dirty_start(&r->m.ram, &c->log, err);
        dirty_stop(&r->m.ram, &c->log);
    }
    return rc;
}

static int copy_start(struct runner *r, struct copy *c, struct err *err)
{
    int rc;

    c->bytes = malloc(RAM_BYTES);
    c->bits = calloc(dirty_words(&r->m.ram), sizeof(u64));
    if (!c->bytes || !c->bits)
        return err_set(err, ENOMEM, "no memory for the copy");
    go(r, r->cpus);
    let_advance(r, 20);
    rc = start_often(r, c, err);
    rc = rc ? rc : dirty_start(&r->m.ram, &c->log, err);
    memcpy(c->bytes, r->m.ram.base, RAM_BYTES); /* while they run */
    return rc;
}

static int fetch(void *opaque, u64 page, void *dst4096)
{
    struct copy *c = opaque;

    if (__atomic_add_fetch(&c->fetches, 1, __ATOMIC_SEQ_CST) % 97 == 0)
        return -EINTR;
    memcpy(dst4096, c->bytes + page * 4096, 4096);
    return 0;
}

static int take_away(struct runner *r, struct copy *c, struct err *err)
{
    struct lazy_source source = {.fetch = fetch, .opaque = c};

    memset(c->bits, 0xff, dirty_words(&r->m.ram) * sizeof(u64));
    for (u64 p = 0; p < dirty_pages(&r->m.ram); p++)
        r->m.ram.base[p * 4096] ^= 0x5a; /* enough to be wrong */
    return lazy_begin(&r->m.ram, &source, c->bits, err);
}

static bool copy_stop(struct runner *r, struct copy *c, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < ROUNDS && !rc; i++) {
        let_advance(r, 1);
        rc = copy_round(r, c, err);
    }
    halt(r);
    if (!rc)
        rc = copy_round(r, c, err);
    if (!rc)
        rc = lazy_end(&r->m.ram, err);
    if (rc || r->failed || !same(r, c))
        return false;
    return !c->away || !take_away(r, c, err);
}

/* Stops and goes on, then lets the payload come to its end. */
static bool copy_all(struct runner *r, unsigned stops, bool away, struct err *err)
{
    struct copy c = {.away = away};
    bool ok = !copy_start(r, &c, err);
    u32 one = 1;
    unsigned n;

    for (n = 0; ok && n < stops; n++) {
        ok = copy_stop(r, &c, err);
        if (ok && n + 1 < stops)
            go(r, r->cpus);
    }
    halt(r);
    dirty_stop(&r->m.ram, &c.log);
    lazy_end(&r->m.ram, err);
    free(c.bytes);
    free(c.bits);
    printf("# %u stops, %llu rounds, %llu pages, %llu us for each collect\n", n,
           (unsigned long long)c.collects, (unsigned long long)c.pages,
           (unsigned long long)(c.collects ? c.collect_ns / c.collects / 1000 : 0));
    gmem_write(&r->m.ram, r->control + offsetof(struct control, stop), &one, sizeof(one));
    go(r, r->cpus);
    pthread_mutex_lock(&r->lock);
    while (!r->failed && r->m.exit_status < 0 && r->running == r->cpus)
        pthread_cond_wait(&r->change, &r->lock);
    pthread_mutex_unlock(&r->lock);
    halt(r);
    return ok;
}

static const struct accel_ops *find_accel(const char *name)
{
    for (unsigned i = 0; accel_list[i]; i++)
        if (!strcmp(accel_list[i]->name, name))
            return accel_list[i];
    return NULL;
}

int main(int argc, char **argv)
{
    static struct runner r = {.lock = PTHREAD_MUTEX_INITIALIZER,
                              .change = PTHREAD_COND_INITIALIZER};
    struct err err = ERR_INIT;
    bool ok;
    int rc;

    if (argc < 4 || !(r.m.ops = find_accel(argv[1]))) {
        fprintf(stderr, "usage: %s ACCELERATOR PAYLOAD CPUS [STOPS [away]]\n", argv[0]);
        return 2;
    }
    r.cpus = (unsigned)MIN(strtoul(argv[3], NULL, 10), CPUS_MAX);
    if (r.m.ops->probe(&err)) {
        printf("1..0 # SKIP %s\n", err.msg);
        return 0;
    }
    rc = machine_start(&r, argv[2], &err);
    if (!rc)
        rc = machine_fork(&r, &err);
    ok = !rc && copy_all(&r, argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 40, argc > 5, &err);
    if (err.code)
        printf("# %s\n", err.msg);
    /* The payload has numbered its own cases, and printed the plan. */
    if (!ok)
        puts("Bail out! the copy is not the machine's memory");
    machine_stop(&r);
    return !ok || r.m.exit_status != 0;
}

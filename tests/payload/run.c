/*
 * Runs one payload on one accelerator, without a board: guest memory, a processor and the few devices of ports.c. What
 * the payload says is TAP and goes to standard output.
 *
 * usage: run ACCELERATOR PAYLOAD [SECONDS]
 * TRAPEZE_PAYLOAD_MOVES=N in the environment: the machine is moved so many times meanwhile (shake.h);
 * TRAPEZE_PAYLOAD_ACROSS=ACCELERATOR: between that one and the other.
 *
 * An accelerator that does not work here is still tried: up to where it gives up its cases are reported, failures as
 * things to do, and the rest as skipped with the reason. Where it claims to work, giving up is a failure.
 *
 * Threads: the main one is the vCPU's; a second one only watches the time.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "image.h"
#include "ports.h"
#include "shake.h"

#define RAM_BYTES (64 * MiB)
#define SECONDS_DEFAULT 60

struct watch {
    struct machine *m;
    pthread_mutex_t lock; /* protects done */
    pthread_cond_t change;
    unsigned seconds;
    bool done, expired;
};

static struct timespec seconds_from_now(unsigned seconds)
{
    struct timespec at;

    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += seconds;
    return at;
}

/* Asks the processor to stop when the time is over; ends the program if it does not listen. */
static void *watch_main(void *opaque)
{
    struct watch *w = opaque;
    struct timespec at = seconds_from_now(w->seconds);

    pthread_mutex_lock(&w->lock);
    while (!w->done && !w->expired)
        w->expired = pthread_cond_timedwait(&w->change, &w->lock, &at) == ETIMEDOUT;
    if (!w->done) {
        w->m->ops->vcpu_event(w->m->vcpu, VCPU_EV_STOP);
        at = seconds_from_now(5);
        while (!w->done)
            if (pthread_cond_timedwait(&w->change, &w->lock, &at) == ETIMEDOUT) {
                puts("Bail out! the processor does not stop when asked to");
                fflush(stdout);
                _exit(1);
            }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static const struct accel_ops *find_accel(const char *name)
{
    for (unsigned i = 0; accel_list[i]; i++)
        if (!strcmp(accel_list[i]->name, name))
            return accel_list[i];
    return NULL;
}

/* Memory around everything the accelerator maps, full of zeros: a translator that reads there by mistake must get a wrong
 * value and not a fault, from which it would recover. Not given back. */
static void surround(void)
{
    mmap(NULL, 64 * GiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
         0);
}

static int machine_init(struct machine *m, const char *payload, struct err *err)
{
    static struct x86_cpu state;
    u32 entry = 0;
    int rc;

    surround();
    rc = gmem_init(&m->ram, RAM_BYTES, err);
    if (!rc)
        rc = machine_ports_init(m, err);
    if (!rc)
        rc = cpu_model_init(&m->model, "host", 1, err);
    if (!rc)
        rc = image_load(&m->ram, payload, &entry, err);
    if (rc)
        return rc;
    m->config.ram = &m->ram;
    m->config.mmio = &m->mmio;
    m->config.pio = &m->pio;
    m->config.model = &m->model;
    m->config.cpus = 1;
    m->config.name = "payload";
    rc = m->ops->new (&m->config, &m->accel, err);
    if (!rc)
        rc = m->ops->vcpu_new(m->accel, 0, &m->vcpu, err);
    if (!rc)
        rc = m->ops->vcpu_attach(m->vcpu, err);
    if (rc)
        return rc;
    image_entry(&state, entry);
    return m->ops->vcpu_set(m->vcpu, &state, err);
}

static void machine_fini(struct machine *m)
{
    if (m->vcpu)
        m->ops->vcpu_free(m->vcpu);
    if (m->accel)
        m->ops->free(m->accel);
    aspace_fini(&m->mmio);
    aspace_fini(&m->pio);
    gmem_fini(&m->ram);
}

static enum vcpu_exit run(struct machine *m, unsigned seconds, bool *ret_expired, struct err *err)
{
    struct watch w = {.m = m,
                      .seconds = seconds,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .change = PTHREAD_COND_INITIALIZER};
    const char *moves = getenv("TRAPEZE_PAYLOAD_MOVES"), *across = getenv("TRAPEZE_PAYLOAD_ACROSS");
    enum vcpu_exit end;
    struct shaker shaker;
    pthread_t thread;

    *ret_expired = false;
    if (pthread_create(&thread, NULL, watch_main, &w)) {
        err_set(err, EAGAIN, "no thread to watch the time");
        return VCPU_FAILED;
    }
    end = VCPU_FAILED;
    if (!shake_start(&shaker, m, moves ? (unsigned)strtoul(moves, NULL, 10) : 0,
                     across ? find_accel(across) : NULL, err))
        do
            end = m->ops->vcpu_run(m->vcpu, err);
        while (end == VCPU_STOPPED && !w.expired && shake(&shaker, err));
    shake_end(&shaker);
    if (err->code)
        end = VCPU_FAILED;
    pthread_mutex_lock(&w.lock);
    w.done = true;
    *ret_expired = w.expired;
    pthread_cond_signal(&w.change);
    pthread_mutex_unlock(&w.lock);
    pthread_join(thread, NULL);
    return end;
}

/* The run ended in a way that the payload did not mean: one more case that says so, and the plan if it did not come. */
static int ended_early(struct machine *m, const char *how)
{
    if (m->plan_seen) {
        printf("# %s\n", how);
        return !m->excuse;
    }
    m->cases++;
    if (m->excuse)
        printf("ok %u - the rest # SKIP %s: %s\n", m->cases, how, m->excuse);
    else
        printf("not ok %u - the payload comes to its end: %s\n", m->cases, how);
    printf("1..%u\n", m->cases);
    return m->failures || !m->excuse;
}

static int judge(struct machine *m, enum vcpu_exit end, bool expired, const struct err *err)
{
    switch (end) {
    case VCPU_SHUTDOWN:
        if (m->shutdown_expected)
            return m->failures != 0;
        return ended_early(m, "triple fault");
    case VCPU_FAILED:
        return ended_early(m, err->msg);
    case VCPU_STOPPED:
        break;
    }
    if (expired)
        return ended_early(m, "it hangs");
    if (m->shutdown_expected)
        return ended_early(m, "no triple fault came");
    return m->failures || (m->exit_status && !m->excuse);
}

int main(int argc, char **argv)
{
    static struct machine m;
    struct err err = ERR_INIT, reason = ERR_INIT;
    enum vcpu_exit end = VCPU_FAILED;
    bool works, expired = false;
    unsigned seconds;
    int rc;

    if (argc < 3) {
        fprintf(stderr, "usage: %s ACCELERATOR PAYLOAD [SECONDS]\n", argv[0]);
        return 2;
    }
    m.ops = find_accel(argv[1]);
    if (!m.ops) {
        printf("1..0 # SKIP there is no accelerator %s\n", argv[1]);
        return 0;
    }
    works = !m.ops->probe(&reason);
    if (works && getenv("TRAPEZE_PAYLOAD_ACROSS"))
        works = !find_accel(getenv("TRAPEZE_PAYLOAD_ACROSS"))->probe(&reason);
    m.excuse = works ? NULL : reason.msg;
    /* Where it is known not to work, hanging is to be expected. */
    seconds = argc > 3                                    ? (unsigned)strtoul(argv[3], NULL, 10)
              : works || getenv("TRAPEZE_PAYLOAD_ACROSS") ? SECONDS_DEFAULT
                                                          : 2;
    rc = machine_init(&m, argv[2], &err);
    if (!rc)
        end = run(&m, seconds, &expired, &err);
    rc = judge(&m, end, expired, &err);
    machine_fini(&m);
    return rc;
}

/* See shake.h. Everything runs in the vCPU's thread. */
#include "shake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem/dirty.h"
#include "x86/cpu_state.h"

static unsigned next_random(struct shaker *s, unsigned below)
{
    s->random = s->random * 1664525 + 1013904223;
    return (s->random >> 8) % below;
}

static int fetch(void *opaque, u64 page, void *dst4096)
{
    struct shaker *s = opaque;

    if (s->until && !--s->until) {
        s->m->ops->vcpu_event(s->m->vcpu, VCPU_EV_STOP);
        return -EINTR;
    }
    memcpy(dst4096, s->bytes + page * 4096, 4096);
    return 0;
}

/* Takes all of memory away. */
static int take_away(struct shaker *s, struct err *err)
{
    struct lazy_source source = {.fetch = fetch, .opaque = s};
    struct gmem *ram = &s->m->ram;
    u64 *all = malloc(dirty_words(ram) * 8);
    int rc;

    if (!all)
        return err_set(err, ENOMEM, "no memory");
    memset(all, 0xff, dirty_words(ram) * 8);
    memcpy(s->bytes, ram->base, ram->size);
    for (u64 at = 0; at < ram->size; at += 4096)
        if (memcmp(ram->base + at, ram->base + ram->size - 4096,
                   4096)) /* leave what was never touched */
            memset(ram->base + at, 0xcc, 4096);
    rc = lazy_begin(ram, &source, all, err);
    free(all);
    s->until = s->moves ? 1 + next_random(s, 16) : 0;
    return rc;
}

int shake_start(struct shaker *s, struct machine *m, unsigned moves, const struct accel_ops *across,
                struct err *err)
{
    *s = (struct shaker){.m = m, .moves = moves, .random = 1, .across = across};
    if (!moves)
        return 0;
    s->bytes = malloc(m->ram.size);
    if (!s->bytes)
        return err_set(err, ENOMEM, "no memory");
    return take_away(s, err);
}

/* Through bytes, as a file would have it: what a processor can be is accepted, and comes back as it was. */
static int through_bytes(struct shaker *s, struct x86_cpu *state, struct err *err)
{
    u64 len = state_table_bytes(&x86_cpu_table, x86_cpu_table.version);
    struct x86_cpu *back = aligned_alloc(64, sizeof(*back));
    u8 *buf = malloc(len), *again = malloc(len);
    int rc = back && buf && again ? x86_cpu_check(&s->m->model, state, err) : -ENOMEM;

    if (!rc) {
        memset(back, 0, sizeof(*back));
        state_table_save(&x86_cpu_table, state, buf);
        rc = state_table_load(&x86_cpu_table, x86_cpu_table.version, buf, back, err);
    }
    if (!rc)
        rc = s->m->ops->vcpu_set(s->m->vcpu, back, err);
    if (!rc)
        rc = s->m->ops->vcpu_get(s->m->vcpu, back, err);
    if (!rc) {
        state_table_save(&x86_cpu_table, back, again);
        if (memcmp(buf, again, len))
            rc = err_set(err, EIO, "the processor's state is not what it was");
    }
    free(back);
    free(buf);
    free(again);
    return rc;
}

/* A new accelerator, as on another host, with a vCPU that has not run yet. */
static int other_accel(struct shaker *s, struct err *err)
{
    struct machine *m = s->m;
    const struct accel_ops *from = m->ops;
    int rc;

    m->ops->vcpu_free(m->vcpu);
    m->ops->free(m->accel);
    m->vcpu = NULL;
    m->accel = NULL;
    m->ops = s->across;
    s->across = from;
    rc = m->ops->new (&m->config, &m->accel, err);
    if (!rc)
        rc = m->ops->vcpu_new(m->accel, 0, &m->vcpu, err);
    return rc ? rc : m->ops->vcpu_attach(m->vcpu, err);
}

bool shake(struct shaker *s, struct err *err)
{
    struct x86_cpu *state;
    int rc;

    if (!s->moves || s->m->exit_status >= 0)
        return false;
    s->moves--;
    s->done++;
    state = aligned_alloc(64, sizeof(*state));
    rc = state ? s->m->ops->vcpu_get(s->m->vcpu, state, err) : -ENOMEM;
    if (!rc)
        rc = lazy_end(&s->m->ram, err);
    if (!rc && s->across)
        rc = other_accel(s, err);
    if (!rc)
        rc = take_away(s, err);
    if (!rc)
        rc = s->across ? s->m->ops->vcpu_set(s->m->vcpu, state, err) : through_bytes(s, state, err);
    free(state);
    return !rc;
}

void shake_end(struct shaker *s)
{
    if (s->done)
        printf("# moved %u times%s\n", s->done, s->across ? ", from one accelerator to the other" : "");
    free(s->bytes);
    s->bytes = NULL;
}

/*
 * A machine's networks while it moves: what still came to the old place goes after it, and the new place is announced.
 *
 *   source       stopped: frames stay in their ports; after GO they go over, and so do those that come until every switch
 *                knows the new place
 *   destination  gives them to its devices, in their order; tells switches (RARP) and asks the guest to speak up, at once
 *                and then a few times more, for who was busy or has just been plugged in
 *
 * Without the first, a SYN that comes in the wrong 10 ms is sent again a second later.
 *
 * Invariant: nobody announces a guest that stands still or that has left.
 * Threads: all in the main loop, but for take_frames(), which must not wait for it: the loop may wait for a page that the
 * same connection brings.
 */
#include "vm/migrate/parts.h"

#include "device/virtio_net.h"
#include "vm/migrate/frames.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 5
#define FIRST_NS (50 * NS_PER_S / 1000)
#define LONGER_NS (100 * NS_PER_S / 1000)
#define ARRIVED_MAX (8 * MiB) /* that wait for the main loop; more are lost, as on a wire */

/* --- source --- */

struct collection {
    struct vm_migration *m;
    u8 *body;
    u32 size, len;
};

static void collect_from(struct collection *c, unsigned index)
{
    struct netport *port = c->m->vm->net[index];

    while (c->size - c->len >= MIGRATE_FRAME_HEAD + NET_FRAME_MAX) {
        u8 *head = c->body + c->len;
        struct migrate_frame f = {.network = index};

        f.len = (u32)port->ops->take(port, &f.offload, head + MIGRATE_FRAME_HEAD, NET_FRAME_MAX);
        if (!f.len)
            return;
        migrate_frame_put(&f, head);
        c->len += MIGRATE_FRAME_HEAD + f.len;
    }
}

static void collect_work(void *opaque)
{
    struct collection *c = opaque;
    const struct vm *vm = c->m->vm;

    for (unsigned i = 0; i < VM_NETS && vm->paused; i++)
        if (vm->net_device[i] && vm->net[i] && vm->net[i]->ops->take)
            collect_from(c, i);
}

static u32 frames(void *opaque, u8 *body, u32 size)
{
    struct collection c = {.m = opaque, .body = body, .size = size};

    worker_in_loop(c.m->worker, collect_work, &c);
    return c.len;
}

/* --- destination --- */

/* A message of frames, on its way from a connection's thread to the main loop. */
struct arrived {
    struct arrived *next;
    u32 len;
    u8 body[];
};

static void give(struct vm *vm, const struct migrate_frame *f)
{
    struct netport *port = f->network < VM_NETS ? vm->net[f->network] : NULL;

    if (port && vm->net_device[f->network] && port->ops->give)
        port->ops->give(port, &f->offload, f->bytes, f->len);
}

static struct arrived *take_arrived(struct vm_migration *m)
{
    pthread_mutex_lock(&m->arrived_lock);
    struct arrived *all = m->arrived;
    m->arrived = NULL;
    m->arrived_last = &m->arrived;
    m->arrived_bytes = 0;
    pthread_mutex_unlock(&m->arrived_lock);
    return all;
}

static void give_arrived(void *opaque)
{
    struct vm_migration *m = opaque;

    for (struct arrived *a = take_arrived(m), *next; a; a = next) {
        const u8 *body = a->body;
        struct migrate_frame f;

        while (migrate_frame_next(&body, &a->len, &f, NULL) > 0)
            give(m->vm, &f);
        next = a->next;
        free(a);
    }
}

static int take_frames(void *opaque, const u8 *body, u32 len, struct err *err)
{
    struct vm_migration *m = opaque;
    const u8 *at = body;
    u32 left = len;
    struct migrate_frame f;
    int rc;

    while ((rc = migrate_frame_next(&at, &left, &f, err)) > 0)
        ;
    struct arrived *a = rc ? NULL : malloc(sizeof(*a) + len);
    if (!a)
        return rc;
    *a = (struct arrived){.len = len};
    memcpy(a->body, body, len);
    pthread_mutex_lock(&m->arrived_lock);
    bool room = m->arrived_bytes + len <= ARRIVED_MAX;
    if (room) {
        *m->arrived_last = a;
        m->arrived_last = &a->next;
        m->arrived_bytes += len;
    }
    pthread_mutex_unlock(&m->arrived_lock);
    if (room)
        loop_call(m->vm->loop, give_arrived, m); /* if not now, with the next ones */
    else
        free(a);
    return 0;
}

static void announce(void *opaque)
{
    struct vm_migration *m = opaque;
    struct vm *vm = m->vm;

    if (m->announced && (vm->paused || vm->ended))
        return;
    for (unsigned i = 0; i < VM_NETS; i++)
        if (vm->net_device[i] && vm->net[i])
            virtio_net_announce(vm->net_device[i]);
    if (++m->announced < ROUNDS)
        timer_arm(&m->announce_tick, vm_now_ns() + FIRST_NS + (m->announced - 1) * LONGER_NS);
}

void vm_migration_announce(struct vm_migration *m)
{
    m->announced = 0;
    announce(m);
}

/* --- both --- */

void vm_migration_network_init(struct vm_migration *m)
{
    const struct vm *vm = m->vm;

    pthread_mutex_init(&m->arrived_lock, NULL);
    m->arrived_last = &m->arrived;
    timer_init(&m->announce_tick, loop_timers(vm->loop), announce, m);
    m->guest.take_frames = take_frames;
    for (unsigned i = 0; i < VM_NETS; i++)
        if (vm->net_device[i] && vm->net[i] && vm->net[i]->ops->take)
            m->guest.frames = frames;
}

void vm_migration_network_fini(struct vm_migration *m)
{
    timer_cancel(&m->announce_tick);
    for (struct arrived *a = take_arrived(m), *next; a; a = next) {
        next = a->next;
        free(a);
    }
    pthread_mutex_destroy(&m->arrived_lock);
}

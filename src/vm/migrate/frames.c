/*
 * Frames on their way after a guest: see frames.h. Invariant: a frame that is handed out has 14 to NET_FRAME_MAX bytes and
 * an offload that a device may show to its driver: it stays inside of the frame. No state, any thread.
 */
#include "vm/migrate/frames.h"

#include "vm/migrate/wire.h"
#include <errno.h>

#define FRAME_MIN 14
#define ALL_FLAGS (MIGRATE_FRAME_PARTIAL | MIGRATE_FRAME_GOOD | MIGRATE_FRAME_ECN)

void migrate_frame_put(const struct migrate_frame *f, u8 ret_head[MIGRATE_FRAME_HEAD])
{
    const struct net_offload *o = &f->offload;

    migrate_put(ret_head, f->len, 4);
    migrate_put(ret_head + 4, f->network, 1);
    migrate_put(ret_head + 5,
                (o->csum_partial ? MIGRATE_FRAME_PARTIAL : 0u) |
                    (o->csum_good ? MIGRATE_FRAME_GOOD : 0u) | (o->ecn ? MIGRATE_FRAME_ECN : 0u),
                1);
    migrate_put(ret_head + 6, o->gso, 2);
    migrate_put(ret_head + 8, o->hdr_len, 2);
    migrate_put(ret_head + 10, o->gso_size, 2);
    migrate_put(ret_head + 12, o->csum_start, 2);
    migrate_put(ret_head + 14, o->csum_offset, 2);
}

static bool is_sane(const struct migrate_frame *f)
{
    const struct net_offload *o = &f->offload;

    if (o->csum_partial && o->csum_start + o->csum_offset + 2u > f->len)
        return false;
    if (o->gso == NET_GSO_NONE)
        return true;
    return (o->gso == NET_GSO_TCP4 || o->gso == NET_GSO_TCP6) && o->csum_partial && o->gso_size &&
           o->hdr_len <= f->len;
}

int migrate_frame_next(const u8 **body, u32 *len, struct migrate_frame *ret_frame, struct err *err)
{
    const u8 *head = *body;
    struct migrate_frame f;

    if (!*len)
        return 0;
    if (*len < MIGRATE_FRAME_HEAD)
        return err_set(err, EPROTO, "a frame's head of %u bytes", *len);
    u8 flags = head[5];
    f = (struct migrate_frame){
        .network = head[4],
        .len = (u32)migrate_get(head, 4),
        .bytes = head + MIGRATE_FRAME_HEAD,
        .offload = {.csum_partial = flags & MIGRATE_FRAME_PARTIAL,
                    .csum_good = (flags & MIGRATE_FRAME_GOOD) != 0,
                    .ecn = (flags & MIGRATE_FRAME_ECN) != 0,
                    .gso = head[6],
                    .hdr_len = (u16)migrate_get(head + 8, 2),
                    .gso_size = (u16)migrate_get(head + 10, 2),
                    .csum_start = (u16)migrate_get(head + 12, 2),
                    .csum_offset = (u16)migrate_get(head + 14, 2)},
    };
    if (f.len < FRAME_MIN || f.len > NET_FRAME_MAX || f.len > *len - MIGRATE_FRAME_HEAD)
        return err_set(err, EPROTO, "a frame of %u bytes in %u", f.len, *len);
    if (flags & ~ALL_FLAGS || head[7] || !is_sane(&f))
        return err_set(err, EPROTO, "a frame that no network sends");
    *body += MIGRATE_FRAME_HEAD + f.len;
    *len -= MIGRATE_FRAME_HEAD + f.len;
    *ret_frame = f;
    return 1;
}

/*
 * FRAMES: what a network sent to a guest that had just left. A message is a sequence of
 *
 *   u32 length, u8 network, u8 flags (enum migrate_frame_flags), u8 gso, u8 0,
 *   u16 header length, gso size, checksum start, checksum offset;  the frame
 */
#ifndef VM_MIGRATE_FRAMES_H
#define VM_MIGRATE_FRAMES_H

#include "net/netport.h"

#define MIGRATE_FRAME_HEAD 16u

enum migrate_frame_flags {
    MIGRATE_FRAME_PARTIAL = 1,
    MIGRATE_FRAME_GOOD = 2,
    MIGRATE_FRAME_ECN = 4
};

struct migrate_frame {
    unsigned network;
    struct net_offload offload;
    u32 len;
    const u8 *bytes;
};

/* What stands before the frame. */
void migrate_frame_put(const struct migrate_frame *f, u8 ret_head[MIGRATE_FRAME_HEAD]);
/* Takes the next frame off *body, *len. 1: here it is; 0: that was all; -EPROTO. What the offload says fits the frame. */
int migrate_frame_next(const u8 **body, u32 *len, struct migrate_frame *ret_frame, struct err *err);

#endif

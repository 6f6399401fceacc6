/*
 * Disks that go over with their machine: what they hold, then what the guest writes meanwhile, in BLOCKS messages. The
 * source calls start and send, the destination write and finish. One thread at a time.
 */
#ifndef VM_MIGRATE_DISK_H
#define VM_MIGRATE_DISK_H

#include "block/mirror.h"
#include "vm/migrate/line.h"

#define MIGRATE_DISKS 16

struct migrate_disk {
    struct block *disk;
    struct block_dirty_log log;
    u64 *todo, *fresh; /* bits of ranges to send; what was written lately */
    u64 next;          /* the range to look at first */
    bool emptied;      /* destination: nothing is left of what the image held */
};

struct migrate_disks {
    struct migrate_disk disk[MIGRATE_DISKS];
    unsigned n;
    bool started;
    u8 *buf;
    u64 unsynced; /* destination: bytes written since the last sync */
};

/* Source: all that the disks hold is to be sent, and all that is written from now on. Disks that are read-only are not:
 * both hosts must have the same. The disks outlive it. */
int migrate_disks_start(struct migrate_disks *d, struct block *const *disks, unsigned n,
                        struct err *err);
/* Sends what is to be sent until about `budget` bytes are gone, and says how many are left. A budget of UINT64_MAX with
 * the guest stopped and the disks drained sends everything. */
int migrate_disks_send(struct migrate_disks *d, struct migrate_line *line, u64 budget,
                       u64 *ret_sent, u64 *ret_left, struct err *err);
/* A zeroed or stopped one is fine. */
void migrate_disks_stop(struct migrate_disks *d);

/* Destination: the disks are filled. What they held before is gone with the first write or the finish. */
void migrate_disks_take(struct migrate_disks *d, struct block *const *disks, unsigned n);
/* bytes NULL: zeros. Every number is foreign. */
int migrate_disks_write(struct migrate_disks *d, u32 disk, u64 offset, u64 len, const u8 *bytes,
                        struct err *err);
/* All of it is on the medium. */
int migrate_disks_finish(struct migrate_disks *d, struct err *err);

#endif

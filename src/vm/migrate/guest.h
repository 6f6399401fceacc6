/*
 * What a migration needs of a machine: the VMM fills this in (vm.c), tests do it with a few
 * pages and no vCPU. All functions may wait, and are called in threads of the migration.
 */
#ifndef VM_MIGRATE_GUEST_H
#define VM_MIGRATE_GUEST_H

#include "mem/lazy.h"
#include "state/stream.h"

struct migrate_line;

struct migrate_guest {
    u8 *ram;
    u64 pages;
    int memfd; /* behind ram; -1: none, then every page may hold something */

    /* --- source --- */
    int (*log_start)(void *opaque, struct err *err);
    /* As dirty_collect(). */
    int (*log_collect)(void *opaque, u64 *ret_bits, u64 *ret_count, struct err *err);
    void (*log_stop)(void *opaque);
    int (*stop)(void *opaque, struct err *err);   /* returns when nothing runs or writes any more */
    int (*resume)(void *opaque, struct err *err); /* after stop */
    void (*throttle)(void *opaque, unsigned percent); /* of its time that the guest is to lose */
    int (*save)(void *opaque, const struct state_sink *to, struct err *err); /* stopped */
    /* Writes down, for who finds this process dead, that the guest may be away (before GO) or is here again (before it
     * runs). NULL: nobody looks. */
    int (*note)(void *opaque, bool away, struct err *err);
    /* Disks that come along. Sends what has changed since the last call, at most about `budget`
     * bytes; says how much is left. NULL: none. */
    int (*disks)(void *opaque, struct migrate_line *line, u64 budget, u64 *ret_sent, u64 *ret_left,
                 struct err *err);
    /* FRAMES (frames.h) that came for the stopped machine since the last call: bytes of body, 0: none.
     * NULL: its networks have nothing that could go after it. */
    u32 (*frames)(void *opaque, u8 *body, u32 size);

    /* --- destination --- */
    int (*load)(void *opaque, const struct state_source *from, struct err *err);
    /* Pages that will come later: before run. */
    int (*absent)(void *opaque, const struct lazy_source *source, const u64 *bits, struct err *err);
    /* Some pages in a row have come; returns how many of them were absent. */
    u64 (*supply)(void *opaque, u64 page, u64 count, const u8 *bytes);
    bool (*is_absent)(void *opaque, u64 page);
    void (*all_there)(void *opaque); /* the last absent page has come */
    /* GO has come: takes what the two hosts share. Undone by release(). */
    int (*claim)(void *opaque, struct err *err);
    void (*release)(void *opaque);
    int (*run)(void *opaque, struct err *err);
    int (*write_blocks)(void *opaque, u32 disk, u64 offset, u64 len, const u8 *bytes,
                        struct err *err); /* bytes NULL: zeros */
    int (*sync_blocks)(void *opaque, struct err *err); /* what has come is on the medium after it */
    /* FRAMES that were sent after the machine, once GO has come. Does not wait for the main loop. NULL: dropped. */
    int (*take_frames)(void *opaque, const u8 *body, u32 len, struct err *err);
    void *opaque;
};

#endif

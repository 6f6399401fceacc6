/*
 * The set of everything in a machine that has saved state. Components register themselves; the set
 * saves, loads and prints them all. Loading is all or nothing: every section goes into a scratch
 * copy, is checked, and only when all are good is any of them committed.
 *
 * Runs in the thread that saves or loads, with everything registered quiet. A set with no entries
 * is zeroed memory.
 */
#ifndef STATE_SET_H
#define STATE_SET_H

#include "state/field.h"
#include "state/stream.h"

/* The caller's, from state_set_add() to state_set_remove(). */
struct state_entry {
    const char *name; /* of the section: "serial", "virtio-blk"; shorter than STATE_NAME_BYTES */
    u32 instance;     /* tells several of a name apart */
    const struct state_table *table;
    void *object; /* table->size bytes; loading overwrites them */
    void *opaque; /* for the hooks, which may all be NULL */
    /* Is this a state that the component could be in? `scratch` came from a file: indices, sizes,
     * counts and combinations are hostile until looked at here. 0 or -errno with the reason. */
    int (*check)(void *opaque, const void *scratch, struct err *err);
    void (*pre_save)(void *opaque);                  /* brings object up to date */
    int (*post_load)(void *opaque, struct err *err); /* takes over what is in object now */
    struct state_entry *next;                        /* the set's */
    void *scratch;                                   /* the set's */
};

struct state_set {
    struct state_entry *first;
};

/* -EEXIST when name and instance are taken, -EINVAL when the table is wrong. */
int state_set_add(struct state_set *s, struct state_entry *e, struct err *err);
void state_set_remove(struct state_set *s, struct state_entry *e); /* no-op when not there */

int state_set_save(struct state_set *s, const struct state_sink *to, struct err *err);
/* On failure nothing has changed, except when a post_load hook failed: then the machine must be
 * thrown away. */
int state_set_load(struct state_set *s, const struct state_source *from, struct err *err);
void state_set_print(struct state_set *s, FILE *out);

#endif

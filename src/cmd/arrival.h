/*
 * One machine that arrives: what is known about it on this host beside its process. Lives in a small file
 * in the run folder, by the migration's token, so that any receiver can be asked about it later, also when its
 * process was killed.
 */
#ifndef CMD_ARRIVAL_H
#define CMD_ARRIVAL_H

#include "host/place.h"
#include "host/records.h"
#include "vm/migrate/owner.h"
#include "vm/migrate/wire.h"

struct arrival_file {
    struct migrate_word word;
    char id[RECORD_ID_LEN + 1]; /* of the guest, when it has one */
};

/* Maps the file of this token, shared; make: it must not be there yet. */
int arrival_map(const struct place *p, const u8 *token, bool make, struct arrival_file **ret_file,
                struct err *err);
void arrival_unmap(struct arrival_file *f);
/* Nobody will ask about it again. */
void arrival_forget(const struct place *p, const u8 *token);
/* Forgets those of yesterday. */
void arrival_sweep(const struct place *p);

#endif

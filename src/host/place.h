/*
 * Where this host's records are: the root, with what outlives a restart of the machine under us, and the run folder, with
 * sockets.
 *
 *   <root>/trapeze.db                     the records
 *   <root>/guests/<id>/                   what belongs to one guest: lock, snapshot.lock, console.log, messages.log
 *   <root>/snapshots/<id>/
 *   <run>/<id>.sock                       its control socket
 */
#ifndef HOST_PLACE_H
#define HOST_PLACE_H

#include "base/err.h"

struct place {
    char *root, *run; /* absolute */
};

/* `root`: the value of --root, or NULL: $TRAPEZE_ROOT, else /var/lib/trapeze for root and $XDG_DATA_HOME/trapeze
 * for others. Makes both folders, for this user alone. */
int place_init(struct place *p, const char *root, struct err *err);
void place_fini(struct place *p);

/* <root>/guests/<id>/<file> or <root>/guests/<id> (file NULL), and the socket; the caller's to free, NULL: no memory. */
char *place_guest(const struct place *p, const char *id, const char *file);
char *place_socket(const struct place *p, const char *id);

/* mkdir -p; folders that are made get mode 0700. */
int place_make(const char *path, struct err *err);

#endif

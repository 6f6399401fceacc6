/* What the files about snapshots share: names of their folders. Not for others. */
#ifndef HOST_SNAPSHOT_PARTS_H
#define HOST_SNAPSHOT_PARTS_H

#include "host/snapshot.h"

/* Before the id, in names of folders. */
#define SNAPSHOT_NEW ".new-" /* in the making */
#define SNAPSHOT_OLD ".old-" /* being removed */
/* In the folder of a new one: a manifest of what it needs. Its maker holds a lock on it. */
#define SNAPSHOT_CLAIM "claim"

/* <root>/snapshots/<prefix><id>[/<file>]; the caller's to free. NULL: no memory. */
char *snapshot_folder(const struct host *h, const char *prefix, const char *id, const char *file);
/* With all files in it; what is not there is no failure. */
void snapshot_remove_folder(const char *path);
void snapshot_empty_folder(const char *path);
int snapshot_sync_folder(const char *path); /* 0 or -errno */
/* Reads a manifest; fd may be -1: then *err is set already. -EBADMSG also when it is not that of this id. */
int snapshot_read_manifest(int fd, const char *id, struct snapshot *ret_s, struct err *err);

#endif

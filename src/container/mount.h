/* One mount of the configuration: its options as flags, and putting it in place with the new mount API. */
#ifndef CONTAINER_MOUNT_H
#define CONTAINER_MOUNT_H

#include "container/spec.h"

/* What a list of options means. */
struct mount_opts {
    u64 attr_set, attr_clr; /* MOUNT_ATTR_* of this mount */
    u64 rec_set, rec_clr;   /* the same for it and all below it */
    u64 propagation;        /* MS_SHARED...; 0: as it is */
    bool propagation_rec;
    bool bind, recursive, remount, copy_up, idmap, idmap_rec, copy_symlink;
    bool has_mode;    /* the file system was given mode= */
    struct strv data; /* parameters for the file system itself, sb flags among them */
};

int mount_opts_parse(struct pool *p, const struct strv *options, struct mount_opts *ret,
                     struct err *err);
/* Names for the `features` verb; NULL after the last. */
const char *mount_opts_name(size_t i);

/* MS_SHARED etc. of a word like "rslave", 0 when it is none; *ret_rec tells the "r". */
u64 mount_propagation(const char *word, bool *ret_rec);

/* Clones the tree at a host path, detached. A descriptor or -errno. */
int mount_clone_tree(const char *source, bool recursive);
/* Creates a file system of this type with these parameters, detached. A descriptor or -errno. */
int mount_new_fs(const char *type, const char *source, const struct mount_opts *o, struct err *err);
/* Applies attributes and propagation to a detached or attached mount. */
int mount_apply(int fd, const struct mount_opts *o, struct err *err);
/* Sets only the propagation. 0 or -errno. */
int mount_set_propagation(int fd, u64 propagation, bool recursive);
/* Attaches a detached mount where `target` is. */
int mount_attach(int fd, int target, const char *what, struct err *err);
/* Copies a directory tree by descriptors, with owners, modes and links. 0 or -errno. */
int mount_copy_tree(int from, int to);

#endif

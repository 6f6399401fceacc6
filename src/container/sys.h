/*
 * System calls that Debian 12's glibc has no wrapper for. Each is the call itself: -1 and errno on failure.
 * Structures and constants come from <linux/...>; <sys/mount.h> clashes with <linux/mount.h> and stays out.
 */
#ifndef CONTAINER_SYS_H
#define CONTAINER_SYS_H

#include "base/types.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>

int sys_openat2(int dirfd, const char *path, u64 flags, u64 mode, u64 resolve);
int sys_open_tree(int dirfd, const char *path, unsigned flags);
int sys_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags);
int sys_fsopen(const char *type, unsigned flags);
int sys_fsconfig(int fd, unsigned cmd, const char *key, const void *value, int aux);
int sys_fsmount(int fd, unsigned flags, unsigned attr);
int sys_mount_setattr(int dirfd, const char *path, unsigned flags, struct mount_attr *attr);
int sys_pivot_root(const char *new_root, const char *put_old);
long sys_clone3(struct clone_args *args);
int sys_pidfd_open(int pid, unsigned flags);
int sys_pidfd_send_signal(int pidfd, int sig);
int sys_close_range(unsigned first, unsigned last, unsigned flags);

/* The old mount calls, declared here for the reason given above. */
int sys_mount(const char *source, const char *target, const char *type, unsigned long flags,
              const void *data);
int sys_umount(const char *target, int flags);

#define SYS_MS_BIND 4096ul
#define SYS_MS_REC 16384ul
#define SYS_MS_UNBINDABLE (1ul << 17)
#define SYS_MS_PRIVATE (1ul << 18)
#define SYS_MS_SLAVE (1ul << 19)
#define SYS_MS_SHARED (1ul << 20)
#define SYS_MNT_DETACH 2

#endif

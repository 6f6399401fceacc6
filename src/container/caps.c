/* Capability names and system calls. The order of the names is that of <linux/capability.h>. */
#include "container/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[CAPS_KNOWN] = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
};

int caps_number(const char *name)
{
    if (!name)
        return -1;
    if (strncasecmp(name, "CAP_", 4) == 0)
        name += 4;
    for (int i = 0; i < CAPS_KNOWN; i++)
        if (strcasecmp(names[i] + 4, name) == 0)
            return i;
    return -1;
}

const char *caps_name(int number)
{
    return names[number];
}

int caps_read_own(struct caps_own *ret, struct err *err)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {0};
    u64 bounding = 0;

    if (syscall(SYS_capget, &head, data) < 0)
        return err_sys(err, errno, "capget");
    for (int i = 0; i < CAPS_KNOWN; i++)
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
            bounding |= BIT(i);
    ret->bounding = bounding;
    ret->permitted = data[0].permitted | (u64)data[1].permitted << 32;
    return 0;
}

u64 caps_limit(u64 sets[5], const struct caps_own *own)
{
    u64 lost = sets[0] & ~own->bounding;

    for (int i = 0; i < 5; i++)
        sets[i] &= own->bounding;
    return lost;
}

int caps_drop_bounding(u64 keep, struct err *err)
{
    for (int i = 0; i < 64; i++) {
        if (keep & BIT(i))
            continue;
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL) /* the first number this kernel does not know */
            return 0;
        /* A process without CAP_SETPCAP may still find that there is nothing to drop. */
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) != 0)
            return err_sys(err, errno, "unable to apply bounding set: drop capability %d", i);
    }
    return 0;
}

int caps_set(u64 effective, u64 permitted, u64 inheritable, struct err *err)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(u32)effective, (u32)permitted, (u32)inheritable},
        {(u32)(effective >> 32), (u32)(permitted >> 32), (u32)(inheritable >> 32)},
    };

    if (syscall(SYS_capset, &head, data) < 0)
        return err_sys(err, errno, "unable to apply caps");
    return 0;
}

int caps_set_ambient(u64 ambient, struct err *err)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return err_sys(err, errno, "clear ambient capabilities");
    for (int i = 0; i < CAPS_KNOWN; i++)
        if (ambient & BIT(i))
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
    return 0;
}

/*
 * What a filter says about system calls that are younger than itself. A filter that allows by list refuses
 * all others with EPERM, say; but a C library that tries a new call and gets EPERM takes it for a decision, and
 * only ENOSYS makes it fall back to the old one. So calls above the highest number that the configuration names
 * for an architecture get ENOSYS, from a few instructions in front of libseccomp's program. runc does so, too.
 *
 *      ld arch
 *      jeq ARCH ? : next          for each architecture of the filter
 *      ld nr
 *      jge X32_BIT ? end :        x32 shares x86-64's token; its calls are left to the filter
 *      jgt highest ? : end
 *      ret ENOSYS
 *      ja end
 */
#include "container/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>

#include "container/file.h"

#define X32_BIT 0x40000000u
#define PER_ARCH 6

static const u32 tokens[] = {
    SCMP_ARCH_AARCH64,   SCMP_ARCH_ARM,      SCMP_ARCH_MIPS,     SCMP_ARCH_MIPS64,
    SCMP_ARCH_MIPS64N32, SCMP_ARCH_MIPSEL,   SCMP_ARCH_MIPSEL64, SCMP_ARCH_MIPSEL64N32,
    SCMP_ARCH_PARISC,    SCMP_ARCH_PARISC64, SCMP_ARCH_PPC,      SCMP_ARCH_PPC64,
    SCMP_ARCH_PPC64LE,   SCMP_ARCH_RISCV64,  SCMP_ARCH_S390,     SCMP_ARCH_S390X,
    SCMP_ARCH_X86,       SCMP_ARCH_X86_64,
};

/* The highest number of any call that the configuration names, or -1. */
static int highest_call(u32 token, json_t *syscalls)
{
    int highest = -1;

    for (size_t i = 0; i < json_len(syscalls); i++) {
        json_t *names = json_get(json_at(syscalls, i), "names");

        for (size_t k = 0; k < json_len(names); k++) {
            const char *name = json_object_get_string(json_at(names, k));
            int nr = name ? seccomp_syscall_resolve_name_arch(token, name) : -1;

            highest = MAX(highest, nr);
        }
    }
    return highest;
}

static bool lets_pass(u32 default_action)
{
    return default_action == SCMP_ACT_ALLOW || default_action == SCMP_ACT_LOG ||
           (default_action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_TRACE;
}

int seccomp_write_newer(void *ctx, json_t *syscalls, u32 default_action, int fd)
{
    struct sock_filter insns[1 + PER_ARCH * ARRAY_LEN(tokens)];
    size_t n = 0;

    if (lets_pass(default_action))
        return 0;
    insns[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        int highest =
            seccomp_arch_exist(ctx, tokens[i]) == 0 ? highest_call(tokens[i], syscalls) : -1;
        const struct sock_filter part[PER_ARCH] = {
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, tokens[i], 0, PER_ARCH - 1),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 2, 0),
            BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (u32)highest, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
            BPF_STMT(BPF_JMP | BPF_JA, 0),
        };

        /* A filter that names no call at all means all of them. */
        if (highest < 0)
            continue;
        for (size_t k = 0; k < PER_ARCH; k++)
            insns[n++] = part[k];
    }
    /* Every "ja" leads behind the last part. */
    for (size_t at = PER_ARCH; at < n; at += PER_ARCH)
        insns[at].k = (u32)(n - 1 - at);
    return n > 1 ? file_write_all(fd, insns, n * sizeof(insns[0])) : 0;
}

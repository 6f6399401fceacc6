/*
 * Checks across the configuration: what is wrong only in combination. One function per subject; each says
 * what to change. Wording follows runc where suites look for it.
 */
#include "container/spec.h"

#include <errno.h>
#include <string.h>

struct sysctl_rule {
    const char *prefix;
    enum ns_kind needs;
};

static const struct sysctl_rule sysctl_rules[] = {
    {"kernel.msgmax", NS_IPC},
    {"kernel.msgmnb", NS_IPC},
    {"kernel.msgmni", NS_IPC},
    {"kernel.sem", NS_IPC},
    {"kernel.shmall", NS_IPC},
    {"kernel.shmmax", NS_IPC},
    {"kernel.shmmni", NS_IPC},
    {"kernel.shm_rmid_forced", NS_IPC},
    {"kernel.msg_next_id", NS_IPC},
    {"kernel.sem_next_id", NS_IPC},
    {"kernel.shm_next_id", NS_IPC},
    {"fs.mqueue.", NS_IPC},
    {"net.", NS_NET},
    {"kernel.domainname", NS_UTS},
    {"user.", NS_USER},
};

static bool rule_matches(const struct sysctl_rule *rule, const char *key)
{
    size_t len = strlen(rule->prefix);

    return rule->prefix[len - 1] == '.' ? strncmp(key, rule->prefix, len) == 0
                                        : strcmp(key, rule->prefix) == 0;
}

static int check_sysctl(const struct spec *s, const char *key, struct err *err)
{
    char dotted[256];
    size_t len = strlen(key);

    if (len >= sizeof(dotted) || strstr(key, ".."))
        return err_set(err, EINVAL, "sysctl \"%.80s\" is not a valid name", key);
    memcpy(dotted, key, len + 1);
    /* Both net.ipv4.x and net/ipv4/x are written; the first separator decides which one it is. */
    if (dotted[strcspn(dotted, "./")] == '/')
        for (char *at = dotted; *at; at++)
            *at = *at == '/' ? '.' : *at;
    if (strstr(dotted, "..") || dotted[0] == '.')
        return err_set(err, EINVAL, "sysctl \"%s\" is not a valid name", key);
    if (strcmp(dotted, "kernel.hostname") == 0)
        return err_set(err, EINVAL, "sysctl \"%s\" conflicts with the OCI hostname field", key);
    for (size_t i = 0; i < ARRAY_LEN(sysctl_rules); i++) {
        if (!rule_matches(&sysctl_rules[i], dotted))
            continue;
        if (s->ns[sysctl_rules[i].needs].present)
            return 0;
        return err_set(err, EINVAL, "sysctl \"%s\" is not allowed in the hosts %s namespace", key,
                       ns_types[sysctl_rules[i].needs].name);
    }
    return err_set(err, EINVAL, "sysctl \"%s\" is not in a separate kernel namespace", key);
}

static int check_user_ns(const struct spec *s, struct err *err)
{
    bool maps = s->uid_maps.n || s->gid_maps.n;

    if (!spec_has_ns(s, NS_USER) && maps)
        return err_set(
            err, EINVAL,
            "User namespace mappings specified, but USER namespace isn't enabled in the config");
    if (spec_new_ns(s, NS_USER) && (s->uid_maps.n == 0 || s->gid_maps.n == 0))
        return err_set(err, EINVAL, "a new user namespace needs uidMappings and gidMappings");
    if (s->ns[NS_USER].path && maps)
        return err_set(err, EINVAL,
                       "mappings cannot be given for a user namespace that is joined by path");
    return 0;
}

static int check_names(const struct spec *s, struct err *err)
{
    if (s->hostname && s->hostname[0] && !spec_has_ns(s, NS_UTS))
        return err_set(err, EINVAL, "unable to set hostname without a private UTS namespace");
    if (s->domainname && s->domainname[0] && !spec_has_ns(s, NS_UTS))
        return err_set(err, EINVAL, "unable to set domainname without a private UTS namespace");
    if (s->netdev_count && !spec_has_ns(s, NS_NET))
        return err_set(err, EINVAL, "netDevices need a network namespace");
    if (s->has_time_offsets && !spec_has_ns(s, NS_TIME))
        return err_set(
            err, EINVAL,
            "time namespace offsets specified, but time namespace isn't enabled in the config");
    if (s->has_time_offsets && s->ns[NS_TIME].path)
        return err_set(err, EINVAL,
                       "timeOffsets cannot be set in a time namespace that is joined by path");
    return 0;
}

/* Inside a user namespace of its own the container has no rights over mounts of another one. */
static int check_mount_ns(const struct spec *s, struct err *err)
{
    if (spec_new_ns(s, NS_USER) && !spec_new_ns(s, NS_MOUNT))
        return err_set(err, EINVAL,
                       "a new user namespace needs a new mount namespace: add one to "
                       "linux.namespaces");
    return 0;
}

static int check_lists(const struct spec *s, struct err *err)
{
    const struct strv *lists[] = {&s->masked, &s->readonly};

    for (size_t l = 0; l < ARRAY_LEN(lists); l++)
        for (size_t i = 0; i < lists[l]->n; i++)
            if (lists[l]->v[i][0] != '/')
                return err_set(err, EINVAL, "masked or read-only path %s is not absolute",
                               lists[l]->v[i]);
    return 0;
}

int spec_check(const struct spec *s, struct err *err)
{
    if (check_mount_ns(s, err) < 0 || check_user_ns(s, err) < 0 || check_names(s, err) < 0 ||
        check_lists(s, err) < 0)
        return -err->code;
    for (size_t i = 0; i < s->sysctl_count; i++)
        if (check_sysctl(s, s->sysctl[i].key, err) < 0)
            return -err->code;
    return 0;
}

/* `features`: what this runtime can do, as JSON (runtime-spec, features.md and features-linux.md). */
#include <stdio.h>

#include "container/caps.h"
#include "container/mount.h"
#include "container/runtime.h"
#include "container/seccomp.h"

static json_t *yes(void)
{
    return json_object_new_boolean(true);
}

/* {"enabled": true} */
static json_t *enabled(void)
{
    json_t *o = json_object_new_object();

    json_object_object_add(o, "enabled", yes());
    return o;
}

static json_t *name_list(const char *(*name)(size_t i))
{
    json_t *arr = json_object_new_array();

    for (size_t i = 0; name(i); i++)
        json_object_array_add(arr, json_object_new_string(name(i)));
    return arr;
}

static const char *hook_name(size_t i)
{
    return i < HOOK_KINDS ? hook_names[i] : NULL;
}

static const char *cap_name(size_t i)
{
    return i < CAPS_KNOWN ? caps_name((int)i) : NULL;
}

static const char *ns_name(size_t i)
{
    return i < NS_KINDS ? ns_types[i].name : NULL;
}

static const char *mem_mode(size_t i)
{
    static const char *const modes[] = {"MPOL_DEFAULT",
                                        "MPOL_PREFERRED",
                                        "MPOL_BIND",
                                        "MPOL_INTERLEAVE",
                                        "MPOL_LOCAL",
                                        "MPOL_PREFERRED_MANY",
                                        "MPOL_WEIGHTED_INTERLEAVE",
                                        NULL};

    return modes[i];
}

static const char *mem_flag(size_t i)
{
    static const char *const flags[] = {"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES",
                                        "MPOL_F_STATIC_NODES", NULL};

    return flags[i];
}

static json_t *seccomp_features(void)
{
    static const char *const keys[] = {"actions", "operators", "archs", "knownFlags"};
    json_t *o = enabled();

    for (int l = 0; l < (int)ARRAY_LEN(keys); l++) {
        json_t *arr = json_object_new_array();

        for (size_t i = 0; seccomp_word(l, i); i++)
            json_object_array_add(arr, json_object_new_string(seccomp_word(l, i)));
        json_object_object_add(o, keys[l], arr);
    }
    return o;
}

static json_t *cgroup_features(void)
{
    static const char *const keys[] = {"v1", "v2", "systemd", "systemdUser", "rdma"};
    json_t *o = json_object_new_object();

    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        json_object_object_add(o, keys[i], yes());
    return o;
}

static json_t *linux_features(void)
{
    json_t *o = json_object_new_object(), *rdt = enabled(), *mounts = json_object_new_object();
    json_t *mem = json_object_new_object();

    json_object_object_add(o, "namespaces", name_list(ns_name));
    json_object_object_add(o, "capabilities", name_list(cap_name));
    json_object_object_add(o, "cgroup", cgroup_features());
    json_object_object_add(o, "seccomp", seccomp_features());
    json_object_object_add(o, "apparmor", enabled());
    json_object_object_add(o, "selinux", enabled());
    json_object_object_add(rdt, "schemata", yes());
    json_object_object_add(rdt, "monitoring", json_object_new_boolean(false));
    json_object_object_add(o, "intelRdt", rdt);
    json_object_object_add(mem, "modes", name_list(mem_mode));
    json_object_object_add(mem, "flags", name_list(mem_flag));
    json_object_object_add(o, "memoryPolicy", mem);
    json_object_object_add(mounts, "idmap", enabled());
    json_object_object_add(o, "mountExtensions", mounts);
    json_object_object_add(o, "netDevices", enabled());
    return o;
}

int verb_features(struct runtime *rt, int argc, char **argv, struct err *err)
{
    int at = verb_parse(rt, NULL, 0, 0, 0, argc, argv, err);
    json_t *o;

    if (at < 0)
        return at;
    o = json_object_new_object();
    json_object_object_add(o, "ociVersionMin", json_object_new_string("1.0.0"));
    json_object_object_add(o, "ociVersionMax", json_object_new_string(SPEC_VERSION));
    json_object_object_add(o, "hooks", name_list(hook_name));
    json_object_object_add(o, "mountOptions", name_list(mount_opts_name));
    json_object_object_add(o, "linux", linux_features());
    printf("%s\n",
           json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                 JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
    return 0;
}

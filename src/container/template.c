/* `spec`: writes a config.json to begin with. The text is what runc's users expect to find and edit. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "container/file.h"
#include "container/runtime.h"

static const char *const default_caps[] = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"};

struct template_mount {
    const char *dest, *type, *source;
    const char *options; /* separated by commas */
};

static const struct template_mount mounts[] = {
    {"/proc", "proc", "proc", ""},
    {"/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"},
    {"/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"},
    {"/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"},
    {"/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"},
    {"/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"},
};

static const char *const masked[] = {"/proc/acpi",        "/proc/asound",        "/proc/kcore",
                                     "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
                                     "/proc/timer_stats", "/proc/sched_debug",   "/sys/firmware",
                                     "/proc/scsi"};
static const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                       "/proc/sysrq-trigger"};

static json_t *str(const char *s)
{
    return json_object_new_string(s);
}

static json_t *strings(const char *const *list, size_t n)
{
    json_t *arr = json_object_new_array();

    for (size_t i = 0; i < n; i++)
        json_object_array_add(arr, str(list[i]));
    return arr;
}

static json_t *words(const char *text)
{
    json_t *arr = json_object_new_array();

    while (*text) {
        size_t len = strcspn(text, ",");

        json_object_array_add(arr, json_object_new_string_len(text, (int)len));
        text += len + (text[len] == ',');
    }
    return arr;
}

static json_t *make_process(void)
{
    static const char *const env[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"};
    static const char *const sets[] = {"bounding", "effective", "permitted"};
    static const char *const args[] = {"sh"};
    json_t *p = json_object_new_object(), *user = json_object_new_object(),
           *caps = json_object_new_object();
    json_t *limits = json_object_new_array(), *nofile = json_object_new_object();

    json_object_object_add(user, "uid", json_object_new_int(0));
    json_object_object_add(user, "gid", json_object_new_int(0));
    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        json_object_object_add(caps, sets[i], strings(default_caps, ARRAY_LEN(default_caps)));
    json_object_object_add(nofile, "type", str("RLIMIT_NOFILE"));
    json_object_object_add(nofile, "hard", json_object_new_int(1024));
    json_object_object_add(nofile, "soft", json_object_new_int(1024));
    json_object_array_add(limits, nofile);
    json_object_object_add(p, "terminal", json_object_new_boolean(true));
    json_object_object_add(p, "user", user);
    json_object_object_add(p, "args", strings(args, 1));
    json_object_object_add(p, "env", strings(env, 2));
    json_object_object_add(p, "cwd", str("/"));
    json_object_object_add(p, "capabilities", caps);
    json_object_object_add(p, "rlimits", limits);
    json_object_object_add(p, "noNewPrivileges", json_object_new_boolean(true));
    return p;
}

/* Without privilege there is no sysfs of one's own network and no gid 5: bind mounts and defaults instead. */
static json_t *make_mounts(bool rootless)
{
    json_t *arr = json_object_new_array();

    for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
        const struct template_mount *m = &mounts[i];
        json_t *o = json_object_new_object();
        bool sysfs = strcmp(m->type, "sysfs") == 0;

        json_object_object_add(o, "destination", str(m->dest));
        json_object_object_add(o, "type", str(rootless && sysfs ? "none" : m->type));
        json_object_object_add(o, "source", str(rootless && sysfs ? "/sys" : m->source));
        if (rootless && sysfs)
            json_object_object_add(o, "options", words("rbind,nosuid,noexec,nodev,ro"));
        else if (rootless && strcmp(m->type, "devpts") == 0)
            json_object_object_add(o, "options",
                                   words("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"));
        else if (*m->options)
            json_object_object_add(o, "options", words(m->options));
        json_object_array_add(arr, o);
    }
    return arr;
}

static json_t *id_map(int host)
{
    json_t *arr = json_object_new_array(), *o = json_object_new_object();

    json_object_object_add(o, "containerID", json_object_new_int(0));
    json_object_object_add(o, "hostID", json_object_new_int(host));
    json_object_object_add(o, "size", json_object_new_int(1));
    json_object_array_add(arr, o);
    return arr;
}

static json_t *make_linux(bool rootless)
{
    static const char *const kinds[] = {"pid", "network", "ipc", "uts", "mount", "cgroup", "user"};
    json_t *l = json_object_new_object(), *ns = json_object_new_array();

    for (size_t i = 0; i < ARRAY_LEN(kinds) - !rootless; i++) {
        json_t *o;

        /* The network stays the host's: without help from outside there would be none. */
        if (rootless && strcmp(kinds[i], "network") == 0)
            continue;
        o = json_object_new_object();
        json_object_object_add(o, "type", str(kinds[i]));
        json_object_array_add(ns, o);
    }
    if (rootless) {
        json_object_object_add(l, "uidMappings", id_map((int)geteuid()));
        json_object_object_add(l, "gidMappings", id_map((int)getegid()));
    } else {
        json_t *res = json_object_new_object(), *arr = json_object_new_array(),
               *rule = json_object_new_object();

        json_object_object_add(rule, "allow", json_object_new_boolean(false));
        json_object_object_add(rule, "access", str("rwm"));
        json_object_array_add(arr, rule);
        json_object_object_add(res, "devices", arr);
        json_object_object_add(l, "resources", res);
    }
    json_object_object_add(l, "namespaces", ns);
    json_object_object_add(l, "maskedPaths", strings(masked, ARRAY_LEN(masked)));
    json_object_object_add(l, "readonlyPaths", strings(readonly, ARRAY_LEN(readonly)));
    return l;
}

static json_t *make_config(bool rootless)
{
    json_t *o = json_object_new_object(), *root = json_object_new_object();

    json_object_object_add(root, "path", str("rootfs"));
    json_object_object_add(root, "readonly", json_object_new_boolean(true));
    json_object_object_add(o, "ociVersion", str(SPEC_VERSION));
    json_object_object_add(o, "process", make_process());
    json_object_object_add(o, "root", root);
    json_object_object_add(o, "hostname", str("trapeze"));
    json_object_object_add(o, "mounts", make_mounts(rootless));
    json_object_object_add(o, "linux", make_linux(rootless));
    return o;
}

int verb_spec(struct runtime *rt, int argc, char **argv, struct err *err)
{
    const char *bundle = NULL;
    bool rootless = false;
    const struct option opts[] = {
        {"bundle", 'b', OPTION_VALUE, &bundle, NULL, "path to the root of the bundle directory"},
        {"rootless", 0, OPTION_FLAG, &rootless, NULL,
         "generate a configuration for a rootless container"},
    };
    int at = verb_parse(rt, opts, ARRAY_LEN(opts), 0, 0, argc, argv, err), rc;
    auto_close int fd = -1;
    const char *text;
    json_t *config;

    if (at < 0)
        return at;
    if (bundle && chdir(bundle) < 0)
        return err_sys(err, errno, "chdir %s", bundle);
    fd = open("config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno == EEXIST ? err_set(err, EEXIST, "File config.json exists. Remove it first")
                               : err_sys(err, errno, "make config.json");
    config = make_config(rootless);
    text = json_object_to_json_string_ext(
        config, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
    rc = file_write_all(fd, text, strlen(text));
    json_object_put(config);
    return rc < 0 ? err_sys(err, -rc, "write config.json") : 0;
}

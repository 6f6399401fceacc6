/* Mount options as words (config-linux.md and mount(8)): one table; an "r" in front means the whole tree. */
#include "container/mount.h"

#include <errno.h>
#include <string.h>

#include "container/sys.h"

struct attr_word {
    const char *name;
    u64 set, clr;
};

static const struct attr_word attrs[] = {
    {"ro", MOUNT_ATTR_RDONLY, 0},
    {"rw", 0, MOUNT_ATTR_RDONLY},
    {"nosuid", MOUNT_ATTR_NOSUID, 0},
    {"suid", 0, MOUNT_ATTR_NOSUID},
    {"nodev", MOUNT_ATTR_NODEV, 0},
    {"dev", 0, MOUNT_ATTR_NODEV},
    {"noexec", MOUNT_ATTR_NOEXEC, 0},
    {"exec", 0, MOUNT_ATTR_NOEXEC},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"diratime", 0, MOUNT_ATTR_NODIRATIME},
    {"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
    {"symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
    /* The access time is one field of several bits: it is cleared as a whole before it is set. */
    {"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"atime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"norelatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nostrictatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
};

/* Words of the file system as a whole that fsconfig takes as flags, and words that have lost their meaning. */
static const char *const sb_words[] = {"async",      "sync", "dirsync", "lazytime",
                                       "nolazytime", "mand", "nomand"};
static const char *const void_words[] = {"defaults", "silent", "loud",   "iversion", "noiversion",
                                         "acl",      "noacl",  "nofail", "auto",     "noauto"};
static const char *const bool_words[] = {"bind",  "rbind",  "remount",     "tmpcopyup",
                                         "idmap", "ridmap", "copy-symlink"};
static const char *const propagations[] = {"private", "slave", "shared", "unbindable"};

static bool is_one_of(const char *word, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], word) == 0)
            return true;
    return false;
}

static const struct attr_word *find_attr(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(attrs); i++)
        if (strcmp(attrs[i].name, word) == 0)
            return &attrs[i];
    return NULL;
}

u64 mount_propagation(const char *word, bool *ret_rec)
{
    static const u64 flags[] = {SYS_MS_PRIVATE, SYS_MS_SLAVE, SYS_MS_SHARED, SYS_MS_UNBINDABLE};
    bool rec = word[0] == 'r';

    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (strcmp(word + rec, propagations[i]) == 0) {
            *ret_rec = rec;
            return flags[i];
        }
    }
    return 0;
}

/* A later word replaces what an earlier one said about the same attribute. */
static void add_attr(const struct attr_word *a, u64 *set, u64 *clr)
{
    *set = (*set & ~a->clr) | a->set;
    *clr = (*clr & ~a->set) | a->clr;
}

static bool set_bool(struct mount_opts *o, const char *word)
{
    bool *flags[] = {&o->bind,  &o->bind,  &o->remount,     &o->copy_up,
                     &o->idmap, &o->idmap, &o->copy_symlink};

    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (strcmp(bool_words[i], word) != 0)
            continue;
        *flags[i] = true;
        if (word[0] == 'r' && word[1] == 'b')
            o->recursive = true;
        if (word[0] == 'r' && word[1] == 'i')
            o->idmap_rec = true;
        return true;
    }
    return false;
}

int mount_opts_parse(struct pool *p, const struct strv *options, struct mount_opts *ret,
                     struct err *err)
{
    struct mount_opts o = {0};

    for (size_t i = 0; i < options->n; i++) {
        char *word = options->v[i];
        const struct attr_word *a = find_attr(word);
        bool rec = false;
        u64 propagation = mount_propagation(word, &rec);

        if (a) {
            add_attr(a, &o.attr_set, &o.attr_clr);
        } else if (propagation) {
            o.propagation = propagation;
            o.propagation_rec = rec;
        } else if (word[0] == 'r' && find_attr(word + 1)) {
            add_attr(find_attr(word + 1), &o.rec_set, &o.rec_clr);
        } else if (!set_bool(&o, word) && !is_one_of(word, void_words, ARRAY_LEN(void_words))) {
            if (strchr(word, '\n'))
                return err_set(err, EINVAL, "a mount option with a line break");
            o.has_mode |= strncmp(word, "mode=", 5) == 0;
            pool_strv_add(p, &o.data, word);
        }
    }
    *ret = o;
    return 0;
}

const char *mount_opts_name(size_t i)
{
    static const char *const *lists[] = {sb_words, bool_words, void_words};
    static const size_t sizes[] = {ARRAY_LEN(sb_words), ARRAY_LEN(bool_words), 7};

    if (i < 2 * ARRAY_LEN(attrs)) {
        static const char *const recursive[] = {
            "rro",      "rrw",    "rnosuid",     "rsuid",       "rnodev",       "rdev",
            "rnoexec",  "rexec",  "rnodiratime", "rdiratime",   "rnosymfollow", "rsymfollow",
            "rnoatime", "ratime", "rrelatime",   "rnorelatime", "rstrictatime", "rnostrictatime",
        };

        return i % 2 ? recursive[i / 2] : attrs[i / 2].name;
    }
    i -= 2 * ARRAY_LEN(attrs);
    if (i < 8) {
        static const char *const with_r[] = {"rprivate", "rslave", "rshared", "runbindable"};

        return i % 2 ? with_r[i / 2] : propagations[i / 2];
    }
    i -= 8;
    for (size_t l = 0; l < ARRAY_LEN(lists); l++) {
        if (i < sizes[l])
            return lists[l][i];
        i -= sizes[l];
    }
    return NULL;
}

/*
 * The list of accelerators, and the choice between them. "auto" takes the first that works: a /dev/kvm may be there and
 * still be unable to run a guest kernel, so each is tried, not just looked for.
 */
#include "accel/accel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct accel_ops *const accel_list[] = {&accel_kvm, &accel_bt, NULL};

static int choose_auto(const struct accel_ops **ret_ops, char *ret_why, size_t why_len,
                       struct err *err)
{
    char passed[1024] = "";
    struct err reason = ERR_INIT;

    for (unsigned i = 0; accel_list[i]; i++) {
        size_t used = strlen(passed);

        reason = ERR_INIT;
        if (!accel_list[i]->probe(&reason)) {
            *ret_ops = accel_list[i];
            if (used)
                snprintf(ret_why, why_len, "%s: %s", accel_list[i]->name, passed);
            else
                snprintf(ret_why, why_len, "%s: works here and is the fastest",
                         accel_list[i]->name);
            return 0;
        }
        snprintf(passed + used, sizeof(passed) - used, "%s%.200s", used ? "; " : "", reason.msg);
    }
    return err_set(err, ENOTSUP, "no accelerator works here: %s", passed);
}

static int no_such(const char *name, struct err *err)
{
    char names[128] = "auto";

    for (unsigned i = 0; accel_list[i]; i++) {
        size_t used = strlen(names);

        snprintf(names + used, sizeof(names) - used, ", %s", accel_list[i]->name);
    }
    return err_set(err, EINVAL, "there is no accelerator '%s'; there are %s", name, names);
}

/* For tests: a KVM that fails the probe may still do for a small guest. */
static bool anyway(const char *name)
{
    const char *asked = getenv("TRAPEZE_ACCEL_ANYWAY");

    return asked && !strcmp(asked, name);
}

int accel_choose(const char *name, const struct accel_ops **ret_ops, char *ret_why, size_t why_len,
                 struct err *err)
{
    if (!strcmp(name, "auto"))
        return choose_auto(ret_ops, ret_why, why_len, err);
    for (unsigned i = 0; accel_list[i]; i++) {
        int rc;

        if (strcmp(name, accel_list[i]->name))
            continue;
        rc = accel_list[i]->probe(err);
        if (rc && !anyway(name))
            return err_wrap(err, "accelerator %s does not work here", name);
        *ret_ops = accel_list[i];
        snprintf(ret_why, why_len, "%s: asked for", name);
        return 0;
    }
    return no_such(name, err);
}

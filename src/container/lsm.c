/*
 * Security labels. They are written to our own attr files through the verified procfs descriptor, never
 * through the container's /proc (CVE-2019-16884).
 */
#include "container/lsm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "container/file.h"
#include "container/path.h"

bool lsm_has_apparmor(void)
{
    char text[8];

    return file_read_at(AT_FDCWD, "/sys/module/apparmor/parameters/enabled", text, sizeof(text)) >
               0 &&
           text[0] == 'Y';
}

bool lsm_has_selinux(void)
{
    return access("/sys/fs/selinux/enforce", F_OK) == 0;
}

static int apply_apparmor(int procfd, const char *profile, struct err *err)
{
    char text[512];
    int rc;

    if (!lsm_has_apparmor())
        return err_set(err, ENOTSUP, "unable to apply apparmor profile: apparmor not enabled");
    if (snprintf(text, sizeof(text), "exec %s", profile) >= (int)sizeof(text))
        return err_set(err, EINVAL, "apparmorProfile is too long");
    rc = procfs_write(procfd, "thread-self/attr/apparmor/exec", text);
    if (rc == -ENOENT)
        rc = procfs_write(procfd, "thread-self/attr/exec", text);
    return rc < 0 ? err_sys(err, -rc, "unable to apply apparmor profile %s", profile) : 0;
}

int lsm_apply(int procfd, const struct spec_process *p, struct err *err)
{
    int rc;

    if (p->apparmor && p->apparmor[0] && apply_apparmor(procfd, p->apparmor, err) < 0)
        return -err->code;
    /* Without SELinux a label means nothing; engines send it all the same. */
    if (!p->selinux || !p->selinux[0] || !lsm_has_selinux())
        return 0;
    rc = procfs_write(procfd, "thread-self/attr/exec", p->selinux);
    return rc < 0 ? err_sys(err, -rc, "set the process label %s", p->selinux) : 0;
}

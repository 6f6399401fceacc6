/*
 * The container's terminal (config.md, process.terminal). It is made from the container's own devpts, whose
 * files are verified by what they are, not where; the slave comes from the master itself (TIOCGPTPEER), so no
 * path can be swapped on the way (CVE-2025-52565).
 */
#include "container/process.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

#include "container/path.h"
#include "container/sync.h"
#include "container/sys.h"

#include <sys/socket.h>

#define DEVPTS_MAGIC 0x1cd1

static int open_master(struct init *in, struct err *err)
{
    int fd = path_open_nolinks(in->root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY);
    struct statfs fs;
    struct stat st;

    if (fd < 0)
        return err_sys(err, -fd, "open the container's /dev/pts/ptmx");
    if (fstatfs(fd, &fs) == 0 && fs.f_type == DEVPTS_MAGIC && fstat(fd, &st) == 0 &&
        S_ISCHR(st.st_mode) && st.st_rdev == makedev(TTYAUX_MAJOR, 2))
        return fd;
    close(fd);
    return err_set(err, EINVAL, "/dev/pts/ptmx of the container is not a devpts multiplexer");
}

/* The master goes out with its name as data, as runc sends it. */
static int send_master(int sock, int master, struct err *err)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov = {"/dev/ptmx", 9};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control.space)};

    *(int *)CMSG_DATA(&control.head) = master;
    if (sendmsg(sock, &mh, MSG_NOSIGNAL) < 0)
        return err_sys(err, errno, "send the terminal to the console socket");
    return 0;
}

static int bind_console(struct init *in, int slave, struct err *err)
{
    auto_close int target = path_make_file(in->root, "/dev/console"), tree = -1;
    struct stat st;

    if (target < 0)
        return err_sys(err, -target, "make /dev/console");
    if (fstat(target, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)))
        return err_set(err, EINVAL, "/dev/console of the container is no file");
    tree = sys_open_tree(slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return err_sys(err, errno, "clone the terminal");
    return mount_attach(tree, target, "/dev/console", err);
}

int console_open(struct init *in, bool mount_console, struct err *err)
{
    auto_close int master = open_master(in, err), slave = -1;
    struct winsize size = {.ws_row = (unsigned short)in->process->rows,
                           .ws_col = (unsigned short)in->process->cols};
    int unlocked = 0;

    if (master < 0)
        return master;
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return err_sys(err, errno, "unlock the terminal");
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return err_sys(err, errno, "open the terminal");
    if ((size.ws_row || size.ws_col) && ioctl(master, TIOCSWINSZ, &size) < 0)
        return err_sys(err, errno, "set the terminal's size");
    if (fchown(slave, in->process->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EINVAL)
        return err_sys(err, errno, "chown the terminal");
    if (mount_console && bind_console(in, slave, err) < 0)
        return -err->code;
    if (send_master(in->console, master, err) < 0)
        return -err->code;
    if (dup2(slave, 0) < 0 || dup2(slave, 1) < 0 || dup2(slave, 2) < 0)
        return err_sys(err, errno, "make the terminal stdio");
    if (ioctl(0, TIOCSCTTY, 0) < 0)
        return err_sys(err, errno, "make the terminal controlling");
    return 0;
}

/* What engines ask to be told, and how: pid files, pidfd sockets, console sockets. */
#include "container/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "container/file.h"
#include "container/sys.h"

int create_write_pid(const char *path, int pid, struct err *err)
{
    char dir[4096], text[16];
    const char *slash = strrchr(path, '/');
    auto_close int fd = -1;
    int rc;

    if (snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) + 1 : 1,
                 slash ? path : ".") >= (int)sizeof(dir))
        return err_set(err, ENAMETOOLONG, "the pid file's path is too long");
    fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "open %s", dir);
    snprintf(text, sizeof(text), "%d", pid);
    rc = file_replace(fd, slash ? slash + 1 : path, 0644, text, strlen(text));
    return rc < 0 ? err_sys(err, -rc, "write the pid file %s", path) : 0;
}

int create_connect(const char *path, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    auto_close int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), place = -1;
    int ret;

    if (sock < 0)
        return err_sys(err, errno, "socket");
    /* A socket's address is short; its descriptor in /proc stands for a path of any length. */
    place = open(path, O_PATH | O_CLOEXEC);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d", place);
    if (place < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_sys(err, errno, "connect to %s", path);
    ret = sock;
    sock = -1;
    return ret;
}

int create_send_pidfd(const char *path, int pid, struct err *err)
{
    auto_close int sock = create_connect(path, err), pidfd = -1;
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov = {"pidfd", 5};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control.space)};

    if (sock < 0)
        return sock;
    pidfd = sys_pidfd_open(pid, 0);
    memcpy(CMSG_DATA(&control.head), &pidfd, sizeof(int));
    if (pidfd < 0 || sendmsg(sock, &mh, MSG_NOSIGNAL) < 0)
        return err_sys(err, errno, "send the pidfd to %s", path);
    return 0;
}

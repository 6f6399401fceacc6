/* Messages between the runtime and its children; see sync.h. */
#include "container/sync.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int sync_pair(int ret[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) < 0)
        return err_sys(err, errno, "socketpair");
    return 0;
}

/* Room for as many descriptors as a message may carry here. */
union fd_space {
    struct cmsghdr head;
    char space[CMSG_SPACE(SYNC_FDS * sizeof(int))];
};

int sync_send_fds(int sock, const struct sync_msg *msg, const int *fds, size_t n)
{
    size_t text_len = strnlen(msg->text, sizeof(msg->text) - 1);
    struct iovec iov = {(void *)msg, offsetof(struct sync_msg, text) + text_len + 1};
    union fd_space control = {0};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n > SYNC_FDS)
        return -E2BIG;
    if (n) {
        mh.msg_control = &control;
        mh.msg_controllen = CMSG_SPACE(n * sizeof(int));
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(&control.head), fds, n * sizeof(int));
    }
    if (sendmsg(sock, &mh, MSG_NOSIGNAL) >= 0)
        return 0;
    return errno == ECONNRESET ? -EPIPE : -errno;
}

int sync_send(int sock, enum sync_kind kind, int value, const char *text, int fd)
{
    struct sync_msg msg = {.kind = kind, .value = value};

    if (text)
        snprintf(msg.text, sizeof(msg.text), "%s", text);
    return sync_send_fds(sock, &msg, &fd, fd >= 0);
}

void sync_send_error(int sock, const struct err *err)
{
    sync_send(sock, SYNC_ERROR, err->code, err->msg, -1);
}

int sync_recv_fds(int sock, struct sync_msg *ret, int *fds, size_t *ret_n)
{
    struct iovec iov = {ret, sizeof(*ret)};
    union fd_space control = {0};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control)};
    struct cmsghdr *c;
    ssize_t n;

    memset(ret, 0, sizeof(*ret));
    *ret_n = 0;
    /* A peer that died with messages of ours unread resets the connection; its own last words come after that. */
    for (int resets = 0;;) {
        n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
        if (n >= 0 || (errno != EINTR && (errno != ECONNRESET || resets++)))
            break;
    }
    if (n < 0)
        return -errno;
    if (n == 0)
        return -EPIPE;
    c = CMSG_FIRSTHDR(&mh);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len > CMSG_LEN(0)) {
        *ret_n = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), (size_t)SYNC_FDS);
        memcpy(fds, CMSG_DATA(c), *ret_n * sizeof(int));
    }
    ret->text[sizeof(ret->text) - 1] = '\0';
    return 0;
}

int sync_recv(int sock, struct sync_msg *ret, int *ret_fd)
{
    int fds[SYNC_FDS];
    size_t n;
    int rc = sync_recv_fds(sock, ret, fds, &n);

    for (size_t i = ret_fd ? 1 : 0; i < n; i++)
        close(fds[i]);
    if (ret_fd)
        *ret_fd = n ? fds[0] : -1;
    return rc;
}

int sync_expect(int sock, enum sync_kind kind, struct sync_msg *ret, struct err *err)
{
    struct sync_msg own, *msg = ret ? ret : &own;
    int rc = sync_recv(sock, msg, NULL);

    if (rc < 0)
        return err_set(err, EPIPE, "the other side of the container's start has gone away");
    if (msg->kind == SYNC_ERROR)
        return err_set(err, msg->value > 0 ? msg->value : EIO, "%s", msg->text);
    if (msg->kind != kind)
        return err_set(err, EPROTO, "unexpected message %u instead of %d", msg->kind, kind);
    return 0;
}

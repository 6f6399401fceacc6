/* The control socket's server against callers of every kind, driven round by round; verbs are the tests' own. */
#include "unit.h"

#include "vm/control.h"
#include "vm/parts.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct fixture {
    struct vm vm;
    struct vm_config config;
    struct sockaddr_un address;
    socklen_t address_len;
    int fd;                     /* the caller's end */
    struct control_call *later; /* of the verb "later" */
    unsigned gone;
    int passed; /* descriptor that "take" took */
    int link;   /* of "become" */
    u8 rest[64];
    size_t rest_len;
};

static struct fixture *fixture_of(struct control_call *call)
{
    return CONTAINER_OF(call->vm, struct fixture, vm);
}

static void do_hello(struct control_call *call)
{
    const char *name;
    struct err err = ERR_INIT;

    if (control_text(call, "name", "nobody", &name, &err))
        control_fail(call, &err);
    else
        control_reply(call, json_pack("{s:s}", "hello", name));
}

static void later_gone(struct control_call *call)
{
    fixture_of(call)->gone++;
}

static void do_later(struct control_call *call)
{
    fixture_of(call)->later = call;
    call->gone = later_gone;
}

static void do_take(struct control_call *call)
{
    fixture_of(call)->passed = control_take_fd(call, 1);
    control_reply(call, json_pack("{s:i}", "count", (int)call->nfds));
}

static void do_become(struct control_call *call)
{
    struct fixture *f = fixture_of(call);

    f->link = control_take_link(call, f->rest, sizeof(f->rest), &f->rest_len);
}

static void do_much(struct control_call *call)
{
    control_reply(call, json_pack("{s:o}", "much", json_stringn_nocheck((char[60000]){0}, 60000)));
}

static const struct control_verb test_verbs[] = {
    {"become", do_become}, {"hello", do_hello}, {"later", do_later},
    {"much", do_much},     {"take", do_take},   {NULL, NULL},
};

static int dial(struct fixture *f)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&f->address, f->address_len), 0);
    return fd;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    sa_family_t family = AF_UNIX;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    assert_non_null(f);
    f->passed = f->link = -1;
    f->vm.config = &f->config;
    assert_int_equal(loop_new(&f->vm.loop, NULL), 0);
    /* unix(7), autobind: an abstract name that nobody has. */
    assert_int_equal(bind(listener, (struct sockaddr *)&family, sizeof(family)), 0);
    f->address_len = sizeof(f->address);
    getsockname(listener, (struct sockaddr *)&f->address, &f->address_len);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(control_new(&f->vm, listener, &f->vm.control, NULL), 0);
    control_set_verbs(f->vm.control, test_verbs);
    f->fd = dial(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    control_free(f->vm.control);
    loop_free(f->vm.loop);
    if (f->fd >= 0)
        close(f->fd);
    if (f->passed >= 0)
        close(f->passed);
    if (f->link >= 0)
        close(f->link);
    free(f);
    return 0;
}

static void rounds(struct fixture *f)
{
    for (int i = 0; i < 50; i++)
        assert_int_equal(loop_once(f->vm.loop, 0), 0);
}

static void say(struct fixture *f, const char *text)
{
    assert_int_equal(send(f->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    rounds(f);
}

/* What the server sent until now is exactly this. */
static void expect(struct fixture *f, const char *want)
{
    char buf[4096];
    ssize_t n = recv(f->fd, buf, sizeof(buf) - 1, 0);

    buf[MAX(n, 0)] = 0;
    assert_string_equal(buf, want);
}

static bool is_closed(struct fixture *f)
{
    char byte;

    return recv(f->fd, &byte, 1, 0) == 0;
}

static void test_request(void **state)
{
    struct fixture *f = *state;

    say(f, "{\"id\":7,\"do\":\"hello\",\"name\":\"you\"}\n");
    expect(f, "{\"hello\":\"you\",\"ok\":true,\"id\":7}\n");
    say(f, "{\"do\":\"hello\"}\n{\"id\":\"x\",\"do\":\"hello\"}\n");
    expect(f,
           "{\"hello\":\"nobody\",\"ok\":true}\n{\"hello\":\"nobody\",\"ok\":true,\"id\":\"x\"}\n");
}

static void test_wrong_requests(void **state)
{
    struct fixture *f = *state;

    say(f, "{\"id\":1,\"do\":\"dance\"}\n");
    expect(f, "{\"ok\":false,\"error\":\"this machine knows no "
              "'dance'\",\"code\":\"ENOSYS\",\"id\":1}\n");
    say(f, "{\"id\":2,\"do\":5}\n");
    expect(
        f,
        "{\"ok\":false,\"error\":\"\\\"do\\\" must be a string\",\"code\":\"EINVAL\",\"id\":2}\n");
    say(f, "{\"id\":3}\n");
    expect(f,
           "{\"ok\":false,\"error\":\"this machine knows no ''\",\"code\":\"ENOSYS\",\"id\":3}\n");
    say(f, "{\"id\":4,\"do\":\"hello\",\"fds\":1}\n");
    expect(f, "{\"ok\":false,\"error\":\"\\\"fds\\\" says 1, but 0 descriptors came with the "
              "line\",\"code\":\"EPROTO\",\"id\":4}\n");
    say(f, "{\"id\":5,\"do\":\"hello\",\"fds\":-1}\n");
    expect(f, "{\"ok\":false,\"error\":\"\\\"fds\\\" must be a number from 0 to "
              "32\",\"code\":\"EINVAL\",\"id\":5}\n");
    say(f, "{\"do\":\"hello\"}\n");
    expect(f, "{\"hello\":\"nobody\",\"ok\":true}\n");
}

static void test_no_json_ends_the_connection(void **state)
{
    static const char *const lines[] = {
        "what\n", "[1]\n",  "\n", "{\"a\":1,\"a\":2}\n", "{\"a\":1e999}\n", "{\"a\":\"\\u0000\"}\n",
        "3\n",    "{} {}\n"};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        char buf[512];

        say(f, lines[i]);
        ssize_t n = recv(f->fd, buf, sizeof(buf) - 1, 0);
        assert_true(n > 0);
        buf[n] = 0;
        assert_non_null(strstr(buf, "\"ok\":false"));
        assert_non_null(strstr(buf, "EPROTO"));
        assert_true(is_closed(f));
        close(f->fd);
        f->fd = dial(f);
        rounds(f);
    }
}

static void test_deep_json(void **state)
{
    struct fixture *f = *state;
    static char deep[60000];

    memset(deep, '[', sizeof(deep) - 2);
    memcpy(deep, "{\"a\":", 5);
    deep[sizeof(deep) - 2] = '\n';
    say(f, deep);
    recv(f->fd, deep, sizeof(deep), 0);
    assert_true(is_closed(f));
}

static void test_long_line(void **state)
{
    struct fixture *f = *state;
    static char line[WIRE_LINE];
    char buf[512] = "";

    memset(line, 'x', sizeof(line));
    assert_int_equal(send(f->fd, line, sizeof(line), 0), sizeof(line));
    rounds(f);
    recv(f->fd, buf, sizeof(buf) - 1, 0);
    assert_non_null(strstr(buf, "longer than 65536 bytes"));
    assert_true(is_closed(f));
}

static void test_pieces(void **state)
{
    static const char line[] = "{\"id\":1,\"do\":\"hello\"}\n";
    struct fixture *f = *state;

    for (size_t i = 0; i + 1 < sizeof(line); i++) {
        char piece[2] = {line[i], 0};

        expect(f, "");
        say(f, piece);
    }
    expect(f, "{\"hello\":\"nobody\",\"ok\":true,\"id\":1}\n");
    say(f, "{\"half");
    shutdown(f->fd, SHUT_WR);
    rounds(f);
    assert_true(is_closed(f));
}

static void test_many_lines_at_once(void **state)
{
    struct fixture *f = *state;
    char buf[8192];
    unsigned count = 0;

    for (int i = 0; i < 100; i++)
        send(f->fd, "{\"do\":\"hello\"}\n", 15, 0);
    shutdown(f->fd, SHUT_WR); /* whoever stops sending still gets its answers */
    rounds(f);
    ssize_t n = recv(f->fd, buf, sizeof(buf), 0);
    for (ssize_t i = 0; i < n; i++)
        count += buf[i] == '\n';
    assert_int_equal(count, 100);
    assert_true(is_closed(f));
}

static void test_later(void **state)
{
    struct fixture *f = *state;

    say(f, "{\"id\":1,\"do\":\"later\"}\n{\"id\":2,\"do\":\"hello\"}\n");
    expect(f, "");
    assert_non_null(f->later);
    control_event(f->later, "half", json_pack("{s:i}", "percent", 50));
    expect(f, "{\"percent\":50,\"event\":\"half\"}\n");
    control_reply(f->later, NULL);
    expect(f, "{\"ok\":true,\"id\":1}\n");
    rounds(f);
    expect(f, "{\"hello\":\"nobody\",\"ok\":true,\"id\":2}\n");
    assert_int_equal(f->gone, 0);
}

static void test_hang_up(void **state)
{
    struct fixture *f = *state;

    say(f, "{\"id\":1,\"do\":\"later\"}\n");
    close(f->fd);
    rounds(f);
    assert_int_equal(f->gone, 1);
    assert_non_null(f->later);
    control_event(f->later, "half", NULL);
    control_reply(f->later, json_pack("{s:i}", "a", 1));
    f->fd = dial(f);
    say(f, "{\"do\":\"hello\"}\n");
    expect(f, "{\"hello\":\"nobody\",\"ok\":true}\n");
    /* And one that is open when the machine ends. */
    say(f, "{\"id\":1,\"do\":\"later\"}\n");
}

static void test_never_reads(void **state)
{
    struct fixture *f = *state;
    int deaf = f->fd;

    if (getenv("TRAPEZE_UNIT_FAULTS"))
        UNIT_SKIP("it is long, and calls what others call, too");
    /* 60 KiB each: the socket's buffer, then ours is full, and the server hangs up on us. */
    for (int i = 0; i < 200 && send(deaf, "{\"do\":\"much\"}\n", 14, MSG_NOSIGNAL) > 0; i++)
        rounds(f);
    f->fd = dial(f);
    say(f, "{\"do\":\"hello\"}\n");
    expect(f, "{\"hello\":\"nobody\",\"ok\":true}\n");
    static char sink[4 << 20];
    size_t total = 0;
    for (ssize_t n; (n = recv(deaf, sink, sizeof(sink), 0)) > 0;)
        total += (size_t)n;
    assert_in_range(total, 1, 4 << 20);
    close(deaf);
}

static void send_with_fds(struct fixture *f, const char *text, unsigned nfds)
{
    struct iovec iov = {(void *)text, strlen(text)};
    union {
        char buf[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf};

    msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){CMSG_LEN(nfds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    for (unsigned i = 0; i < nfds; i++)
        memcpy(CMSG_DATA(c) + i * sizeof(int), &f->fd, sizeof(int));
    assert_int_equal(sendmsg(f->fd, &msg, MSG_NOSIGNAL), strlen(text));
    rounds(f);
}

static unsigned count_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_descriptors(void **state)
{
    struct fixture *f = *state;

    rounds(f); /* accepted */
    unsigned before = count_fds();
    send_with_fds(f, "{\"do\":\"take\",\"fds\":3}\n", 3);
    expect(f, "{\"count\":3,\"ok\":true}\n");
    assert_true(f->passed >= 0);
    assert_int_equal(fcntl(f->passed, F_GETFD), FD_CLOEXEC);
    assert_int_equal(count_fds(), before + 1); /* the two others are closed */
    close(f->passed);
    f->passed = -1;
    /* Descriptors that no line takes, until there are too many. */
    for (int i = 0; i < 2; i++)
        send_with_fds(f, "{\"do\":\"hello\"}\n", 20);
    char buf[512];
    assert_true(recv(f->fd, buf, sizeof(buf), 0) >= 0);
    assert_true(is_closed(f));
    assert_int_equal(count_fds(), before - 1);
}

static void test_become(void **state)
{
    struct fixture *f = *state;
    char buf[8] = "";

    say(f, "{\"id\":1,\"do\":\"become\"}\nraw");
    expect(f, "{\"ok\":true,\"id\":1}\n");
    assert_true(f->link >= 0);
    assert_int_equal(f->rest_len, 3);
    assert_memory_equal(f->rest, "raw", 3);
    say(f, "more");
    assert_int_equal(read(f->link, buf, sizeof(buf)), 4);
    assert_int_equal(write(f->link, "back", 4), 4);
    expect(f, "back");
}

static void test_many_callers(void **state)
{
    struct fixture *f = *state;
    int fds[60];

    if (getenv("TRAPEZE_UNIT_FAULTS"))
        UNIT_SKIP("it is long, and calls what others call, too");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial(f);
        rounds(f);
    }
    close(f->fd);
    f->fd = dial(f); /* idle ones had to make room */
    say(f, "{\"do\":\"hello\"}\n");
    expect(f, "{\"hello\":\"nobody\",\"ok\":true}\n");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    rounds(f);
}

static void test_codes(void **state)
{
    assert_string_equal(wire_code_name(EALREADY), "EALREADY");
    assert_string_equal(wire_code_name(0), "EIO");
    assert_string_equal(wire_code_name(99999), "EIO");
    assert_int_equal(wire_code("EALREADY"), EALREADY);
    assert_int_equal(wire_code("nonsense"), EIO);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_request, setup, teardown),
    cmocka_unit_test_setup_teardown(test_wrong_requests, setup, teardown),
    cmocka_unit_test_setup_teardown(test_no_json_ends_the_connection, setup, teardown),
    cmocka_unit_test_setup_teardown(test_deep_json, setup, teardown),
    cmocka_unit_test_setup_teardown(test_long_line, setup, teardown),
    cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
    cmocka_unit_test_setup_teardown(test_many_lines_at_once, setup, teardown),
    cmocka_unit_test_setup_teardown(test_later, setup, teardown),
    cmocka_unit_test_setup_teardown(test_hang_up, setup, teardown),
    cmocka_unit_test_setup_teardown(test_never_reads, setup, teardown),
    cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
    cmocka_unit_test_setup_teardown(test_become, setup, teardown),
    cmocka_unit_test_setup_teardown(test_many_callers, setup, teardown),
    cmocka_unit_test(test_codes),
};

UNIT_MAIN(tests)

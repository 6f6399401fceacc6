/* The host's side of a console over pipes, files and sockets, driven round by round. */
#include "unit.h"

#include "vm/stream.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct fixture {
    struct loop *loop;
    struct stream *stream;
    char got[4096]; /* what the front received */
    size_t got_len, room;
    unsigned writable;
    int saved_in, saved_out, in, out; /* our ends of standard input and output */
};

static size_t receive(void *opaque, const u8 *buf, size_t len)
{
    struct fixture *f = opaque;
    size_t n = MIN(len, f->room);

    memcpy(f->got + f->got_len, buf, n);
    f->got_len += n;
    f->room -= n;
    return n;
}

static void writable(void *opaque)
{
    struct fixture *f = opaque;

    f->writable++;
}

static void rounds(struct fixture *f)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(loop_once(f->loop, 0), 0);
}

static void open_stream(struct fixture *f, const struct vm_serial_config *config)
{
    struct chardev_front front = {receive, writable, f};

    assert_int_equal(loop_new(&f->loop, NULL), 0);
    assert_int_equal(stream_open(config, f->loop, NULL, &f->stream, NULL), 0);
    chardev_connect(stream_chardev(f->stream), &front);
    f->room = sizeof(f->got);
}

/* Puts pipes in the place of standard input and output. */
static void open_stdio(struct fixture *f)
{
    struct vm_serial_config config = {.kind = VM_SERIAL_STDIO};
    int in[2], out[2];

    *f = (struct fixture){0};
    assert_int_equal(pipe(in) | pipe2(out, 0), 0);
    fflush(stdout);
    f->saved_in = dup(0);
    f->saved_out = dup(1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    open_stream(f, &config);
    dup2(f->saved_in, 0);
    dup2(f->saved_out, 1);
    close(f->saved_in);
    close(f->saved_out);
    close(in[0]);
    close(out[1]);
    f->in = in[1];
    f->out = out[0];
    fcntl(f->out, F_SETFL, O_NONBLOCK);
}

static void close_stdio(struct fixture *f)
{
    stream_close(f->stream);
    loop_free(f->loop);
    if (f->in >= 0)
        close(f->in);
    if (f->out >= 0)
        close(f->out);
}

static size_t put(struct fixture *f, const void *bytes, size_t len)
{
    struct chardev *c = stream_chardev(f->stream);

    return c->write(c, bytes, len);
}

static void test_both_ways(void **state)
{
    struct fixture f;
    char buf[16] = "";

    open_stdio(&f);
    assert_int_equal(put(&f, "hello", 5), 5);
    assert_int_equal(write(f.in, "world", 5), 5);
    rounds(&f);
    assert_int_equal(read(f.out, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(f.got_len, 5);
    assert_memory_equal(f.got, "world", 5);
    close_stdio(&f);
}

static void test_a_full_front_loses_nothing_when_the_writer_goes(void **state)
{
    struct chardev *c;
    struct fixture f;
    char text[1000];

    open_stdio(&f);
    c = stream_chardev(f.stream);
    f.room = 3;
    memset(text, 'x', sizeof(text));
    assert_int_equal(write(f.in, text, sizeof(text)), sizeof(text));
    close(f.in);
    f.in = -1;
    rounds(&f);
    assert_int_equal(f.got_len, 3);
    while (f.got_len < sizeof(text)) {
        f.room = 100;
        c->accept_input(c);
        size_t before = f.got_len;
        rounds(&f);
        assert_true(f.got_len > before);
    }
    assert_int_equal(f.got_len, sizeof(text));
    close_stdio(&f);
}

static void test_a_slow_reader_slows_the_guest_and_loses_nothing(void **state)
{
    static char chunk[STREAM_RING], back[4096];
    size_t sent = 0, seen = 0;
    struct fixture f;

    open_stdio(&f);
    for (size_t i = 0; i < sizeof(chunk); i++)
        chunk[i] = (char)(i * 7);
    /* More than the ring and the pipe hold. */
    while (true) {
        size_t n = put(&f, chunk + sent % STREAM_RING,
                       MIN((size_t)1000, STREAM_RING - sent % STREAM_RING));

        sent += n;
        rounds(&f);
        if (!n)
            break;
    }
    assert_true(sent > STREAM_RING);
    assert_int_equal(f.writable, 0);
    for (ssize_t n; (n = read(f.out, back, sizeof(back))) > 0; rounds(&f)) {
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(back[i], chunk[(seen + (size_t)i) % STREAM_RING]);
        seen += (size_t)n;
    }
    assert_int_equal(seen, sent);
    assert_true(f.writable > 0);
    close_stdio(&f);
}

static void test_a_reader_that_has_gone_does_not_stop_the_guest(void **state)
{
    struct fixture f;

    open_stdio(&f);
    close(f.out);
    f.out = -1;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(put(&f, "0123456789", 10), 10);
        rounds(&f);
    }
    close_stdio(&f);
}

static void test_close_writes_what_waits(void **state)
{
    struct fixture f;
    char buf[16];

    open_stdio(&f);
    assert_int_equal(put(&f, "last words", 10), 10);
    stream_close(f.stream);
    f.stream = NULL;
    assert_int_equal(read(f.out, buf, sizeof(buf)), 10);
    close_stdio(&f);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void test_socket(void **state)
{
    char path[] = "/tmp/trapeze-unit-XXXXXX", buf[16];
    struct fixture f = {0};
    struct vm_serial_config config = {.kind = VM_SERIAL_UNIX, .path = path};

    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(unlink(path), 0);
    open_stream(&f, &config);
    assert_int_equal(put(&f, "nobody", 6), 6); /* dropped */
    for (int i = 0; i < 3; i++) {
        int fd = connect_to(path);

        rounds(&f);
        int second = connect_to(path); /* turned away */
        rounds(&f);
        assert_int_equal(read(second, buf, sizeof(buf)), 0);
        close(second);
        assert_int_equal(write(fd, "in", 2), 2);
        assert_int_equal(put(&f, "out", 3), 3);
        rounds(&f);
        assert_int_equal(read(fd, buf, sizeof(buf)), 3);
        assert_int_equal(f.got_len, 2u * (unsigned)(i + 1));
        close(fd);
        rounds(&f);
    }
    stream_close(f.stream);
    /* The name is left; a second machine takes it over, since nobody listens. */
    assert_int_equal(stream_open(&config, f.loop, NULL, &f.stream, NULL), 0);
    struct stream *other = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(stream_open(&config, f.loop, NULL, &other, &err), -EADDRINUSE);
    stream_close(f.stream);
    unlink(path);
    loop_free(f.loop);
}

static void test_file(void **state)
{
    char path[] = "/tmp/trapeze-unit-XXXXXX", buf[16];
    struct fixture f = {0};
    struct vm_serial_config config = {.kind = VM_SERIAL_FILE, .path = path};
    int fd = mkstemp(path);

    open_stream(&f, &config);
    assert_int_equal(put(&f, "text", 4), 4);
    rounds(&f);
    assert_int_equal(read(fd, buf, sizeof(buf)), 4);
    stream_close(f.stream);
    unlink(path);
    config.path = "/nonexistent/file";
    struct err err = ERR_INIT;
    assert_int_equal(stream_open(&config, f.loop, NULL, &f.stream, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/file"));
    close(fd);
    loop_free(f.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_a_full_front_loses_nothing_when_the_writer_goes),
        cmocka_unit_test(test_a_slow_reader_slows_the_guest_and_loses_nothing),
        cmocka_unit_test(test_a_reader_that_has_gone_does_not_stop_the_guest),
        cmocka_unit_test(test_close_writes_what_waits),
        cmocka_unit_test(test_socket),
        cmocka_unit_test(test_file),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Two ends of TLS over a TCP connection, each with its carrier, and the pump between ssh's pipes and a machine: nothing that was
 * written is lost, however the other end behaves. */
#include "unit.h"

#include "cmd/pump.h"
#include "cmd/tls.h"
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUCH ((ssize_t)(32 * MiB))
#define PATIENCE_MS 30000

struct ends {
    int client, server; /* plain */
    int client_line;    /* a second descriptor of what the client's carrier reads */
    pid_t client_carrier;
};

static void tcp_pair(int *ret_client, int *ret_server)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    *ret_client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*ret_client, (struct sockaddr *)&a, len), 0);
    *ret_server = accept(listener, NULL, NULL);
    assert_true(*ret_server >= 0);
    close(listener);
}

/* The child that began last. */
static pid_t youngest_child(void)
{
    DIR *d = opendir("/proc");
    pid_t youngest = 0;

    for (struct dirent *e; (e = readdir(d));) {
        char path[300];
        int pid = 0, parent = 0;

        snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
        FILE *f = atoi(e->d_name) ? fopen(path, "re") : NULL;
        if (f && fscanf(f, "%d (%*[^)]) %*c %d", &pid, &parent) == 2 && parent == getpid())
            youngest = MAX(youngest, pid);
        if (f)
            fclose(f);
    }
    closedir(d);
    return youngest;
}

static struct ends connect_ends(void)
{
    char key[] = "/tmp/trapeze-unit-XXXXXX";
    struct tls_options o = {.psk = key};
    struct err err = ERR_INIT;
    struct ends e;
    int server_line, fd = mkstemp(key);

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(write(fd, "00112233445566778899aabbccddeeff", 32), 32);
    close(fd);
    tcp_pair(&e.client_line, &server_line);
    assert_int_equal(tls_serve(&o, server_line, &e.server, &err), 0);
    close(server_line);
    assert_int_equal(tls_connect(&o, e.client_line, NULL, &e.client, &err), 0);
    e.client_carrier = youngest_child();
    unlink(key);
    return e;
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, PATIENCE_MS) > 0;
}

/* All that comes until the other end hangs up. */
static size_t read_to_end(int fd, char *buf, size_t size)
{
    size_t len = 0;
    ssize_t n;

    do {
        assert_true(readable(fd));
        n = read(fd, buf + len, size - len);
        len += (size_t)MAX(n, (ssize_t)0);
    } while (n > 0);
    return len;
}

static void wait_carriers(void)
{
    assert_true(waitpid(-1, NULL, 0) > 0);
    assert_true(waitpid(-1, NULL, 0) > 0);
}

/* So that it finds everything at once that happens meanwhile. */
static void stop(pid_t carrier)
{
    int status;

    assert_int_equal(kill(carrier, SIGSTOP), 0);
    assert_int_equal(waitpid(carrier, &status, WUNTRACED), carrier);
}

static void say_and_leave(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

/* Somebody says goodbye and hangs up without reading what has come for him, which his carrier finds at the same time. */
static void last_word(void **state)
{
    struct ends e = connect_ends();
    char buf[16];

    stop(e.client_carrier);
    assert_int_equal(write(e.server, "wait", 4), 4);
    assert_true(readable(e.client_line));
    close(e.client_line);
    say_and_leave(e.client, "bye");
    assert_int_equal(kill(e.client_carrier, SIGCONT), 0);
    assert_int_equal(read_to_end(e.server, buf, sizeof(buf)), 3);
    assert_memory_equal(buf, "bye", 3);
    close(e.server);
    wait_carriers();
}

static void last_word_through_pipes(void **state)
{
    struct err err = ERR_INIT;
    int in[2], out[2], fd;
    char buf[16];

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(in) | pipe(out), 0);
    assert_int_equal(pump_start(in[0], out[1], &fd, &err), 0);
    pid_t pump = youngest_child();
    close(in[0]);
    close(out[1]);
    stop(pump);
    assert_int_equal(write(in[1], "wait", 4), 4);
    say_and_leave(fd, "refused");
    assert_int_equal(kill(pump, SIGCONT), 0);
    assert_int_equal(read_to_end(out[0], buf, sizeof(buf)), 7);
    assert_memory_equal(buf, "refused", 7);
    assert_int_equal(waitpid(pump, NULL, 0), pump);
    close(in[1]);
    close(out[0]);
}

static void *write_much(void *opaque)
{
    int fd = *(int *)opaque;
    char *bytes = calloc(1, (size_t)MUCH);

    for (ssize_t at = 0, n; at < MUCH; at += n)
        if ((n = write(fd, bytes + at, (size_t)(MUCH - at))) <= 0)
            break;
    free(bytes);
    return NULL;
}

static void *read_much(void *opaque)
{
    int fd = *(int *)opaque;
    char *bytes = malloc((size_t)MUCH);
    size_t len = 0;
    ssize_t n;

    while (len < (size_t)MUCH && readable(fd) &&
           (n = read(fd, bytes + len, (size_t)MUCH - len)) > 0)
        len += (size_t)n;
    free(bytes);
    return (void *)len;
}

/* More than all buffers hold, both ways at once. */
static void both_ways(void **state)
{
    struct ends e = connect_ends();
    pthread_t writer[2], reader[2];
    int *ends[2] = {&e.client, &e.server};
    void *len;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&writer[i], NULL, write_much, ends[i]), 0);
        assert_int_equal(pthread_create(&reader[i], NULL, read_much, ends[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(reader[i], &len);
        assert_int_equal((size_t)len, MUCH);
        pthread_join(writer[i], NULL);
    }
    close(e.client_line);
    close(e.client);
    close(e.server);
    wait_carriers();
}

/* The other host's machine has ended, and its carrier with it. */
static void other_side_gone(void **state)
{
    struct ends e = connect_ends();
    char buf[16];

    assert_int_equal(write(e.server, "so long", 7), 7);
    close(e.server);
    assert_int_equal(read_to_end(e.client, buf, sizeof(buf)), 7);
    close(e.client_line);
    close(e.client);
    wait_carriers();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(last_word),
    cmocka_unit_test(last_word_through_pipes),
    cmocka_unit_test(both_ways),
    cmocka_unit_test(other_side_gone),
};

UNIT_MAIN(tests)

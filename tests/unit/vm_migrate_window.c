/*
 * How much may be under way in a post-copy: the window by itself, over lines that are only numbers, and both ends of a
 * migration over a line that would take all that there is and gives it out slowly, as ssh does.
 */
#define PAGES 4000
#include "vm_migrate_toy.h"

#include "vm/migrate/window.h"
#include <poll.h>

#define MESSAGE 8192

/* A line that takes everything at once and carries so much a second. */
struct slow_line {
    double bytes_per_s;
    s64 delay_ns, now_ns, free_ns; /* each byte's journey; the time; when what was sent has left */
    struct {
        u32 number;
        s64 at_ns;
    } mark[MIGRATE_MARKS];
    unsigned marks;
    u32 last;
    u64 waiting; /* the most that was in front of a page that is asked for, in the last `rounds` */
};

static void line_takes(struct slow_line *l, u64 bytes)
{
    l->free_ns = MAX(l->free_ns, l->now_ns) + (s64)((double)bytes / l->bytes_per_s * 1e9);
}

static void send_for(struct slow_line *l, struct migrate_window *w, s64 ns)
{
    s64 until_ns = l->now_ns + ns;

    l->waiting = 0;
    while (l->now_ns < until_ns) {
        if (migrate_window_due(w)) {
            migrate_window_mark(w, ++l->last, l->now_ns);
            l->mark[l->marks].number = l->last;
            l->mark[l->marks++].at_ns = MAX(l->free_ns, l->now_ns) + l->delay_ns;
        } else if (!migrate_window_full(w)) {
            migrate_window_sent(w, MESSAGE);
            line_takes(l, MESSAGE);
            l->now_ns += 1000; /* what we need for it ourselves */
        } else {
            assert_true(l->marks > 0); /* else nobody would ever go on */
            l->now_ns = MAX(l->now_ns, l->mark[0].at_ns);
        }
        l->waiting = MAX(l->waiting, (u64)MAX(l->free_ns - l->now_ns, (s64)0));
        if (l->marks && l->mark[0].at_ns <= l->now_ns) {
            migrate_window_arrived(w, l->mark[0].number, l->now_ns);
            memmove(l->mark, l->mark + 1, --l->marks * sizeof(l->mark[0]));
        }
    }
}

static void slow_lines_are_not_filled(void **state)
{
    static const u64 rates[] = {10000000, 30000000, 100000000, 300000000};

    for (unsigned i = 0; i < ARRAY_LEN(rates); i++) {
        struct slow_line l = {.bytes_per_s = (double)rates[i], .delay_ns = 200000};
        struct migrate_window w;

        migrate_window_init(&w);
        send_for(&l, &w, NS_PER_S);
        u64 before = w.arrived;
        send_for(&l, &w, NS_PER_S);
        /* It carries what it can, and a page that is asked for waits for a few milliseconds. */
        assert_true(w.arrived - before > rates[i] * 8 / 10);
        assert_true(l.waiting < 4000000 || w.bytes == MIGRATE_WINDOW_MIN);
        assert_true(w.bytes >= MIGRATE_WINDOW_MIN);
    }
}

static void long_lines_are_filled(void **state)
{
    struct slow_line l = {.bytes_per_s = 100e6, .delay_ns = 40000000};
    struct migrate_window w;

    migrate_window_init(&w);
    send_for(&l, &w, NS_PER_S);
    u64 before = w.arrived;
    send_for(&l, &w, NS_PER_S);
    assert_true(w.arrived - before > 80000000);
}

static void foreign_marks_change_nothing(void **state)
{
    struct migrate_window w, before;

    migrate_window_init(&w);
    migrate_window_sent(&w, MESSAGE);
    migrate_window_mark(&w, 7, 1000);
    before = w;
    migrate_window_arrived(&w, 8, 2000);
    migrate_window_arrived(&w, 0, 2000);
    assert_memory_equal(&w, &before, sizeof(w));
    migrate_window_arrived(&w, 7, 2000);
    assert_int_equal(w.arrived, MESSAGE);
    migrate_window_arrived(&w, 7, 3000); /* once is enough */
    assert_int_equal(w.arrived, MESSAGE);
}

/* Between both ends: takes up to BUFFER bytes, and gives some out when nothing comes. */
#define BUFFER (8 * MiB)
#define GIVE (16 * KiB)

struct hoard {
    int source, destination;
    u8 *bytes;
    size_t len, most;
    u64 total;
    pthread_t thread;
};

static void give(struct hoard *h)
{
    size_t n = MIN(h->len, (size_t)GIVE);

    for (size_t at = 0; at < n;) {
        ssize_t wrote = write(h->destination, h->bytes + at, n - at);

        if (wrote <= 0)
            break;
        at += (size_t)wrote;
    }
    memmove(h->bytes, h->bytes + n, h->len - n);
    h->len -= n;
}

static void *hoard_thread(void *opaque)
{
    struct hoard *h = opaque;
    u8 back[4096];
    bool open = true;

    while (open || h->len) {
        struct pollfd p[] = {{h->source, open && h->len < BUFFER ? POLLIN : 0, 0},
                             {h->destination, POLLIN, 0}};

        if (!open || !poll(p, 2, h->len ? 1 : -1)) {
            give(h);
            continue;
        }
        if (p[1].revents) {
            ssize_t n = read(h->destination, back, sizeof(back));

            if (n <= 0 || write(h->source, back, (size_t)n) != n)
                break;
        }
        if (p[0].revents) {
            ssize_t n = read(h->source, h->bytes + h->len, BUFFER - h->len);

            open = n > 0;
            h->len += (size_t)MAX(n, 0);
            h->total += (u64)MAX(n, 0);
            h->most = MAX(h->most, h->len);
        }
    }
    shutdown(h->destination, SHUT_RDWR);
    shutdown(h->source, SHUT_RDWR);
    return NULL;
}

/* Of all memory, a small part is ever in front of a page that somebody waits for. The last of the lines, which brings what is
 * not asked for, has the buffer: a page may be asked for when it is there already. */
static void move_through_hoard(unsigned lines)
{
    struct move *m = move_new(lines, 0);
    struct greeting g = {.move = m};
    struct hoard h = {.bytes = malloc(BUFFER)};
    struct migrate_progress progress;
    struct err err = ERR_INIT;
    int here[2];

    m->options.postcopy_first = true;
    make_pairs(lines - 1, here, g.fds);
    make_pairs(1, &here[lines - 1], &h.source);
    make_pairs(1, &h.destination, &g.fds[lines - 1]);
    assert_int_equal(
        migrate_source_new(&m->guest_here, &m->options, here, lines, &m->source, &err), 0);
    pthread_create(&h.thread, NULL, hoard_thread, &h);
    pthread_create(&m->thread, NULL, greet_and_arrive, &g);
    assert_int_equal(migrate_source_run(m->source, &err), 0);
    pthread_join(m->thread, NULL);
    assert_moved(m);
    migrate_source_progress(m->source, &progress);
    assert_true(progress.urgent > 0);
    assert_true(h.total > PAGES / 16 * PAGE);
    assert_true(h.most < PAGES / 8 * PAGE);
    move_free(m);
    pthread_join(h.thread, NULL);
    close(h.source);
    close(h.destination);
    free(h.bytes);
}

static void a_large_buffer_stays_empty(void **state)
{
    move_through_hoard(1);
}

static void a_buffer_of_another_line_stays_empty(void **state)
{
    move_through_hoard(2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(slow_lines_are_not_filled),
    cmocka_unit_test(long_lines_are_filled),
    cmocka_unit_test(foreign_marks_change_nothing),
    cmocka_unit_test(a_large_buffer_stays_empty),
    cmocka_unit_test(a_buffer_of_another_line_stays_empty),
};

int main(void);
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * `trapeze stats`: what guests use, as a table that is drawn anew each second. A share of the processor needs two looks, so
 * the first one comes twice, shortly after each other. Everybody is asked first and heard then.
 */
#include "cmd/guests.h"

#include "vm/value.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIRST_NS (200 * 1000 * 1000)
#define ANSWER_MS 2000

enum { STATS_FORMAT = GUEST_OWN, STATS_ONCE };

struct watching {
    bool json, once;
};

struct sample {
    struct record record;
    struct client client;
    bool asked;
    json_t *now, *before; /* answers; NULL: none */
};

static s64 number(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

static s64 sum(const json_t *o, const char *list, const char *name)
{
    s64 total = 0;
    size_t i;
    json_t *each;

    json_array_foreach(json_object_get(o, list), i, each) total += number(each, name);
    return total;
}

/* Percent of one processor since the last look. */
static double cpu_percent(const struct sample *s)
{
    s64 cpu = number(s->now, "cpu_ns") - number(s->before, "cpu_ns");
    s64 time = number(s->now, "time_ns") - number(s->before, "time_ns");

    return s->now && s->before && time > 0 ? 100.0 * (double)cpu / (double)time : 0;
}

/* Of the process: its own memory, and what the guest has touched of its own. Shared pages of programs are left out. */
static s64 host_memory(const struct sample *s)
{
    char path[64], line[128];
    long long kib = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", s->record.pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "RssAnon: %lld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024 + number(s->now, "memory_touched");
}

static s64 now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* One look at all. */
static void look(struct sample *samples, size_t count)
{
    s64 deadline_ms = now_ms() + ANSWER_MS;

    for (size_t i = 0; i < count; i++) {
        struct client *c = &samples[i].client;

        samples[i].asked = c->wire.fd >= 0 && !client_send(c, "stats", NULL, NULL, 0, NULL);
        if (!samples[i].asked)
            client_close(c); /* it has ended */
    }
    for (size_t i = 0; i < count; i++) {
        struct sample *s = &samples[i];

        json_decref(s->before);
        s->before = s->now;
        s->now = NULL;
        s->client.timeout_ms = (int)MAX(deadline_ms - now_ms(), 0);
        if (s->asked && client_wait(&s->client, NULL, &s->now, NULL) == -EPIPE)
            client_close(&s->client);
    }
}

/* "12.3M" */
static const char *amount(s64 bytes, char buf[16])
{
    static const char units[] = "BKMGT";
    double value = (double)bytes;
    unsigned unit = 0;

    while (value >= 1000 && unit + 2 < sizeof(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, 16, unit && value < 100 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return buf;
}

static void print_table(const struct sample *samples, size_t count)
{
    printf("%-20s %7s %7s %7s %7s  %7s %7s %7s %7s  %7s %7s %8s\n", "NAME", "CPU %", "MEMORY",
           "USED", "HOST", "READ", "WRITTEN", "READS", "WRITES", "NET IN", "NET OUT", "PACKETS");
    for (size_t i = 0; i < count; i++) {
        const struct sample *s = &samples[i];
        char b[7][16];

        if (!s->now) {
            printf("%-20s %s\n", s->record.name, s->client.wire.fd < 0 ? "ended" : "not answering");
            continue;
        }
        printf("%-20s %7.1f %7s %7s %7s  %7s %7s %7lld %7lld  %7s %7s %8lld\n", s->record.name,
               cpu_percent(s), amount(number(s->now, "memory"), b[0]),
               amount(number(s->now, "memory_touched"), b[1]), amount(host_memory(s), b[2]),
               amount(sum(s->now, "disks", "read_bytes"), b[3]),
               amount(sum(s->now, "disks", "written_bytes"), b[4]),
               (long long)sum(s->now, "disks", "reads"), (long long)sum(s->now, "disks", "writes"),
               amount(sum(s->now, "nets", "received_bytes"), b[5]),
               amount(sum(s->now, "nets", "sent_bytes"), b[6]),
               (long long)(sum(s->now, "nets", "received_packets") +
                           sum(s->now, "nets", "sent_packets")));
    }
}

/* One array a look, on one line if it goes on. */
static void print_json(const struct watching *w, const struct sample *samples, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++) {
        const struct sample *s = &samples[i];
        json_t *o = s->now ? json_copy(s->now) : json_object();

        json_object_del(o, "ok");
        json_object_set_new(o, "id", json_string(s->record.id));
        json_object_set_new(o, "name", json_string(s->record.name));
        json_object_set_new(o, "answers", json_boolean(s->now != NULL));
        json_object_set_new(o, "cpu_percent", json_real(cpu_percent(s)));
        json_object_set_new(o, "memory_host", json_integer(host_memory(s)));
        json_array_append_new(list, o);
    }
    json_dumpf(list, stdout, w->once ? JSON_INDENT(2) : JSON_COMPACT);
    putchar('\n');
    json_decref(list);
}

static void watch(const struct watching *w, struct sample *samples, size_t count)
{
    struct timespec pause = {.tv_nsec = FIRST_NS}, second = {.tv_sec = 1};
    bool any = true;

    look(samples, count);
    while (any) {
        nanosleep(&pause, NULL);
        pause = second;
        look(samples, count);
        if (!w->once && !w->json && isatty(STDOUT_FILENO))
            fputs("\033[H\033[2J", stdout);
        if (w->json)
            print_json(w, samples, count);
        else
            print_table(samples, count);
        if (fflush(stdout) || w->once)
            break;
        any = false;
        for (size_t i = 0; i < count; i++)
            any |= samples[i].client.wire.fd >= 0;
    }
}

/* Those that were named, or all that run. */
static int choose(struct host *h, const struct guest_args *a, const struct verb *self,
                  struct sample *samples, size_t *ret_count)
{
    struct record *list = NULL;
    struct err err = ERR_INIT;
    size_t all = 0, count = 0;
    int status = STATUS_OK;

    for (size_t i = 0; i < a->count; i++) {
        if (host_find(h, a->guests[i], &samples[count].record, &err)) {
            guest_complain(self, &err);
            status = STATUS_HOST;
        } else {
            count++;
        }
    }
    if (!a->count && records_list(h->records, &list, &all, &err)) {
        guest_complain(self, &err);
        status = STATUS_HOST;
    }
    for (size_t i = 0; i < all; i++)
        if (list[i].state == RECORD_RUNNING) {
            samples[count++].record = list[i];
            list[i].config = list[i].reason = NULL;
        }
    records_free_list(list, all);
    *ret_count = count;
    return status;
}

/* How many there can be. */
static size_t count_records(struct host *h)
{
    struct record *list = NULL;
    size_t count = 0;

    if (!records_list(h->records, &list, &count, NULL))
        records_free_list(list, count);
    return count;
}

static int read_own(void *opaque, int index, const char *value, struct err *err)
{
    static const char *const formats[] = {"json", "table", NULL};
    struct watching *w = opaque;
    unsigned format;

    w->once |= index == STATS_ONCE;
    if (index != STATS_FORMAT)
        return 0;
    if (value_choice(value, formats, &format, err))
        return err_wrap(err, "--format");
    w->json = format == 0;
    return 0;
}

static int run(const struct verb *self, char **argv)
{
    struct watching w = {0};
    struct guest_args a = {.max = SIZE_MAX, .own = read_own, .opaque = &w};
    int status = guest_args_read(&a, self, argv);
    struct host h;
    size_t count = 0;

    if (status >= 0)
        return status;
    if ((status = guest_host_open(&h, &a, self)))
        return status;
    struct sample *samples = calloc(MAX(count_records(&h), a.count) + 1, sizeof(*samples));
    status = samples ? choose(&h, &a, self, samples, &count) : STATUS_HOST;
    for (size_t i = 0; i < count; i++)
        guest_connect(&h, &samples[i].record, &samples[i].client, NULL);
    if (!status)
        watch(&w, samples, count);
    for (size_t i = 0; i < count; i++) {
        json_decref(samples[i].now);
        json_decref(samples[i].before);
        client_close(&samples[i].client);
        record_fini(&samples[i].record);
    }
    free(samples);
    host_close(&h);
    return status;
}

static const struct args_spec *options(void)
{
    static const struct args_spec all[] = {
        GUEST_OPTIONS,
        [STATS_FORMAT] = {"format", 0, "FORMAT", "table, or json for programs (table)"},
        [STATS_ONCE] = {"no-stream", 0, NULL, "one look, instead of one each second"},
        {NULL, 0, NULL, NULL},
    };

    return all;
}

const struct verb verb_stats = {
    .name = "stats",
    .operands = "[GUEST...]",
    .summary = "Watch what guests use: processor, memory, disks, network",
    .options = options,
    .notes = "Without names, all guests that run when it starts. Ends with the last of them.\n",
    .run = run,
};

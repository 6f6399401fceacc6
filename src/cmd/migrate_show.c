/* What `trapeze migrate` prints: a bar on a terminal, JSON lines else; a summary at the end. */
#include "cmd/migrate.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR 20

static double number(const json_t *o, const char *name)
{
    return (double)json_integer_value(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s ? s : "";
}

static bool is_json(const struct migrate_display *d)
{
    return d->format == MIGRATE_FORMAT_JSON ||
           (d->format == MIGRATE_FORMAT_AUTO && !isatty(STDOUT_FILENO));
}

static void print_json(const json_t *o, const char *event)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)o);

    json_object_del(copy, "id");
    json_object_del(copy, "ok");
    json_object_set_new(copy, "event", json_string(event));
    json_dumpf(copy, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    putchar('\n');
    fflush(stdout);
    json_decref(copy);
}

/* A line that is wider than the terminal could not be drawn over. */
static int columns(void)
{
    struct winsize size;

    return !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col > 1 ? size.ws_col - 1 : 79;
}

static void draw(struct migrate_display *d, const json_t *p)
{
    double left = number(p, "left_bytes") + number(p, "left_disk_bytes");
    double total = number(p, "total_bytes"), remaining = number(p, "remaining_ns");
    int full = total > 0 ? (int)(BAR * (total - MIN(left, total)) / total) : 0;
    char bar[BAR + 1], end[32] = "", slow[48] = "", line[512];

    if (!strcmp(text(p, "phase"), "connecting") || !strcmp(text(p, "phase"), "measuring")) {
        printf("\r\033[K%s: %s", d->guest, text(p, "phase"));
        fflush(stdout);
        d->drawn = true;
        return;
    }
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)full);
    bar[BAR] = 0;
    if (remaining >= 0)
        snprintf(end, sizeof(end), ", %.0f s to go", remaining / 1e9);
    if (number(p, "throttle") > 0)
        snprintf(slow, sizeof(slow), ", guest slowed by %.0f %%", number(p, "throttle"));
    snprintf(line, sizeof(line),
             "%s: %s [%s] round %d, %.0f MiB left%s, %.0f MiB/s, guest writes %.0f MiB/s%s",
             d->guest, text(p, "phase"), bar, (int)number(p, "round"), left / (double)MiB, end,
             number(p, "rate") / (double)MiB, number(p, "dirty_rate") / (double)MiB, slow);
    printf("\r\033[K%.*s", columns(), line);
    fflush(stdout);
    d->drawn = true;
}

void migrate_show(struct migrate_display *d, const json_t *progress)
{
    snprintf(d->owner, sizeof(d->owner), "%s", text(progress, "owner"));
    d->connecting = !strcmp(text(progress, "phase"), "connecting");
    if (d->quiet)
        return;
    if (is_json(d))
        print_json(progress, "progress");
    else
        draw(d, progress);
}

void migrate_show_end(struct migrate_display *d)
{
    if (d->drawn)
        printf("\r\033[K");
    d->drawn = false;
    fflush(stdout);
}

void migrate_show_summary(struct migrate_display *d, const json_t *s)
{
    migrate_show_end(d);
    if (d->quiet)
        return;
    if (is_json(d)) {
        print_json(s, "moved");
        return;
    }
    printf("%s: moved in %.2f s, stood still for %.1f ms; %d round%s, %.1f MiB sent\n",
           d->guest, number(s, "elapsed_ns") / 1e9, number(s, "downtime_ns") / 1e6,
           (int)number(s, "round"), number(s, "round") == 1 ? "" : "s",
           number(s, "sent_bytes") / (double)MiB);
    printf("pages: %.0f whole, %.0f as differences, %.0f zero, %.0f at once on demand",
           number(s, "pages_whole"), number(s, "pages_delta"), number(s, "pages_zero"),
           number(s, "urgent_pages"));
    if (number(s, "packed_bytes") > 0)
        printf("; compression saved %.1f MiB", number(s, "packed_bytes") / (double)MiB);
    const json_t *parts = json_object_get(s, "downtime_parts_ns");
    printf(
        "\nstood still: stopping %.1f ms, sending the rest %.1f, loading it %.1f, starting %.1f\n",
        number(parts, "stop") / 1e6, number(parts, "send") / 1e6, number(parts, "load") / 1e6,
        number(parts, "start") / 1e6);
}

void migrate_show_fit(struct migrate_display *d, const json_t *answer)
{
    migrate_show_end(d);
    if (is_json(d)) {
        print_json(answer, "fits");
        return;
    }
    double total = number(answer, "total_bytes"), dirty = number(answer, "dirty_rate");
    printf("%s: it can go there. %.0f MiB of memory hold something, the guest writes %.0f MiB/s\n",
           d->guest, total / (double)MiB, dirty / (double)MiB);
    /* Rounds add up to a geometric series: each is as long as the one before times what is written in it. */
    if (d->bandwidth && dirty < (double)d->bandwidth)
        printf("%s: at %.0f MiB/s it takes about %.1f s\n", d->guest,
               (double)d->bandwidth / (double)MiB, total / ((double)d->bandwidth - dirty));
    else if (d->bandwidth)
        printf(
            "%s: at %.0f MiB/s it does not end by rounds alone: the guest is handed over before\n",
            d->guest, (double)d->bandwidth / (double)MiB);
}

/* `trapeze disk check`. Main thread. */
#include "cmd/disk.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    CHECK_FORMAT,
    CHECK_SHARE,
    CHECK_OUTPUT,
    CHECK_QUIET,
    CHECK_REPAIR,
    CHECK_CACHE,
    CHECK_IMAGE_OPTS,
    CHECK_OBJECT,
    CHECK_HELP
};

static const struct args_spec options[] = {
    [CHECK_FORMAT] = {"format", 'f', "FORMAT", "qcow2"},
    [CHECK_SHARE] = {"force-share", 'U', NULL, "look at an image that somebody writes to"},
    [CHECK_OUTPUT] = {"output", 0, "HOW", "human or json (human)"},
    [CHECK_QUIET] = {"quiet", 'q', NULL, "only the exit status tells"},
    [CHECK_REPAIR] = {"repair", 'r', "WHAT", "mend: leaks, or all"},
    [CHECK_CACHE] = {"source-cache", 'T', "MODE", "changes nothing"},
    [CHECK_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [CHECK_OBJECT] = {"object", 0, "OBJECT", NULL},
    [CHECK_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal refused[] = {
    {CHECK_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS}, {CHECK_OBJECT, DISK_WHY_OBJECT}, {0, NULL}};

#define FAULTS_SHOWN 50

static void show_fault(struct qcow2_check *c, bool leak, const char *text)
{
    u64 n = c->leaks + c->corruptions;

    if (n <= FAULTS_SHOWN)
        fprintf(stderr, "%s: %s\n", leak ? "leak" : "damage", text);
    else if (n == FAULTS_SHOWN + 1)
        fputs("... and more\n", stderr);
}

static void print_check(const struct block_image *image, const struct qcow2_check *c)
{
    if (c->corruptions_fixed || c->leaks_fixed)
        printf("Mended: %llu faults, %llu leaked clusters.\n",
               (unsigned long long)c->corruptions_fixed, (unsigned long long)c->leaks_fixed);
    if (c->corruptions)
        printf("%llu faults were found. Writing to the image may destroy data.\n",
               (unsigned long long)c->corruptions);
    if (c->leaks)
        printf("%llu leaked clusters were found: space is lost, no data.\n",
               (unsigned long long)c->leaks);
    if (!c->corruptions && !c->leaks)
        puts("No errors were found on the image.");
    printf("%llu/%llu = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
           (unsigned long long)c->allocated, (unsigned long long)c->clusters,
           c->clusters ? 100.0 * (double)c->allocated / (double)c->clusters : 0,
           c->allocated ? 100.0 * (double)c->fragmented / (double)c->allocated : 0,
           c->allocated ? 100.0 * (double)c->packed / (double)c->allocated : 0);
    printf("Image end offset: %llu\n", (unsigned long long)c->end);
}

static void print_check_json(const struct block_image *image, const struct qcow2_check *c)
{
    printf("{\n    \"filename\": ");
    disk_json_text(image->path);
    printf(",\n    \"format\": \"qcow2\",\n    \"check-errors\": 0,\n    \"corruptions\": %llu,\n  "
           "  \"leaks\": %llu,\n"
           "    \"corruptions-fixed\": %llu,\n    \"leaks-fixed\": %llu,\n    \"total-clusters\": "
           "%llu,\n"
           "    \"allocated-clusters\": %llu,\n    \"fragmented-clusters\": %llu,\n"
           "    \"compressed-clusters\": %llu,\n    \"image-end-offset\": %llu\n}\n",
           (unsigned long long)c->corruptions, (unsigned long long)c->leaks,
           (unsigned long long)c->corruptions_fixed, (unsigned long long)c->leaks_fixed,
           (unsigned long long)c->clusters, (unsigned long long)c->allocated,
           (unsigned long long)c->fragmented, (unsigned long long)c->packed,
           (unsigned long long)c->end);
}

static int repair_of(const char *text, enum qcow2_repair *ret_repair, struct err *err)
{
    if (text && strcmp(text, "leaks") && strcmp(text, "all"))
        return sub_usage(err, "--repair '%s' is not known; there are leaks and all", text);
    *ret_repair = !text                  ? QCOW2_REPAIR_NONE
                  : !strcmp(text, "all") ? QCOW2_REPAIR_ALL
                                         : QCOW2_REPAIR_LEAKS;
    return 0;
}

static int check_image(struct block_image *image, const struct sub_args *a,
                       enum qcow2_repair repair, struct err *err)
{
    struct qcow2_check c = {.report = a->value[CHECK_QUIET] ? NULL : show_fault};
    bool json = false;
    int rc = disk_output(a->value[CHECK_OUTPUT], &json, err);

    if (rc)
        return rc;
    if (strcmp(image->fmt->ops->name, "qcow2"))
        return err_set(err, ENOTSUP, "%s: raw images have nothing that could be checked",
                       image->path);
    rc = qcow2_check(image->fmt, repair, &c, err);
    if (rc)
        return rc;
    if (json)
        print_check_json(image, &c);
    else if (!a->value[CHECK_QUIET])
        print_check(image, &c);
    return c.corruptions ? DISK_NO : c.leaks ? DISK_LEAKS : STATUS_OK;
}

static int check_run(const struct sub_args *a, struct err *err)
{
    enum qcow2_repair repair = QCOW2_REPAIR_NONE;
    struct block_image_options io = {
        .format = a->value[CHECK_FORMAT], .repair = true, .shared = a->value[CHECK_SHARE]};
    struct block_image *image;
    int rc = disk_refuse(a, options, refused, err);

    if (!rc)
        rc = disk_cache(a->value[CHECK_CACHE], NULL, err);
    if (!rc)
        rc = repair_of(a->value[CHECK_REPAIR], &repair, err);
    if (!rc && repair != QCOW2_REPAIR_NONE && io.shared)
        rc = sub_usage(err, "an image that somebody writes to cannot be mended; leave out "
                            "--force-share and stop whoever uses it");
    io.readonly = repair == QCOW2_REPAIR_NONE;
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &image, err);
    if (rc)
        return rc;
    rc = check_image(image, a, repair, err);
    block_image_close(image);
    return rc;
}

const struct subverb disk_check_verb = {
    .name = "check",
    .usage = "[options] FILE",
    .summary = "Find damage in an image, and mend it",
    .options = options,
    .operands_min = 1,
    .operands_max = 1,
    .run = check_run,
};

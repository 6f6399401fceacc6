/* The configuration's reader: what it takes, what it refuses and in which words. */
#include "unit.h"

#include "container/spec.h"

#define HEAD "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"r\"},"
#define LINUX(more) \
    HEAD "\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"uts\"}]" more "}}"

/* Reads the text; 0 or what spec_parse says, with its message in *err. */
static int read_spec(const char *text, struct spec *s, struct pool *p, struct err *err)
{
    json_t *doc;
    int rc;

    *err = ERR_INIT;
    memset(s, 0, sizeof(*s));
    rc = json_parse(text, strlen(text), "test", &doc, err);
    return rc < 0 ? rc : spec_parse(s, p, doc, err);
}

static void refuses(const char *text, const char *message)
{
    struct pool p = {0};
    struct spec s;
    struct err err;

    assert_true(read_spec(text, &s, &p, &err) < 0);
    if (!strstr(err.msg, message))
        print_error("message: %s\n", err.msg);
    assert_non_null(strstr(err.msg, message));
    spec_fini(&s);
    pool_fini(&p);
}

static void test_small(void **state)
{
    struct pool p = {0};
    struct spec s;
    struct err err;

    assert_int_equal(read_spec(LINUX(",\"unknown\":{\"x\":[1]}"), &s, &p, &err), 0);
    assert_string_equal(s.root_path, "r");
    assert_true(spec_new_ns(&s, NS_MOUNT));
    assert_false(spec_has_ns(&s, NS_PID));
    assert_false(s.has_process);
    spec_fini(&s);
    spec_fini(&s);
    pool_fini(&p);
}

static void test_process(void **state)
{
    struct pool p = {0};
    struct spec s;
    struct err err;
    const char *text =
        HEAD "\"process\":{\"args\":[\"a\",\"b\"],\"cwd\":\"/"
             "\",\"user\":{\"uid\":4294967295,\"additionalGids\":[7]},"
             "\"rlimits\":[{\"type\":\"RLIMIT_CORE\",\"soft\":0,\"hard\":18446744073709551615}],"
             "\"capabilities\":{\"bounding\":[\"CAP_KILL\",\"CAP_NEW\"]}},"
             "\"linux\":{\"namespaces\":[{\"type\":\"mount\"}]}}";

    assert_int_equal(read_spec(text, &s, &p, &err), 0);
    assert_int_equal(s.process.args.n, 2);
    assert_true(s.process.uid == UINT32_MAX);
    assert_int_equal(s.process.gids[0], 7);
    assert_true(s.process.rlimits[0].hard == UINT64_MAX);
    assert_true(s.process.caps[CAPS_BOUNDING] == BIT(5));
    spec_fini(&s);
    pool_fini(&p);
}

static void test_refusals(void **state)
{
    refuses("[]", "does not hold an object");
    refuses("{\"ociVersion\":\"2.0.0\"}", "unsupported ociVersion");
    refuses("{\"ociVersion\":\"1.0.0\"}", "root.path is missing");
    refuses(HEAD "\"process\":{\"args\":[],\"cwd\":\"/\"}}", "args must not be empty");
    refuses(HEAD "\"process\":{\"args\":[1],\"cwd\":\"/\"}}", "entry 0 is not a string");
    refuses(HEAD "\"process\":{\"args\":[\"a\"],\"cwd\":\"x\"}}", "Cwd must be an absolute path");
    refuses(HEAD "\"process\":{\"args\":[\"a\"],\"cwd\":\"/\",\"oomScoreAdj\":5000}}",
            "out of range");
    refuses(HEAD "\"mounts\":[{}]}", "no destination");
    refuses(HEAD "\"hooks\":{\"poststop\":[{\"path\":\"x\"}]}}", "absolute path");
    refuses(
        HEAD
        "\"linux\":{\"namespaces\":[{\"type\":\"user\"}],\"uidMappings\":[{\"containerID\":0,"
        "\"hostID\":1,\"size\":1}],\"gidMappings\":[{\"containerID\":0,\"hostID\":1,\"size\":1}]}}",
        "a new user namespace needs a new mount namespace");
    refuses(LINUX(",\"devices\":[{\"path\":\"/d\",\"type\":\"z\"}]"), "invalid type");
    refuses(LINUX(",\"sysctl\":{\"kernel.panic\":\"1\"}"), "not in a separate kernel namespace");
    refuses(LINUX(",\"sysctl\":{\"net.x\":\"1\"}"), "hosts network namespace");
    refuses(LINUX(",\"maskedPaths\":[\"proc\"]"), "not absolute");
    refuses(LINUX(",\"rootfsPropagation\":\"sideways\""), "not supported");
    refuses(LINUX(",\"timeOffsets\":{\"monotonic\":{\"secs\":1}}"), "time namespace isn't enabled");
    refuses(LINUX(",\"netDevices\":{\"a/b\":{}}"), "invalid device name");
    refuses(LINUX(",\"netDevices\":{\"eth0\":{}}"), "network namespace");
    refuses(LINUX(",\"netDevices\":{\"eth0\":{\"name\":\"eth%d\"}}"), "invalid device name");
    refuses(LINUX(",\"timeOffsets\":{\"realtime\":{\"secs\":1}}"), "only monotonic and boottime");
    refuses(LINUX(",\"uidMappings\":[{\"containerID\":0,\"hostID\":0,\"size\":-1}]"),
            "out of range");
    refuses(LINUX(",\"memoryPolicy\":{\"mode\":\"MPOL_X\"}"), "invalid mode");
    refuses(LINUX(",\"memoryPolicy\":{\"mode\":\"MPOL_BIND\"}"), "MPOL_BIND needs nodes");
    refuses(LINUX(",\"memoryPolicy\":{\"mode\":\"MPOL_LOCAL\",\"nodes\":\"0\"}"),
            "MPOL_LOCAL takes no nodes");
    refuses(LINUX(",\"memoryPolicy\":{\"mode\":\"MPOL_BIND\",\"nodes\":\"0\",\"flags\":["
                  "\"MPOL_F_STATIC_NODES\",\"MPOL_F_RELATIVE_NODES\"]}"),
            "exclude each other");
    refuses(LINUX(",\"personality\":{\"domain\":\"DOS\"}"), "invalid domain");
}

int main(void);
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_process),
                                       cmocka_unit_test(test_refusals)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Port forwarding rules. */
#include "net/hostfwd.h"
#include "unit.h"

static void test_good(void **state)
{
    struct hostfwd f;

    assert_int_equal(hostfwd_parse("tcp:127.0.0.2:2222-10.0.2.20:22", &f, NULL), 0);
    assert_false(f.udp);
    assert_int_equal(f.host_addr, 0x7f000002);
    assert_int_equal(f.guest_addr, 0x0a000214);
    assert_int_equal(f.host_port, 2222);
    assert_int_equal(f.guest_port, 22);
    assert_int_equal(hostfwd_parse("udp::1-:65535", &f, NULL), 0);
    assert_true(f.udp);
    assert_int_equal(f.host_addr, 0x7f000001);
    assert_int_equal(f.guest_addr, 0x0a00020f);
    assert_int_equal(hostfwd_parse("tcp:0.0.0.0:80-:80", &f, NULL), 0);
    assert_int_equal(f.host_addr, 0);
}

static void test_bad(void **state)
{
    static const char *const bad[] = {"",
                                      "tcp",
                                      "tcp:",
                                      "tcp::22",
                                      "tcp::22-",
                                      "tcp::22-22",
                                      "tcp::0-:22",
                                      "tcp::65536-:22",
                                      "tcp::22-:-1",
                                      "sctp::1-:1",
                                      "tcp::1-:1x",
                                      "tcp:256.0.0.1:1-:1",
                                      "tcp:localhost:1-:1",
                                      "tcp:::1:22-:22",
                                      "tcp:: 1-:1",
                                      "tcp::99999999999999999999-:1",
                                      "tcp:1111.2222.3333.4444:1-:1",
                                      "tcp::+1-:1"};
    struct err err;
    struct hostfwd f;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        err = ERR_INIT;
        assert_int_equal(hostfwd_parse(bad[i], &f, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "tcp::2222-:22"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

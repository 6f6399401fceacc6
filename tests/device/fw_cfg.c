/* fw_cfg through its ports and by DMA, as firmware and as an attacker. */
#include "pc.h"

#define PORT MEMMAP_PORT_FW_CFG
#define DESC 0x10000ull

static void dma(struct pc *pc, u32 control, u32 len, u64 addr)
{
    struct {
        u32 control, len;
        u64 addr;
    } d = {__builtin_bswap32(control), __builtin_bswap32(len), __builtin_bswap64(addr)};

    gmem_write(&pc->ram, DESC, &d, sizeof(d));
    pc_out(pc, PORT + 4, 4, 0);
    pc_out(pc, PORT + 8, 4, __builtin_bswap32((u32)DESC));
}

static u32 dma_result(struct pc *pc)
{
    u32 v = 0;

    gmem_read(&pc->ram, DESC, &v, 4);
    return __builtin_bswap32(v);
}

static void test_ports(void **state)
{
    struct pc pc;
    u64 ram = 0;

    pc_init(&pc, 3);
    pc_out(&pc, PORT, 2, FW_CFG_SIGNATURE);
    for (const char *s = "QEMU"; *s; s++)
        assert_int_equal(pc_inb(&pc, PORT + 1), *s);
    assert_int_equal(pc_inb(&pc, PORT + 1), 0); /* past the end */
    pc_out(&pc, PORT, 2, FW_CFG_RAM_SIZE);
    for (unsigned i = 0; i < 8; i++)
        ram |= (u64)pc_inb(&pc, PORT + 1) << 8 * i;
    assert_int_equal(ram, PC_RAM);
    pc_out(&pc, PORT, 2, FW_CFG_CPUS);
    assert_int_equal(pc_inb(&pc, PORT + 1), 3);
    pc_out(&pc, PORT, 2, 0xffff); /* no such item */
    assert_int_equal(pc_inb(&pc, PORT + 1), 0);
    assert_int_equal(pc_in(&pc, PORT + 4, 4), 0x554d4551); /* QEMU CFG, big-endian */
    pc_fini(&pc);
}

static void test_files(void **state)
{
    struct pc pc;
    u8 dir[4 + 64], text[8];

    pc_init(&pc, 1);
    assert_int_equal(fw_cfg_add_file(&pc.b->fw_cfg, "etc/one", "hello", 5, NULL), 0);
    assert_int_equal(fw_cfg_add(&pc.b->fw_cfg, FW_CFG_FILE_FIRST, "", 0, NULL), -EEXIST);
    assert_int_equal(fw_cfg_add_file(&pc.b->fw_cfg, "", "x", 1, NULL), -EINVAL);
    dma(&pc, FW_CFG_FILE_DIR << 16 | 8 | 2, sizeof(dir), 0x20000);
    assert_int_equal(dma_result(&pc), 0);
    gmem_read(&pc.ram, 0x20000, dir, sizeof(dir));
    assert_memory_equal(dir, "\0\0\0\1\0\0\0\5\0\x20\0\0etc/one", 20);
    dma(&pc, FW_CFG_FILE_FIRST << 16 | 8 | 4, 1, 0); /* select and skip */
    dma(&pc, 2, 7, 0x30000);
    gmem_read(&pc.ram, 0x30000, text, 7);
    assert_memory_equal(text, "ello\0\0", 7);
    pc_fini(&pc);
}

static void test_hostile(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    dma(&pc, 2, 16, PC_RAM - 8); /* straddles the end of RAM */
    assert_int_equal(dma_result(&pc), 1);
    dma(&pc, 2, 0xffffffff, 0);
    assert_int_equal(dma_result(&pc), 1);
    dma(&pc, 2, 16, UINT64_MAX - 4);
    assert_int_equal(dma_result(&pc), 1);
    dma(&pc, 0x10, 4, 0x20000); /* writing */
    assert_int_equal(dma_result(&pc), 1);
    dma(&pc, 4, 0xffffffff, 0);
    dma(&pc, 4, 0xffffffff, 0); /* the offset does not wrap */
    assert_int_equal(pc.b->fw_cfg.s.offset, UINT32_MAX);
    assert_int_equal(pc_inb(&pc, PORT + 1), 0);
    dma(&pc, FW_CFG_FILE_DIR << 16 | 8 | 2, PC_RAM - 0x40000, 0x40000);
    assert_int_equal(dma_result(&pc), 0);
    dma(&pc, 0 << 16 | 8 | 2, PC_RAM, 0); /* over its own descriptor */
    pc_out(&pc, PORT + 4, 4, 0xffffffff); /* a descriptor that is not in RAM */
    pc_out(&pc, PORT + 8, 4, 0xffffffff);
    for (unsigned i = 0; i < 100; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%u", i);
        if (fw_cfg_add_file(&pc.b->fw_cfg, name, "", 0, NULL))
            break;
        assert_true(i < FW_CFG_ITEMS);
    }
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

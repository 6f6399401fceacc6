/*
 * Exceptions that an instruction's own code raises: noted, then the helper's stack is dropped, and light_exception()
 * delivers what was noted. Light, vCPU thread.
 */
#include "accel/bt/vcpu.h"

noreturn void raise_exception(struct cpu *c, enum x86_vector vector)
{
    c->exc_vector = vector;
    c->exc_has_error = 0;
    c->exc_error = 0;
    bt_unwind(c);
}

noreturn void raise_error(struct cpu *c, enum x86_vector vector, u32 error)
{
    c->exc_vector = vector;
    c->exc_has_error = 1;
    c->exc_error = error;
    bt_unwind(c);
}

noreturn void raise_page_fault(struct cpu *c, u64 lin, u32 error)
{
    c->cr2 = lin;
    raise_error(c, VEC_PF, error);
}

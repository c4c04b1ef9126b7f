"""Runs the machine code of the CUDA kernel (SASS) in place of a device.

    operands       the text of an operand -> what it names
    arithmetic     floating point as the machine rounds it, on arrays of lanes
    operations     what each operation does to the lanes that execute it
    memory         tensors at addresses, with permissions
    machine        warps: which lanes execute next, and where they wait for each other
    kernel         one call of act_mul_count, from the launcher's own parameters

It executes what ptxas made, which neither the emulation nor a look at the code does: wrong
addresses, predicates, reconvergence and constants show in the results, and every access is checked
for range, permission and alignment, and on sm_90 for whether the lane has waited for the kernels
before (programmatic dependent launch). It knows the operations that occur in these kernels on sm_80
and sm_90, and stops by name at any other. What it does not model: time, caches, and the last bits
of the special function unit, whose result is rounded correctly and then, if asked, made wrong.
"""

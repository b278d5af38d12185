// Metal's address spaces. When a kernel runs they mean nothing: all memory is the host's. In the pass that only checks a
// shader (NIBBLE_MSL_CHECK) they are clang's own address spaces, so that a pointer of one is no pointer of another.
#pragma once

#ifdef NIBBLE_MSL_CHECK
#define NIBBLE_MSL_DEVICE __attribute__((address_space(1)))
#define NIBBLE_MSL_CONSTANT const __attribute__((address_space(2)))
#define NIBBLE_MSL_THREADGROUP __attribute__((address_space(3)))
#define NIBBLE_MSL_FOR_EACH_SPACE(define) define(NIBBLE_MSL_DEVICE) define(NIBBLE_MSL_THREADGROUP)
#else
#define NIBBLE_MSL_DEVICE
#define NIBBLE_MSL_CONSTANT const
#define NIBBLE_MSL_THREADGROUP
#define NIBBLE_MSL_FOR_EACH_SPACE(define) define()
#endif

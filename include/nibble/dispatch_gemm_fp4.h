// C = A * B with FP4 weights, for any number of tokens, on the CPU: a decode step (M = 1) takes another kernel than a
// prompt of 512 tokens, since a kernel built of 64-row tiles wastes 63 of 64 rows on a single token.
//
// Plain C++: no allocation, no exceptions, nothing to set up. Thread-safe.
#pragma once

#include <cstdint>

namespace nibble {

// IEEE 754 binary16, by its bits.
struct Half {
  uint16_t bits;
};

// Runs task(task_context, i) for i = 0 … num_tasks-1, in any order, on any threads, and returns when all are done.
struct ParallelFor {
  void* context = nullptr;
  void (*run)(void* context, int num_tasks, void (*task)(void* task_context, int index), void* task_context) = nullptr;
  int num_threads = 1;  // how many tasks run at once: how finely the work is cut
};

struct GemmFp4 {
  int64_t M = 0;           // tokens, any number from 0 on
  int64_t N = 0;           // out features, any number from 0 on
  int64_t K = 0;           // in features, a multiple of 8
  int64_t group_size = 0;  // k that share a scale: 32, 64 or 128; the last group may be short

  const Half* A = nullptr;       // [M, K]
  const uint32_t* B = nullptr;   // [K/8, N]; bits 4i … 4i+3 of word [p, n] are the E2M1 code of k = 8p + i, column n
  const Half* scales = nullptr;  // [ceil(K / group_size), N], multipliers
  Half* C_half = nullptr;        // [M, N]: exactly one of the two is given
  float* C_float = nullptr;
  ParallelFor parallel;  // without `run`: everything on the calling thread
};

enum class GemmStatus : uint8_t {
  ok,
  bad_size,      // negative or beyond memory, K not a multiple of 8, or a group_size other than 32, 64, 128
  null_pointer,  // A, B, scales or C missing where their size is not zero
  bad_output,    // both C_half and C_float
  bad_kernels,   // NIBBLE_CPU_KERNELS names kernels that this machine does not have
};

// A sentence for each status.
const char* gemm_status_text(GemmStatus status);

enum class GemmRoute : uint8_t {
  nothing,               // M or N is 0
  decode_gemv_fp4_wide,  // M = 1: reads B once, at the speed of memory
  batched_gemv_fp4,      // several tokens: B is read and decoded once for each 16
  marlin_gemm_fp4,       // tiles of 64 rows, all computed: where tokens fill them
};

const char* gemm_route_name(GemmRoute route);

// The route for a shape: a pure function, the one that dispatch_gemm_fp4 follows.
GemmRoute choose_gemm_fp4(int64_t M, int64_t N, int64_t K) noexcept;

// C[m, n] = sum over k of A[m, k] * e2m1(B[k, n]) * scales[k / group_size, n].
//
// Activations are rounded to 15 bits and a scale for each 32 of them, sums are exact integers within those 32 and
// float32 across them. Writes all of C and nothing else; nothing if the status is not ok.
GemmStatus dispatch_gemm_fp4(const GemmFp4& gemm) noexcept;

// The same with the route given: what the benchmarks compare. Every route takes every M; `nothing`
// computes nothing.
GemmStatus gemm_fp4_on_route(const GemmFp4& gemm, GemmRoute route) noexcept;

}  // namespace nibble

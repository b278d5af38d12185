// The CPU kernels: one table of functions per instruction set, chosen once for the process.
//
// Within one table, what a token and a row give does not depend on M, on the place of the token, or on how rows are
// split among workers, to the bit. amx_bf16 alone has other bits of FP4 for 16 tokens and more than for fewer.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "backends/cpu/activations.h"
#include "backends/cpu/packed_matrix.h"
#include "nibble/dispatch_gemm_fp4.h"

namespace nibble {

// Rows from a block on, of all experts' blocks: what is read at some time to come, or nothing that is known.
struct RowsToCome {
  const PackedMatrix* w = nullptr;
  int64_t block = 0;
};

// out[i, n] (+)= bias[n] + sum over k of w[e, n, k] * x[first_token + i, k] for rows n in [first_row, last_row) and i in
// [0, num_tokens).
struct LinearTask {
  const PackedMatrix* w;
  int64_t e = 0;
  int64_t first_row, last_row;  // multiples of 16, but for last_row = N
  const Activations* x;         // prepared; matrices of floats and transposed FP4 read only x->x
  int64_t first_token = 0, num_tokens;
  float* out;  // row i at out + i * out_stride
  int64_t out_stride;
  const float* bias = nullptr;  // [N]
  bool accumulate = false;
  RowsToCome next = {};  // what this thread multiplies by then: its first lines are asked for while this task ends
};

// A strip of dispatch_gemm_fp4: C[m, n] for num_tokens rows (kMaxStripTokens at most) from first_token on, and
// num_columns columns from first_column on. Rows past M are computed and not stored.
//
// 16 rows by 1024 columns: each strip rounds its rows of A anew, which the columns must pay for. Strips of 64 rows by 256
// took 15 % longer at M = 512 (4096 x 4096, AVX-512, Zen 4).
inline constexpr int kMaxStripTokens = 16;
inline constexpr int kStripAccumulators = 16384;  // floats on the stack: rows by columns (in whole 16) at most

struct GemmFp4Strip {
  const GemmFp4* gemm;
  int64_t first_token, first_column, num_columns;
  int num_tokens;
};

// Whether lines are asked for twice, from far into the second-level cache, then from near into the first: always, never, or
// where much is computed between two lines (nibbles, several tokens), so that the processor's own prefetching falls behind.
enum class FarPrefetches : uint8_t { never, if_computing, always };
extern const FarPrefetches kFarPrefetches;

// Whether this processor computes vectors of 512 bits in halves, one after the other (Zen 4).
extern const bool kDoublePumps512;

// What rows consist of: nibbles, the low one first, become codes as the kernels have them, signed bytes unsigned ones. The others
// stay, unit after unit.
enum class RowUnit : uint8_t { nibbles, signed_bytes, bytes, halves, floats };

struct CpuKernels {
  std::string_view name;

  // Fills the groups [first, last) of x, counted token by token: M * activation_groups(K) in all.
  void (*prepare)(const Activations& x, int64_t first, int64_t last);

  void (*linear)(const LinearTask& task);

  // Packs codes or scales of 16 whole rows (packed_layout.h): 16 * num_pieces bytes of each become 4 * num_pieces lines, the
  // same bytes in all tables. Asks for the rows that follow if they lie one after the other.
  void (*interleave_rows)(const uint8_t* const* rows, int64_t num_pieces, RowUnit unit, uint8_t* lines);

  void (*gemm_fp4)(const GemmFp4Strip& strip);

  // Only reads, with the prefetching of the kernels: the roof. The result keeps the reads alive. size % 512 == 0.
  uint64_t (*read)(const uint8_t* bytes, int64_t size);
};

// All tables that this machine can run, the best first.
std::span<const CpuKernels* const> supported_cpu_kernels();

// The best one, or the one that NIBBLE_CPU_KERNELS names: generic; avx2, avx_vnni, avx512_vnni, avx512, amx, amx_bf16;
// neon_dotprod, neon_i8mm. Throws InputError if this machine does not have it.
const CpuKernels& cpu_kernels();

// gemm_fp4_on_route with a table of one's choice, for tests and benchmarks.
GemmStatus gemm_fp4_with(const CpuKernels& kernels, const GemmFp4& gemm, GemmRoute route) noexcept;

}  // namespace nibble

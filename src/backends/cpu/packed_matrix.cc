#include "backends/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>

#include "backends/cpu/kernels.h"
#include "backends/cpu/packed_layout.h"
#include "base/memory.h"
#include "base/piece_queues.h"
#include "weights/convert.h"

namespace nibble {

namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // that a worker packs at a time: readers want the same processors

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// The planes of a packed matrix, one after the other in one buffer, each at a line's start.
struct Planes {
  int64_t num_blocks, num_scale_blocks, block_code_bytes, block_scale_bytes;
  int64_t scales_at, row_factors_at, bytes;
};

Planes planes_of(FormatId format, int64_t E, int64_t N, int64_t K) {
  Planes p{};
  p.num_blocks = (N + kBlockRows - 1) / kBlockRows;
  visit_format(CpuFormats{}, format, [&](auto tag) {
    using Layout = PackedLayout<decltype(tag)>;
    p.num_scale_blocks = (p.num_blocks + Layout::scale_blocks - 1) / Layout::scale_blocks;
    const int64_t padded_k = Layout::is_float ? K : round_up(K, kGroup);
    p.block_code_bytes = kBlockRows * padded_k * Layout::code_bits / 8;
    p.block_scale_bytes = round_up(padded_k, Layout::scale_k) / Layout::scale_k * Layout::scale_line_bytes;
  });
  p.scales_at = round_up(E * p.num_blocks * p.block_code_bytes, kLineBytes);
  p.row_factors_at = p.scales_at + round_up(E * p.num_scale_blocks * p.block_scale_bytes, kLineBytes);
  p.bytes = p.row_factors_at + E * p.num_blocks * kBlockRows * static_cast<int64_t>(sizeof(float));
  return p;
}

// Nibbles k = 0 … 7 from the low end become 0, 4, 1, 5, 2, 6, 3, 7.
uint32_t interleave_nibbles(uint32_t word) {
  const auto spread = [](uint32_t half) {
    half = (half | (half << 8)) & 0x00FF00FFu;
    return (half | (half << 4)) & 0x0F0F0F0Fu;
  };
  return spread(word & 0xFFFFu) | (spread(word >> 16) << 4);
}

uint32_t deinterleave_nibbles(uint32_t word) {
  const auto gather = [](uint32_t bytes) {
    bytes &= 0x0F0F0F0Fu;
    bytes = (bytes | (bytes >> 4)) & 0x00FF00FFu;
    return (bytes | (bytes >> 8)) & 0xFFFFu;
  };
  return gather(word) | (gather(word >> 4) << 16);
}

constexpr uint32_t kSignBits = 0x80808080u;  // signed bytes to bytes plus 128, and back

// 4 bytes of a row of `size`, zeros past its end.
uint32_t load_lane(const uint8_t* row, int64_t at, int64_t size) {
  uint32_t word = 0;
  if (at < size) std::memcpy(&word, row + at, static_cast<size_t>(std::min<int64_t>(4, size - at)));
  return word;
}

// A group of zeros may have the scale 2^-127, and a float32 multiplication by a subnormal takes 150 cycles: any scale
// serves as well there.
bool is_zero_group(const uint8_t* codes, int64_t size) {
  return std::all_of(codes, codes + size, [](uint8_t byte) { return (byte & 0x77) == 0; });
}

// Of up to 16 rows.
template <class Layout>
void pack_scales(std::span<const CanonicalRow> rows, int64_t K, uint8_t* out) {
  const int64_t num_groups = (K + Layout::scale_k - 1) / Layout::scale_k;
  const int64_t row_bytes = num_groups * Layout::scale_line_bytes / kBlockRows;
  constexpr int64_t unit = Layout::has_byte_scales ? 1 : 2;
  const auto num_rows = std::ssize(rows);
  const int64_t num_pieces = num_rows == kBlockRows ? row_bytes / 16 : 0;
  if (num_pieces > 0) {
    const uint8_t* scales[kBlockRows];
    for (int r = 0; r < kBlockRows; r++) scales[r] = rows[static_cast<size_t>(r)].scales;
    cpu_kernels().interleave_rows(scales, num_pieces, unit == 1 ? RowUnit::bytes : RowUnit::halves, out);
  }
  for (int64_t at = 16 * num_pieces; at < row_bytes; at += unit)
    for (int64_t r = 0; r < num_rows; r++)
      std::memcpy(out + at * kBlockRows + r * unit, rows[static_cast<size_t>(r)].scales + at, unit);
  if constexpr (Layout::scale == ScaleKind::e8m0) {
    for (int64_t r = 0; r < num_rows; r++) {
      const CanonicalRow& row = rows[static_cast<size_t>(r)];
      const auto next_subnormal = [&](int64_t g) {
        const void* found = std::memchr(row.scales + g, 0, static_cast<size_t>(num_groups - g));
        return found == nullptr ? num_groups : static_cast<const uint8_t*>(found) - row.scales;
      };
      for (int64_t g = next_subnormal(0); g < num_groups; g = next_subnormal(g + 1)) {
        const int64_t first = g * kGroup / 2, last = std::min(first + kGroup / 2, (K + 1) / 2);
        if (is_zero_group(row.codes + first, last - first)) out[g * kBlockRows + r] = kE8m0Bias;
      }
    }
  }
}

// The scales of rows that share them. Where all their codes are zeros any scale will do: see is_zero_group.
template <class Layout>
void pack_shared_scales(std::span<const CanonicalRow> rows, int64_t K, uint8_t* out) {
  if constexpr (Layout::scale == ScaleKind::e8m0) std::memset(out, kE8m0Bias, static_cast<size_t>(round_up(K, kGroup)));
  for (int64_t k = 0; k < K; k++)
    if (std::ranges::any_of(rows, [&](const CanonicalRow& row) { return (nibble_at(row.codes, k) & 7) != 0; }))
      out[k] = rows[0].scales[k];
}

template <class Layout>
constexpr RowUnit code_unit() {
  switch (Layout::code_bits) {
    case 4: return RowUnit::nibbles;
    case 8: return RowUnit::signed_bytes;
    case 16: return RowUnit::halves;
    default: return RowUnit::floats;
  }
}

// `rows` are up to 16, of K weights; scales that they share are packed apart.
template <class Format>
void pack_block(std::span<const CanonicalRow> rows, int64_t K, uint8_t* codes, uint8_t* scales, float* row_factors) {
  using Layout = PackedLayout<Format>;
  const int num_rows = static_cast<int>(rows.size());
  const int64_t row_bytes = code_bytes<Format>(K);
  // All but the last bytes of 16 rows at once.
  const int64_t num_pieces = num_rows == kBlockRows ? row_bytes / 16 : 0;
  const uint8_t* row_codes[kBlockRows];
  for (int r = 0; r < num_rows; r++) row_codes[r] = rows[static_cast<size_t>(r)].codes;
  if (num_pieces > 0) cpu_kernels().interleave_rows(row_codes, num_pieces, code_unit<Layout>(), codes);
  if constexpr (Layout::is_float) {
    constexpr int size = Layout::code_bits / 8;
    for (int64_t k = 16 / size * num_pieces; k < K; k++)
      for (int r = 0; r < num_rows; r++)
        std::memcpy(codes + (k * kBlockRows + r) * size, rows[static_cast<size_t>(r)].codes + k * size, size);
  } else {
    const int64_t num_lines = round_up(K, kGroup) / Layout::line_k;
    for (int64_t i = 4 * num_pieces; i < num_lines; i++) {
      for (int r = 0; r < kBlockRows; r++) {
        const uint32_t word = r < num_rows ? load_lane(rows[static_cast<size_t>(r)].codes, 4 * i, row_bytes) : 0;
        const uint32_t lane = Layout::is_nibble ? interleave_nibbles(word) : word ^ kSignBits;
        std::memcpy(codes + i * kLineBytes + 4 * r, &lane, 4);
      }
    }
  }
  for (int r = 0; r < num_rows; r++) row_factors[r] = rows[static_cast<size_t>(r)].tensor_scale;
  if constexpr (Layout::is_transposed) return;
  if constexpr (Layout::scale == ScaleKind::e8m0) {
    if (num_rows < kBlockRows)
      std::memset(scales, kE8m0Bias, static_cast<size_t>(round_up(K, kGroup) / kGroup * Layout::scale_line_bytes));
  }
  if constexpr (Layout::scale != ScaleKind::none) pack_scales<Layout>(rows, K, scales);
}

// Packs blocks of all experts.
class BlockPacker {
 public:
  BlockPacker(const CanonicalWeight& weight, const PackedMatrix& packed)
      : weight_(weight),
        packed_(packed),
        row_codes_(code_bytes(packed.format, weight.K)),
        row_scales_(scale_bytes(packed.format, weight.K)),
        converter_(weight.format, weight.K),
        stored_(weight) {
    if (!is_converted()) return;
    codes_.resize(static_cast<size_t>(kBlockRows * row_codes_));
    scales_.resize(static_cast<size_t>(kBlockRows * row_scales_));
  }

  void pack(int64_t block, uint8_t* codes, uint8_t* scales, float* row_factors) {
    const int64_t e = block / packed_.num_blocks, first_row = block % packed_.num_blocks * kBlockRows;
    const auto num_rows = static_cast<int>(std::min<int64_t>(kBlockRows, weight_.N - first_row));
    CanonicalRow rows[kBlockRows];
    for (int r = 0; r < num_rows; r++) {
      rows[r] = stored_.checked_row(e, first_row + r);
      if (is_converted())
        rows[r] = converter_.convert(rows[r], codes_.data() + r * row_codes_, scales_.data() + r * row_scales_);
    }
    visit_format(CpuFormats{}, packed_.format, [&](auto tag) {
      using Format = decltype(tag);
      pack_block<Format>({rows, static_cast<size_t>(num_rows)}, weight_.K, codes, scales, row_factors);
      if constexpr (constexpr int64_t group = group_rows<Format>(); group > 1) {
        if (first_row % group != 0) return;
        std::vector<CanonicalRow> sharing;
        for (int64_t n = first_row; n < std::min(first_row + group, weight_.N); n++)
          sharing.push_back(stored_.row(e, n));
        pack_shared_scales<PackedLayout<Format>>(sharing, weight_.K, scales);
      }
    });
  }

 private:
  bool is_converted() const { return packed_.format != weight_.format; }

  const CanonicalWeight& weight_;
  const PackedMatrix& packed_;
  int64_t row_codes_, row_scales_;  // bytes of a row, as packed
  RowConverter converter_;
  CanonicalRows stored_;
  std::vector<uint8_t> codes_, scales_;  // of 16 rows that were converted
};

std::shared_ptr<const uint8_t> room_for(const CanonicalWeight& w, const WorkerPool* pool, HugePageArena* arena) {
  const auto bytes = static_cast<size_t>(planes_of(cpu_format(w.format), w.E, w.N, w.K).bytes);
  const bool one_team = pool == nullptr || pool->teams().size() == 1;
  if (one_team && arena != nullptr) return arena->allocate(bytes);
  // A huge page would hold rows of several teams where there are experts: each has only some rows of each of them.
  auto buffer = std::make_shared<const Buffer>(bytes, one_team || w.E == 1);
  return {buffer, buffer->data()};
}

}  // namespace

PackPlan plan_pack(FormatId format, int64_t E, int64_t N, int64_t K) {
  const FormatId packed = cpu_format(format);
  return {.format = packed,
          .layout = "16 rows interleaved",
          .kernel = std::string(cpu_kernels().name),
          .bytes = planes_of(packed, E, N, K).bytes};
}

std::vector<Range> blocks_to_pack(int64_t E, int64_t num_blocks, std::span<const WorkerTeam> teams, int worker) {
  const WorkerTeam& team = *std::ranges::find_if(teams, [&](const WorkerTeam& t) { return worker < t.last; });
  const Range of_team = team_range(num_blocks, 1, team, teams.back().last);
  const int64_t width = of_team.last - of_team.first;
  const auto [first, last] = worker_range(E * width, 1, worker - team.first, team.last - team.first);
  std::vector<Range> ranges;
  for (int64_t i = first, next; i < last; i = next) {
    next = std::min(last, (i / width + 1) * width);
    const int64_t at = i / width * num_blocks + of_team.first + i % width;
    if (ranges.empty() || ranges.back().last != at) ranges.push_back({at, at});
    ranges.back().last = at + next - i;
  }
  return ranges;
}

PackedMatrix::PackedMatrix(FormatId canonical_format, int64_t num_experts, int64_t num_rows, int64_t num_columns,
                           std::shared_ptr<const uint8_t> from)
    : planes_(std::move(from)) {
  format = cpu_format(canonical_format);
  E = num_experts;
  N = num_rows;
  K = num_columns;
  const Planes planes = planes_of(format, E, N, K);
  bytes = planes.bytes;
  num_blocks = planes.num_blocks;
  num_scale_blocks = planes.num_scale_blocks;
  block_code_bytes = planes.block_code_bytes;
  block_scale_bytes = planes.block_scale_bytes;
  codes = planes_.get();
  scales = codes + planes.scales_at;
  row_factors = reinterpret_cast<const float*>(codes + planes.row_factors_at);
}

PackedMatrix::PackedMatrix(const CanonicalWeight& weight, WorkerPool* pool, HugePageArena* arena)
    : PackedMatrix(weight.format, weight.E, weight.N, weight.K, room_for(weight, pool, arena)) {
  const int64_t sharing = std::max(group_rows(format) / kBlockRows, 1);  // blocks
  const auto scale_block = [&](int64_t block) {
    return block / num_blocks * num_scale_blocks + block % num_blocks / sharing;
  };
  auto* const to = const_cast<uint8_t*>(codes);  // of a buffer that is ours
  const auto pack_blocks = [&](BlockPacker& packer, Range blocks) {
    for (int64_t i = blocks.first; i < blocks.last; i++)
      packer.pack(i, to + i * block_code_bytes, to + (scales - codes) + scale_block(i) * block_scale_bytes,
                  const_cast<float*>(row_factors) + i * kBlockRows);
  };
  if (pool == nullptr) {
    BlockPacker packer(weight, *this);
    pack_blocks(packer, {0, E * num_blocks});
    return;
  }
  const int64_t piece_blocks = std::max<int64_t>(1, kPieceBytes / (block_code_bytes + block_scale_bytes));
  PieceQueues queues(pool->teams());
  std::vector<Range> pieces;  // of all workers
  for (int worker = 0; worker < pool->num_threads(); worker++) {
    const int64_t first_piece = std::ssize(pieces);
    for (const auto [first, last] : blocks_to_pack(E, num_blocks, pool->teams(), worker))
      for (int64_t i = first; i < last; i += piece_blocks) pieces.push_back({i, std::min(last, i + piece_blocks)});
    queues.fill(worker, {first_piece, std::ssize(pieces)});
  }
  std::mutex mutex;
  std::exception_ptr failure;  // a worker must not throw
  pool->run([&](int worker) {
    try {
      BlockPacker packer(weight, *this);
      for (int64_t i; (i = queues.take(worker)) >= 0;) pack_blocks(packer, pieces[static_cast<size_t>(i)]);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

void unpack_row(const PackedMatrix& m, int64_t e, int64_t n, float* out) {
  const int64_t block = e * m.num_blocks + n / kBlockRows;
  const int r = static_cast<int>(n % kBlockRows);
  const uint8_t* codes = m.codes + block * m.block_code_bytes;
  const float row_factor = m.row_factors[block * kBlockRows + r];

  // Back to the format's own bytes, 128 k (whole groups of any format) at a time, so that the format decodes them.
  constexpr int kChunk = 128;
  visit_format(CpuFormats{}, m.format, [&](auto tag) {
    using Format = decltype(tag);
    using Layout = PackedLayout<Format>;
    const int64_t scale_block = e * m.num_scale_blocks + n / kBlockRows / Layout::scale_blocks;
    const uint8_t* scales = m.scales + scale_block * m.block_scale_bytes;
    uint8_t row_codes[kChunk * 4], row_scales[kChunk];
    for (int64_t first = 0; first < m.K; first += kChunk) {
      const int count = static_cast<int>(std::min<int64_t>(kChunk, m.K - first));
      if constexpr (Layout::is_float) {
        constexpr int size = Layout::code_bits / 8;
        for (int k = 0; k < count; k++)
          std::memcpy(row_codes + k * size, codes + ((first + k) * kBlockRows + r) * size, size);
      } else {
        for (int i = 0; i < (count + Layout::line_k - 1) / Layout::line_k; i++) {
          uint32_t lane;
          std::memcpy(&lane, codes + (first / Layout::line_k + i) * kLineBytes + 4 * r, 4);
          const uint32_t word = Layout::is_nibble ? deinterleave_nibbles(lane) : lane ^ kSignBits;
          std::memcpy(row_codes + 4 * i, &word, 4);
        }
        if constexpr (Layout::is_transposed) std::copy_n(scales + first, count, row_scales);
        for (int g = 0; !Layout::is_transposed && g < (count + Layout::scale_k - 1) / Layout::scale_k; g++) {
          const uint8_t* line = scales + (first / Layout::scale_k + g) * Layout::scale_line_bytes;
          if constexpr (Layout::scale == ScaleKind::half_and_minimum) {
            std::memcpy(row_scales + 4 * g, line + 2 * r, 2);
            std::memcpy(row_scales + 4 * g + 2, line + 32 + 2 * r, 2);
          } else {
            constexpr int size = Format::group_scale_bytes;
            std::memcpy(row_scales + size * g, line + size * r, size);
          }
        }
      }
      for (int k = 0; k < count; k++) out[first + k] = Format::decode(row_codes, row_scales, k) * row_factor;
    }
  });
}

}  // namespace nibble

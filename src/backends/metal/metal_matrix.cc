#include "backends/metal/metal_matrix.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>

#include "weights/convert.h"

namespace nibble {

namespace {

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

template <class Format>
struct MetalLayout {
  static constexpr bool is_nibble = Format::code_bits == 4;
  // A group of more than a chunk has its scale once for each of them.
  static constexpr int64_t chunk_scale_bytes = Format::group_size < kChunk
                                                   ? Format::group_scale_bytes * (kChunk / Format::group_size)
                                                   : Format::group_scale_bytes;
  static constexpr bool is_e2m1 = is_nibble && Format::id != FormatId::q4_0 && Format::id != FormatId::q4_1;
  // E2M1 bits in a half's place are 2^-14 of the value, E4M3's 2^-8.
  static constexpr float unit = (is_e2m1 ? 0x1p14f : 1.0f) * (Format::id == FormatId::nvfp4 ? 0x1p8f : 1.0f);
};
// Formats without scales have groups of one.
template <class Format>
constexpr int64_t scale_bytes_of_chunk() {
  return Format::group_scale_bytes == 0 ? 0 : MetalLayout<Format>::chunk_scale_bytes;
}

struct Layout {
  PackedMatrixArguments arguments;
  int64_t bytes;
};

Layout layout_of(FormatId format, int64_t E, int64_t N, int64_t K) {
  const int64_t chunks = (K + kChunk - 1) / kChunk;
  int64_t code_row = 0, scale_row = 0;
  visit_format(KernelFormats{}, format, [&](auto tag) {
    using Format = decltype(tag);
    code_row = chunks * kChunk * Format::code_bits / 8;
    scale_row = chunks * scale_bytes_of_chunk<Format>();
  });
  const int64_t scales_at = round_up(E * N * code_row, 64), factors_at = scales_at + round_up(E * N * scale_row, 64);
  return {.arguments = {.scales_at = static_cast<uint64_t>(scales_at),
                        .factors_at = static_cast<uint64_t>(factors_at),
                        .N = static_cast<uint32_t>(N),
                        .num_chunks = static_cast<uint32_t>(chunks),
                        .code_row_bytes = static_cast<uint32_t>(code_row),
                        .scale_row_bytes = static_cast<uint32_t>(scale_row)},
          .bytes = factors_at + E * N * static_cast<int64_t>(sizeof(float))};
}

// Nibbles 0, 2, 4, 6 of a word, then 1, 3, 5, 7.
uint32_t part_neighbours(uint32_t word) {
  const auto even = [](uint32_t bits) {
    bits &= 0x0F0F0F0Fu;
    bits = (bits | (bits >> 4)) & 0x00FF00FFu;
    return (bits | (bits >> 8)) & 0xFFFFu;
  };
  return even(word) | (even(word >> 4) << 16);
}

template <class Format>
void pack_row(const CanonicalRow& row, int64_t K, uint8_t* codes, uint8_t* scales) {
  std::memcpy(codes, row.codes, static_cast<size_t>(code_bytes<Format>(K)));
  if constexpr (MetalLayout<Format>::is_nibble) {
    for (int64_t at = 0; at < code_bytes<Format>(K); at += 4) {
      const uint32_t word = part_neighbours(load_unaligned<uint32_t>(codes + at));
      std::memcpy(codes + at, &word, 4);
    }
  }
  if constexpr (Format::group_size <= static_cast<int>(kChunk)) {
    if (scale_bytes<Format>(K) > 0) std::memcpy(scales, row.scales, static_cast<size_t>(scale_bytes<Format>(K)));
  } else {
    for (int64_t k = 0; k < K; k += kChunk)
      std::memcpy(scales + k / kChunk * Format::group_scale_bytes,
                  row.scales + k / Format::group_size * Format::group_scale_bytes, Format::group_scale_bytes);
  }
}

}  // namespace

std::string_view metal_format_name(FormatId packed_format) {
  switch (packed_format) {
    case FormatId::mxfp4: return "mxfp4";
    case FormatId::nvfp4: return "nvfp4";
    case FormatId::fp4_half_32:
    case FormatId::fp4_half_64:
    case FormatId::fp4_half_128: return "fp4_half";
    case FormatId::q4_0: return "q4_0";
    case FormatId::q4_1: return "q4_1";
    case FormatId::q8_0: return "q8_0";
    case FormatId::f16: return "f16";
    case FormatId::bf16: return "bf16";
    default: return "f32";  // kernel_format gives no other
  }
}

PackPlan plan_metal_pack(FormatId format, int64_t E, int64_t N, int64_t K) {
  const FormatId packed = kernel_format(format);
  return {.format = packed,
          .layout = "rows of chunks of 32",
          .kernel = std::string(metal_format_name(packed)),
          .bytes = layout_of(packed, E, N, K).bytes};
}

MetalMatrix::MetalMatrix(FormatId file_format, int64_t num_experts, int64_t num_rows, int64_t num_columns) {
  format = kernel_format(file_format);
  E = num_experts;
  N = num_rows;
  K = num_columns;
  const Layout layout = layout_of(format, E, N, K);
  arguments = layout.arguments;
  bytes = layout.bytes;
}

MetalMatrix::MetalMatrix(const CanonicalWeight& weight, MetalDevice& device, WorkerPool& pool)
    : MetalMatrix(weight.format, weight.E, weight.N, weight.K) {
  buffer = device.make_buffer(static_cast<size_t>(bytes));

  const CanonicalRows rows(weight);
  const auto pack_rows = [&](int64_t first, int64_t last) {
    const bool is_converted = format != weight.format;
    RowConverter converter(weight.format, K);
    std::vector<uint8_t> codes(static_cast<size_t>(code_bytes(format, K)));
    std::vector<uint8_t> scales(static_cast<size_t>(scale_bytes(format, K)));
    visit_format(KernelFormats{}, format, [&](auto tag) {
      using Format = decltype(tag);
      for (int64_t i = first; i < last; i++) {
        CanonicalRow row = rows.checked_row(i / N, i % N);
        if (is_converted) row = converter.convert(row, codes.data(), scales.data());
        pack_row<Format>(row, K, buffer->data() + i * arguments.code_row_bytes,
                         buffer->data() + arguments.scales_at + i * arguments.scale_row_bytes);
        buffer->as<float>()[arguments.factors_at / sizeof(float) + static_cast<uint64_t>(i)] =
            row.tensor_scale * MetalLayout<Format>::unit;
      }
    });
  };
  std::mutex mutex;
  std::exception_ptr failure;  // a worker must not throw
  pool.run([&](int worker) {
    try {
      const auto [first, last] = worker_range(E * N, 1, worker, pool.num_threads());
      pack_rows(first, last);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

MetalVector::MetalVector(std::span<const float> values, MetalDevice& device) {
  format = FormatId::f32;
  E = N = 1;
  K = static_cast<int64_t>(values.size());
  bytes = static_cast<int64_t>(values.size_bytes());
  buffer = device.make_buffer(values.size_bytes());
  if (!values.empty()) std::memcpy(buffer->data(), values.data(), values.size_bytes());
}

}  // namespace nibble

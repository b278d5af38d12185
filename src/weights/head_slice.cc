// Slices of a matrix by heads (HeadSlice): rows as they are, or transposed.
#include <algorithm>
#include <type_traits>

#include "base/memory.h"
#include "weights/importer_core.h"

namespace nibble {

namespace {

// Rows [first_row, first_row + N) of each head, their bytes unchanged.
void copy_rows(const CanonicalWeight& w, const MatrixRequest& r, uint8_t* codes, uint8_t* scales) {
  const auto row_codes = static_cast<size_t>(code_bytes(w.format, w.K));
  const auto row_scales = static_cast<size_t>(scale_bytes(w.format, w.K));
  const CanonicalRows rows(w);
  for (int64_t e = 0; e < r.E; e++) {
    for (int64_t n = 0; n < r.N; n++, codes += row_codes, scales += row_scales) {
      const CanonicalRow row = rows.row(0, e * r.heads.head_rows + r.heads.first_row + n);
      std::memcpy(codes, row.codes, row_codes);
      if (row_scales > 0) std::memcpy(scales, row.scales, row_scales);
    }
  }
}

// The codes and scales of [K, N] for each head become those of [N, K], unchanged.
void transpose_fp4(const CanonicalWeight& w, const MatrixRequest& r, FormatId format, uint8_t* codes, uint8_t* scales) {
  const int64_t row_codes = code_bytes(format, r.K), row_scales = scale_bytes(format, r.K);
  const int64_t num_groups = scale_bytes(w.format, r.N);
  const CanonicalRows rows(w);
  for (int64_t e = 0; e < r.E; e++, codes += r.N * row_codes, scales += num_groups * row_scales) {
    for (int64_t k = 0; k < r.K; k++) {
      const CanonicalRow row = rows.row(0, e * r.heads.head_rows + r.heads.first_row + k);
      for (int64_t n = 0; n < r.N; n++) set_nibble(codes + n * row_codes, k, nibble_at(row.codes, n));
      for (int64_t g = 0; g < num_groups; g++) scales[g * row_scales + k] = row.scales[g];
    }
  }
}

// [K, N] of each head becomes [N, K], element_of(row, n) in place of each weight.
template <class ElementOf>
void transpose(const CanonicalWeight& w, const MatrixRequest& r, ElementOf element_of, uint8_t* codes) {
  constexpr int64_t kTileRows = 128;  // that are written to: a line of each stays in the cache
  const CanonicalRows rows(w);
  for (int64_t e = 0; e < r.E; e++) {
    for (int64_t first = 0; first < r.N; first += kTileRows) {
      for (int64_t k = 0; k < r.K; k++) {
        const CanonicalRow row = rows.row(0, e * r.heads.head_rows + r.heads.first_row + k);
        for (int64_t n = first; n < std::min(r.N, first + kTileRows); n++) {
          const auto element = element_of(row, n);
          std::memcpy(codes + ((e * r.N + n) * r.K + k) * static_cast<int64_t>(sizeof element), &element,
                      sizeof element);
        }
      }
    }
  }
}

// Without the tensor scale, in transposed_format(w.format).
void transpose_floats(const CanonicalWeight& w, const MatrixRequest& r, uint8_t* codes) {
  visit_format(w.format, [&](auto tag) {
    using Format = decltype(tag);
    if constexpr (std::is_same_v<Format, F16> || std::is_same_v<Format, Bf16>) {
      transpose(
          w, r, [](const CanonicalRow& row, int64_t n) { return load_unaligned<uint16_t>(row.codes + 2 * n); }, codes);
    } else {
      const auto value_of = [](const CanonicalRow& row, int64_t n) { return Format::decode(row.codes, row.scales, n); };
      if constexpr (std::is_same_v<Format, Fp8>) {
        transpose(w, r, [&](const CanonicalRow& row, int64_t n) { return float_to_bf16(value_of(row, n)); }, codes);
      } else {
        transpose(w, r, value_of, codes);
      }
    }
  });
}

}  // namespace

FormatId transposed_format(FormatId format) {
  switch (format) {
    case FormatId::mxfp4: return FormatId::mxfp4_transposed;
    case FormatId::nvfp4: return FormatId::nvfp4_transposed;
    case FormatId::fp8:  // E4M3's 4 significant bits fit bfloat16's 8
    case FormatId::bf16: return FormatId::bf16;
    case FormatId::f16: return FormatId::f16;
    default: return FormatId::f32;
  }
}

MatrixRequest sliced_matrix(const MatrixRequest& r) {
  return {.name = r.name, .N = r.E * r.heads.head_rows, .K = r.heads.transposed ? r.N : r.K};
}

CanonicalWeight slice_heads(const CanonicalWeight& weight, const MatrixRequest& r) {
  const FormatId format = r.heads.transposed ? transposed_format(weight.format) : weight.format;
  const auto all_codes = static_cast<size_t>(r.E * r.N * code_bytes(format, r.K));
  const auto all_scales = static_cast<size_t>(r.E * scale_bytes(format, r.N, r.K));
  const auto bytes = std::make_shared<const Buffer>(all_codes + all_scales);
  uint8_t* codes = bytes->data();
  uint8_t* scales = codes + all_codes;
  if (!r.heads.transposed) {
    copy_rows(weight, r, codes, scales);
  } else if (group_rows(format) > 1) {
    transpose_fp4(weight, r, format, codes, scales);
  } else {
    transpose_floats(weight, r, codes);
  }
  return {.format = format,
          .E = r.E,
          .N = r.N,
          .K = r.K,
          .codes = {codes, all_codes},
          .scales = {scales, all_scales},
          .parts = {{0, std::vector<float>(static_cast<size_t>(r.E), weight.parts.front().tensor_scale.front())}},
          .storage = bytes};
}

}  // namespace nibble

// The list of all formats, and the one place where a format known at run time becomes a type.
// A new format is one header, one value of FormatId, and one line in AllFormats.
#pragma once

#include <array>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "formats/affine.h"
#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/f32.h"
#include "formats/fp4_half.h"
#include "formats/fp8.h"
#include "formats/iq4_nl.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/transposed_fp4.h"

namespace nibble {

template <class... Formats>
struct FormatList {};

using AllFormats =
    FormatList<F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Iq4Nl, Mxfp4, Nvfp4, Transposed<Mxfp4>,
               Transposed<Nvfp4>, Fp4Half<32>, Fp4Half<64>, Fp4Half<128>, Fp8, Fp8Scaled, Affine<4, 32>, Affine<4, 64>,
               Affine<4, 128>, Affine<8, 32>, Affine<8, 64>, Affine<8, 128>>;

// The ids of a list's formats, in its order.
template <class... Formats>
constexpr std::array<FormatId, sizeof...(Formats)> format_ids(FormatList<Formats...>) {
  return {Formats::id...};
}
inline constexpr auto kAllFormatIds = format_ids(AllFormats{});

// Calls visit(Format{}) with the format of that id, which is in the list, and returns what it returns.
template <class... Formats, class Visit>
auto visit_format(FormatList<Formats...>, FormatId id, Visit&& visit) {
  using Result = std::common_type_t<decltype(visit(Formats{}))...>;
  if constexpr (std::is_void_v<Result>) {
    const bool found = ((Formats::id == id && (visit(Formats{}), true)) || ...);
    if (!found) throw_input_error("format number {} does not exist here", static_cast<int>(id));
  } else {
    std::optional<Result> result;
    const bool found = ((Formats::id == id && (result.emplace(visit(Formats{})), true)) || ...);
    if (!found) throw_input_error("format number {} does not exist here", static_cast<int>(id));
    return *std::move(result);
  }
}

// The same with all formats.
template <class Visit>
auto visit_format(FormatId id, Visit&& visit) {
  return visit_format(AllFormats{}, id, std::forward<Visit>(visit));
}

inline std::string_view format_name(FormatId id) {
  return visit_format(id, [](auto format) { return decltype(format)::name; });
}

inline int64_t code_bytes(FormatId id, int64_t K) {
  return visit_format(id, [&](auto format) { return code_bytes<decltype(format)>(K); });
}

inline int64_t scale_bytes(FormatId id, int64_t K) {
  return visit_format(id, [&](auto format) { return scale_bytes<decltype(format)>(K); });
}

// Whether codes may be NaN or infinite, as floats may: Format::is_finite tells.
inline bool is_float(FormatId id) {
  return visit_format(id, [](auto format) { return requires { format.is_finite(nullptr, 0); }; });
}

inline int group_size(FormatId id) {
  return visit_format(id, [](auto format) { return decltype(format)::group_size; });
}

// Consecutive rows that share their scales.
inline int group_rows(FormatId id) {
  return visit_format(id, [](auto format) { return group_rows<decltype(format)>(); });
}

// Bytes of the scales of N rows of K weights.
inline int64_t scale_bytes(FormatId id, int64_t N, int64_t K) {
  const int64_t rows = group_rows(id);
  return (N + rows - 1) / rows * scale_bytes(id, K);
}

inline bool has_tensor_scale(FormatId id) {
  return visit_format(id, [](auto format) { return decltype(format)::has_tensor_scale; });
}

}  // namespace nibble

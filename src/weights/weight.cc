#include "weights/weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "base/error.h"
#include "base/pieces.h"

namespace nibble {

namespace {

// Without a branch inside, which would keep the loop from being vectorised.
template <class IsGood>
bool all_good(int64_t begin, int64_t end, IsGood is_good) {
  bool good = true;
  for (int64_t i = begin; i < end; i++) good &= is_good(i);
  return good;
}

// The first index below `count` of which is_good is false; `count` if there is none. By several threads where it is much.
template <class IsGood>
int64_t find_bad(int64_t count, IsGood is_good) {
  constexpr int64_t kPiece = int64_t{4} << 20, kBlock = 4096;
  std::atomic<int64_t> first_bad = count;
  const auto look = [&](int64_t begin, int64_t end) {
    if (all_good(begin, end, is_good)) return true;
    while (is_good(begin)) begin++;
    int64_t before = first_bad;
    while (begin < before && !first_bad.compare_exchange_weak(before, begin)) {}
    return false;
  };
  for_each_piece(static_cast<size_t>((count + kPiece - 1) / kPiece), kReaders, [&](size_t piece, size_t) {
    const int64_t first = static_cast<int64_t>(piece) * kPiece, last = std::min(count, first + kPiece);
    for (int64_t at = first; at < last && look(at, std::min(last, at + kBlock)); at += kBlock) {}
  });
  return first_bad;
}

// Throws NotFinite if a float is not finite.
void throw_if_not_finite(const CanonicalWeight& w) {
  visit_format(w.format, [&](auto format) {
    using Format = decltype(format);
    if constexpr (requires { Format::is_finite(nullptr, 0); }) {
      const uint8_t* const codes = w.codes.data();
      const int64_t count = w.E * w.N * w.K;
      const int64_t bad = find_bad(count, [=](int64_t k) { return Format::is_finite(codes, k); });
      if (bad < count)
        throw NotFinite(without_control_characters(
            fmt::format("{}: element {} is {}, a finite number expected; the file is damaged", w.unchecked_floats, bad,
                        Format::decode(codes, nullptr, bad))));
    }
  });
}

}  // namespace

CanonicalRows::CanonicalRows(const CanonicalWeight& w)
    : weight_(w),
      row_codes_(code_bytes(w.format, w.K)),
      row_scales_(scale_bytes(w.format, w.K)),
      expert_scales_(scale_bytes(w.format, w.N, w.K)),
      group_rows_(group_rows(w.format)) {}

CanonicalRow CanonicalRows::row(int64_t e, int64_t n) const {
  const CanonicalWeight& w = weight_;
  size_t part = w.parts.size() - 1;
  while (w.parts[part].first_row > n) part--;
  const CanonicalWeight& of = holder(e);
  const int64_t expert = w.experts.empty() ? e : 0;
  return {of.codes.data() + (expert * w.N + n) * row_codes_,
          of.scales.data() + expert * expert_scales_ + n / group_rows_ * row_scales_,
          w.parts[part].tensor_scale[static_cast<size_t>(e)]};
}

CanonicalRow CanonicalRows::checked_row(int64_t e, int64_t n) const {
  const CanonicalRow found = row(e, n);
  const CanonicalWeight& of = holder(e);
  if (!of.unchecked_floats.empty()) {
    visit_format(of.format, [&](auto format) {
      if constexpr (requires { format.is_finite(nullptr, 0); }) {
        const uint8_t* const codes = found.codes;
        if (!all_good(0, of.K, [=](int64_t k) { return decltype(format)::is_finite(codes, k); }))
          throw_if_not_finite(of);
      }
    });
  }
  return found;
}

void decode_row(const CanonicalWeight& w, int64_t e, int64_t n, float* out) {
  const CanonicalRow row = CanonicalRows(w).row(e, n);
  visit_format(w.format, [&](auto format) {
    for (int64_t k = 0; k < w.K; k++) out[k] = format.decode(row.codes, row.scales, k) * row.tensor_scale;
  });
}

void check_weight(const CanonicalWeight& w, std::string_view name, std::string_view codes_name) {
  const auto expect = [&](std::string_view what, size_t bytes, int64_t expert_bytes) {
    const auto expected = static_cast<size_t>(w.E * expert_bytes);
    if (bytes != expected)
      throw_input_error("{}: {} bytes of {}, {} expected for {} of shape [{}, {}, {}]", name, bytes, what, expected,
                        format_name(w.format), w.E, w.N, w.K);
  };
  expect("codes", w.codes.size(), w.N * code_bytes(w.format, w.K));
  expect("scales", w.scales.size(), scale_bytes(w.format, w.N, w.K));

  visit_format(w.format, [&](auto format) {
    using Format = decltype(format);
    if constexpr (Format::group_scale_bytes > 0) {
      constexpr int64_t size = Format::group_scale_bytes;
      const int64_t count = std::ssize(w.scales) / size;
      const uint8_t* const scales = w.scales.data();
      const int64_t bad = find_bad(count, [=](int64_t i) { return Format::is_valid_scale(scales + i * size); });
      if (bad < count) {
        std::string bytes;  // as a number: the last byte first
        for (int64_t j = size; j-- > 0;) bytes += fmt::format("{:02x}", scales[bad * size + j]);
        throw_input_error(
            "{}: scale {} is 0x{}, which is NaN, infinite or negative: not a scale of {}; the file is damaged or in "
            "another format",
            name, bad, bytes, Format::name);
      }
    }
  });
  visit_format(w.format, [&](auto format) {
    using Format = decltype(format);
    if constexpr (requires { Format::is_valid_code(uint8_t{}); }) {
      const uint8_t* const codes = w.codes.data();
      const int64_t bad = find_bad(std::ssize(w.codes), [=](int64_t i) { return Format::is_valid_code(codes[i]); });
      if (bad < std::ssize(w.codes))
        throw_input_error("{}: code {} is 0x{:02x}, which is NaN in {}; the file is damaged",
                          codes_name.empty() ? name : codes_name, bad, codes[bad], Format::name);
    }
  });
  for (const Part& part : w.parts)
    for (float scale : part.tensor_scale)
      if (!std::isfinite(scale))
        throw_input_error("{}: the tensor scale of rows from {} on is {}, a finite number expected", name,
                          part.first_row, scale);
}

void check_floats(CanonicalWeight& w) {
  if (!w.unchecked_floats.empty()) throw_if_not_finite(w);
  w.unchecked_floats.clear();
  for (CanonicalWeight& expert : w.experts) check_floats(expert);
}

}  // namespace nibble

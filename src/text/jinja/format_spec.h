// The specifications of Python's two ways to put values into a text: fill, sign, width, precision and type of one place.
#pragma once

#include <cstdint>
#include <string>

#include "text/jinja/value.h"

namespace nibble::jinja {

constexpr int kMaxWidth = 100'000;    // of a field
constexpr int kMaxPrecision = 1'000;  // digits behind the point

// The specification of a field, as far as both kinds of formatting share it.
struct FormatSpec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, or 0 for the type's own
  char sign = '-';
  bool is_alternate = false;
  int width = -1, precision = -1;
  char grouping = 0;  // , or _
  char type = 0;
};

// A number of a specification at `at`, which it steps over; -1 if there is none. Fails above `limit`.
int take_number(const std::string& text, size_t& at, int limit);

// `sign` and `body`, filled up to the width: < behind, > before, ^ on both sides, = between the two.
std::string pad(const std::string& sign, const std::string& body, const FormatSpec& spec, char align);

// In base 16 (x, X), 8 (o), 2 (b) or 10.
std::string integer_digits(uint64_t number, char type);

// The digits of |number| as C's printf writes them.
std::string float_digits(double number, const FormatSpec& spec, char type);

uint64_t magnitude(int64_t number);

// "-", or what `sign` puts before other numbers.
std::string sign_text(bool is_negative, char sign);

// The first characters of `text`, if there is a precision.
void keep_precision(std::string& text, const FormatSpec& spec);

// The character with this code point. Fails, saying `what` wants it, if there is none.
std::string character_of(int64_t code, std::string_view what);

// format(value, spec): fill and alignment, sign, '#', '0', width, ',' or '_', precision and type.
std::string format_value(const Value& value, const std::string& spec, Budget& budget);

}  // namespace nibble::jinja

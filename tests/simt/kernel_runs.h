// What the tests of shaders share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "simt/metal/kernels.h"

namespace nibble::simt {

// Vectors and plain values as buffers 0, 1, …
template <class T>
BoundBuffer bound(std::vector<T>& v) {
  return {v.data(), v.size() * sizeof(T)};
}
template <class T>
BoundBuffer bound(T& value) {
  return {&value, sizeof value};
}
template <class... T>
Arguments buffers_of(T&... values) {
  Arguments arguments;
  int i = 0;
  ((arguments.buffers[i++] = bound(values)), ...);
  return arguments;
}

// The message of the InputError that f throws; empty if it throws none.
template <class F>
std::string fault_in(F f) {
  try {
    f();
    return "";
  } catch (const InputError& e) {
    return e.what();
  }
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace nibble::simt

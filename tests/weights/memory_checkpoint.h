// A checkpoint made of bytes in memory, for tests that say what each byte is.
#pragma once

#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "weights/importer.h"

namespace nibble {

using Bytes = std::vector<uint8_t>;

template <class T>
Bytes bytes_of(std::initializer_list<T> values) {
  const auto* first = reinterpret_cast<const uint8_t*>(values.begin());
  return {first, first + values.size() * sizeof(T)};
}

// `count` bytes without pattern: 37 i + 11 modulo 256.
inline Bytes some_bytes(size_t count) {
  Bytes bytes(count);
  for (size_t i = 0; i < count; i++) bytes[i] = static_cast<uint8_t>(37 * i + 11);
  return bytes;
}

struct MemoryCheckpoint {
  explicit MemoryCheckpoint(Container container, nlohmann::json config = nlohmann::json::object()) {
    checkpoint->container = container;
    checkpoint->path = "model";
    checkpoint->config = std::move(config);
  }

  MemoryCheckpoint& add(const std::string& name, DType dtype, std::vector<int64_t> shape, Bytes bytes) {
    storage.push_back(std::move(bytes));
    checkpoint->tensors.insert_or_assign(name, Tensor{name, dtype, std::move(shape), storage.back()});
    return *this;
  }

  std::unique_ptr<WeightSource> open() const { return make_importer(checkpoint); }

  std::deque<Bytes> storage;
  std::shared_ptr<Checkpoint> checkpoint = std::make_shared<Checkpoint>();
};

inline std::vector<float> decoded(const CanonicalWeight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.E * weight.N * weight.K));
  for (int64_t row = 0; row < weight.E * weight.N; row++)
    decode_row(weight, row / weight.N, row % weight.N, values.data() + row * weight.K);
  return values;
}

// The message of the InputError that `call` throws; empty if it throws none.
template <class Call>
std::string input_error(Call&& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

// A request by a safetensors file's name.
inline MatrixRequest matrix(const std::string& name, int64_t N, int64_t K) {
  return {.name = {name, ""}, .N = N, .K = K};
}

// What reading `request` says is wrong; empty if nothing is.
inline std::string error_of(const MemoryCheckpoint& file, const MatrixRequest& request) {
  return input_error([&] { file.open()->read(request); });
}

}  // namespace nibble

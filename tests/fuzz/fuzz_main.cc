// libFuzzer's entry points for the target NIBBLE_FUZZ_TARGET.
#include <algorithm>
#include <cstring>

#include "fuzz/targets.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

const nibble::FuzzTarget& target() {
  static const nibble::FuzzTarget& found =
      *std::ranges::find(nibble::fuzz_targets(), NIBBLE_FUZZ_TARGET, &nibble::FuzzTarget::name);
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target().run({data, size});
  return 0;
}

// One in three changes is libFuzzer's own: it knows which bytes were compared with what.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  nibble::Random random(seed);
  if (target().damage == nullptr || random.one_in(3)) return LLVMFuzzerMutate(data, size, max_size);
  std::string input(reinterpret_cast<const char*>(data), size);
  target().damage(input, random);
  if (input.empty() || input.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, input.data(), input.size());
  return input.size();
}

#include "backends/metal/choose_token.h"

#include <algorithm>

namespace nibble {

namespace {

uint32_t divide_up(uint32_t count, uint32_t unit) { return (count + unit - 1) / unit; }

template <class T>
std::span<const uint8_t> bytes_of(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}

constexpr uint32_t kListsOfMerge = kSlice / kCandidates;

}  // namespace

TokenChooser::TokenChooser(MetalBinding logits, int64_t vocab_size, MetalBinding next_token, MetalDevice& device,
                           MetalKernels& kernels)
    : device_(device) {
  const auto kernel = [&](const char* name) { return &kernels.get(name, {}); };
  const auto N = static_cast<uint32_t>(vocab_size), num_slices = divide_up(N, kSlice);
  arguments_ = {.N = N, .num_slices = num_slices};
  constexpr size_t kPair = 2 * sizeof(uint32_t);
  best_ = device.make_buffer(num_slices * kPair);
  lists_ = device.make_buffer(num_slices * kCandidates * kPair);
  other_lists_ = device.make_buffer(divide_up(num_slices, kListsOfMerge) * kCandidates * kPair);
  masses_ = device.make_buffer(num_slices * kPair);
  draws_ = device.make_buffer(kMostAhead * sizeof(float));
  chosen_ = device.make_buffer(kMostAhead * sizeof(int32_t));

  const std::span<const uint8_t> arguments = bytes_of(arguments_);
  greedy_ = {{kernel("best_of_slices"), arguments, {logits, {best_.get(), 0}}, num_slices, kChooseThreads}};
  sampled_ = {{kernel("slice_candidates"),
               arguments,
               {logits, {lists_.get(), 0}, {masses_.get(), 0}},
               num_slices,
               kChooseThreads}};
  for (uint32_t lists = num_slices; lists > 1; lists = divide_up(lists, kListsOfMerge)) merges_.push_back({lists});
  const MetalBuffer *from = lists_.get(), *to = other_lists_.get();
  for (const MergeArguments& merge : merges_) {
    sampled_.push_back({kernel("merge_candidates"),
                        bytes_of(merge),
                        {{from, 0}, {to, 0}},
                        divide_up(merge.num_lists, kListsOfMerge),
                        kChooseThreads});
    std::swap(from, to);
  }
  for (size_t i = 0; i < kMostAhead; i++) {
    const MetalBinding chosen{chosen_.get(), i * sizeof(int32_t)}, draw{draws_.get(), i * sizeof(float)};
    last_greedy_.push_back({kernel("take_best"), arguments, {{best_.get(), 0}, next_token, chosen}, 1, kChooseThreads});
    last_sampled_.push_back(
        {kernel("draw_token"), arguments, {{from, 0}, {masses_.get(), 0}, draw, next_token, chosen}, 1, kCandidates});
  }
}

bool TokenChooser::knows(const TokenChoice& choice, int64_t vocab_size) {
  return choice.temperature == 0 || choice.top_k <= int64_t{kCandidates} || choice.top_k >= vocab_size;
}

void TokenChooser::prepare(const TokenChoice& choice, std::span<const double> draws) {
  is_greedy_ = choice.temperature == 0;
  arguments_.top_k = choice.top_k >= int64_t{arguments_.N} ? 0 : static_cast<uint32_t>(choice.top_k);
  arguments_.temperature = choice.temperature;
  arguments_.top_p = choice.top_p;
  arguments_.min_p = choice.min_p;
  std::ranges::transform(draws, draws_->as<float>(), [](double draw) { return static_cast<float>(draw); });
}

void TokenChooser::encode(size_t i) {
  for (const Dispatch& dispatch : is_greedy_ ? greedy_ : sampled_) run(dispatch);
  run((is_greedy_ ? last_greedy_ : last_sampled_)[i]);
}

void TokenChooser::run(const Dispatch& d) {
  device_.barrier();
  device_.dispatch({.kernel = d.kernel,
                    .arguments = d.arguments,
                    .buffers = d.buffers,
                    .threadgroups = {d.threadgroups},
                    .threads = d.threads});
}

int64_t TokenChooser::read(std::span<int32_t> tokens) const {
  const auto* chosen = chosen_->as<int32_t>();
  int64_t num_sure = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    const bool is_sure = chosen[i] >= 0;  // else the complement of a token
    tokens[i] = is_sure ? chosen[i] : ~chosen[i];
    if (is_sure && num_sure == static_cast<int64_t>(i)) num_sure++;
  }
  return num_sure;
}

int64_t TokenChooser::bytes() const {
  size_t bytes = 0;
  for (const auto* buffer : {&best_, &lists_, &other_lists_, &masses_, &draws_, &chosen_}) bytes += (*buffer)->size();
  return static_cast<int64_t>(bytes);
}

}  // namespace nibble

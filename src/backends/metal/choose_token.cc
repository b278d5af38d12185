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

TokenChooser::TokenChooser(const Rows& rows, MetalDevice& device, MetalKernels& kernels)
    : device_(device), num_rows_(static_cast<size_t>(rows.num_rows)) {
  const auto kernel = [&](const char* name) { return &kernels.get(name, {}); };
  const auto N = static_cast<uint32_t>(rows.vocab_size), num_slices = divide_up(N, kSlice);
  arguments_ = {.N = N, .logits_stride = static_cast<uint32_t>(rows.stride), .num_slices = num_slices};
  constexpr size_t kPair = 2 * sizeof(uint32_t);
  best_ = device.make_buffer(num_rows_ * num_slices * kPair);
  lists_ = device.make_buffer(num_rows_ * num_slices * kCandidates * kPair);
  other_lists_ = device.make_buffer(num_slices > 1 ? lists_->size() : 0);
  masses_ = device.make_buffer(num_rows_ * num_slices * kPair);
  draws_ = device.make_buffer(num_rows_ * kMostAhead * sizeof(float));
  chosen_ = device.make_buffer(num_rows_ * kMostAhead * sizeof(int32_t));

  const std::span<const uint8_t> arguments = bytes_of(arguments_);
  const auto num_rows = static_cast<uint32_t>(num_rows_);
  greedy_ = {
      {kernel("best_of_slices"), arguments, {rows.logits, {best_.get(), 0}}, {num_slices, num_rows}, kChooseThreads}};
  sampled_ = {{kernel("slice_candidates"),
               arguments,
               {rows.logits, {lists_.get(), 0}, {masses_.get(), 0}},
               {num_slices, num_rows},
               kChooseThreads}};
  for (uint32_t lists = num_slices; lists > 1; lists = divide_up(lists, kListsOfMerge))
    merges_.push_back({lists, num_slices});
  const MetalBuffer *from = lists_.get(), *to = other_lists_.get();
  for (const MergeArguments& merge : merges_) {
    sampled_.push_back({kernel("merge_candidates"),
                        bytes_of(merge),
                        {{from, 0}, {to, 0}},
                        {divide_up(merge.num_lists, kListsOfMerge), num_rows},
                        kChooseThreads});
    std::swap(from, to);
  }
  for (size_t i = 0; i < kMostAhead; i++) {
    const MetalBinding chosen{chosen_.get(), i * num_rows_ * sizeof(int32_t)};
    const MetalBinding draws{draws_.get(), i * num_rows_ * sizeof(float)};
    last_greedy_.push_back(
        {kernel("take_best"), arguments, {{best_.get(), 0}, rows.next_tokens, chosen}, {num_rows}, kChooseThreads});
    last_sampled_.push_back({kernel("draw_token"),
                             arguments,
                             {{from, 0}, {masses_.get(), 0}, draws, rows.next_tokens, chosen},
                             {num_rows},
                             kCandidates});
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
                    .threadgroups = d.threadgroups,
                    .threads = d.threads});
}

int64_t TokenChooser::read(std::span<int32_t> tokens) const {
  const auto* chosen = chosen_->as<int32_t>();
  size_t num_sure = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    const bool is_sure = chosen[i] >= 0;  // else the complement of a token
    tokens[i] = is_sure ? chosen[i] : ~chosen[i];
    if (is_sure && num_sure == i) num_sure++;
  }
  return static_cast<int64_t>(num_sure / num_rows_);
}

int64_t TokenChooser::bytes() const {
  size_t bytes = 0;
  for (const auto* buffer : {&best_, &lists_, &other_lists_, &masses_, &draws_, &chosen_}) bytes += (*buffer)->size();
  return static_cast<int64_t>(bytes);
}

}  // namespace nibble

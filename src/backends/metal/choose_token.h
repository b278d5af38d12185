// The choice of the next token of each sequence on the device: dispatches that follow those of a step and leave a token where the next step
// reads its own (choose.metal).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/metal/metal_device.h"
#include "backends/metal/metal_kernels.h"
#include "ops/token_choice.h"

namespace nibble {

class TokenChooser {
 public:
  // Where a step has the logits of `num_rows` tokens, and where the next one reads their successors, ints. Both outlive the
  // chooser.
  struct Rows {
    MetalBinding logits;  // [num_rows, vocab_size]
    int64_t num_rows, stride, vocab_size;
    MetalBinding next_tokens;  // [num_rows]
  };
  TokenChooser(const Rows& rows, MetalDevice& device, MetalKernels& kernels);

  // Whether the kernels have such a choice: the best token, or one of all or of the top_k <= kCandidates best.
  static bool knows(const TokenChoice& choice, int64_t vocab_size);

  // Up to kMostAhead choices of one command buffer: draws[i * num_rows + m], in [0, 1), belongs to choice i of row m.
  void prepare(const TokenChoice& choice, std::span<const double> draws);
  // Encodes choice i, with the barriers before and within it.
  void encode(size_t i);
  // After the command buffer: the tokens, and of how many choices, the first ones, all rows are what the host would choose.
  int64_t read(std::span<int32_t> tokens) const;

  int64_t bytes() const;  // of its buffers

 private:
  struct Dispatch {
    const MetalKernel* kernel;
    std::span<const uint8_t> arguments;
    std::vector<MetalBinding> buffers;
    MetalSize threadgroups;
    uint32_t threads;
  };
  void run(const Dispatch& dispatch);

  MetalDevice& device_;
  const size_t num_rows_;
  ChooseArguments arguments_{};
  std::vector<MergeArguments> merges_;
  std::unique_ptr<MetalBuffer> best_, lists_, other_lists_, masses_, draws_, chosen_;
  std::vector<Dispatch> greedy_, sampled_;            // all but the last, which differs from choice to choice
  std::vector<Dispatch> last_greedy_, last_sampled_;  // [kMostAhead]
  bool is_greedy_ = true;
};

}  // namespace nibble

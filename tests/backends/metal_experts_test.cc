// Experts of several tokens on Metal: their pairs, sorted by expert, four at a time.
#include <map>

#include <fmt/format.h>

#include "backends/experts_program.h"
#include "backends/metal/metal_backend.h"
#include "backends/metal_devices.h"
#include "backends/packed_program.h"
#include "weights/convert.h"

namespace nibble {
namespace {

TEST(MetalExperts, OfSeveralTokens) {
  for (const auto& [M, E, top_k] : {std::array<int64_t, 3>{2, 9, 3}, {5, 4, 2}, {13, 1, 1}, {11, 7, 7}}) {
    for (const bool clamped : {false, true}) {
      SCOPED_TRACE(fmt::format("M {} E {} top_k {} clamped {}", M, E, top_k, clamped));
      const StepProgram p = experts_program(M, E, top_k, FormatId::bf16, FormatId::bf16, clamped);
      expect_reference(p, p.one_run(), 2e-5f);
    }
  }
  const StepProgram apart = experts_program(6, 4, 3, FormatId::f32, FormatId::bf16, true);
  expect_reference(apart, apart.one_run(), 2e-5f);
}

TEST(MetalExperts, InEveryFormat) {
  for (FormatId format : format_ids(KernelFormats{})) {
    SCOPED_TRACE(format_name(format));
    const StepProgram p = experts_program(3, 2, 1, format, format, false);
    expect_reference(p, p.one_run(), 2e-5f);
  }
}

// The bits are those of a token alone, which goes by other kernels.
TEST(MetalExperts, ATokenDoesNotDependOnItsNeighbours) {
  for (const bool clamped : {false, true}) {
    const auto program = [&](int64_t M) { return experts_program(M, 5, 3, FormatId::bf16, FormatId::f32, clamped); };
    for (const int32_t more : {2, 3, 9}) expect_no_neighbours(program, 1, more);
    expect_no_neighbours(program, 6, 20);
  }
}

// Counts how often dispatches of a run read an expert's matrix, by kernel.
class ExpertReads final : public MetalDevice {
 public:
  using Counts = std::map<std::string, int64_t>;
  ExpertReads(std::unique_ptr<MetalDevice> device, Counts& counts) : device_(std::move(device)), counts_(counts) {}

  std::string description() const override { return device_->description(); }
  std::unique_ptr<MetalBuffer> make_buffer(size_t bytes) override { return device_->make_buffer(bytes); }
  std::unique_ptr<MetalKernel> make_kernel(std::string_view name, const FunctionConstants& constants) override {
    auto kernel = device_->make_kernel(name, constants);
    names_[kernel.get()] = name;
    return kernel;
  }
  void begin() override { device_->begin(); }
  void dispatch(const MetalDispatch& d) override {
    device_->dispatch(d);
    const std::string& name = names_.at(d.kernel);
    if (name.ends_with("_mxfp4") && name.find("_pairs") != name.npos)
      pieces_.emplace_back(name, d.buffers[d.buffers.size() - 2].buffer, d.threadgroups.y);
  }
  void barrier() override { device_->barrier(); }
  void finish() override {
    device_->finish();
    for (const auto& [name, pieces, most] : pieces_)
      for (uint32_t i = 0; i < most; i++) counts_[name] += pieces->as<uint32_t>()[4 * i + 2] > 0 ? 1 : 0;
    pieces_.clear();
  }

 private:
  std::unique_ptr<MetalDevice> device_;
  Counts& counts_;
  std::map<const MetalKernel*, std::string> names_;
  std::vector<std::tuple<std::string, const MetalBuffer*, uint32_t>> pieces_;
};

TEST(MetalExperts, AnExpertIsReadOnceForFourOfItsTokens) {
  // All 11 tokens choose expert 3, some expert 0, the others 5.
  constexpr int64_t M = 11, E = 6, N = 16, K = 32;
  StepProgram p(M);
  std::vector<float> chosen;
  for (int m = 0; m < M; m++) chosen.insert(chosen.end(), {3, m % 3 == 0 ? 0.0f : 5.0f});
  const Slice x = p.random_input("x", K, M), hidden = p.step.buffer("hidden", 2 * N);
  const Slice experts = p.step.buffer("experts", 2), weights = p.random_input("weights", 2, M);
  p.step.embed({.w = p.rows(chosen, 2), .out = experts});
  p.step.logits = p.random_input("out", K, M);
  const auto matrices = [&](int64_t rows, int64_t columns, uint32_t seed) {
    return p.matrix(random_weight(FormatId::mxfp4, E, rows, columns, 1, seed));
  };
  p.step.moe_gate_up({.x = x, .gate = matrices(N, K, 1), .up = matrices(N, K, 2), .experts = experts, .out = hidden});
  p.step.moe_down(
      {.x = hidden, .down = matrices(K, N, 3), .experts = experts, .expert_weights = weights, .out = p.step.logits});
  expect_reference(p, p.one_run(), 2e-5f);

  ExpertReads::Counts counts;
  const auto backend = make_metal_backend(std::make_unique<ExpertReads>(std::move(devices_under_test()[0]), counts), 1);
  PackedProgram packed(p, *backend);
  packed.run(p.one_run()[0]);
  // 11, 7 and 4 pairs; a pair each would be 22.
  EXPECT_EQ(counts, (ExpertReads::Counts{{"gate_up_pairs_mxfp4", 3 + 2 + 1}, {"moe_down_pairs_mxfp4", 3 + 2 + 1}}));
}

}  // namespace
}  // namespace nibble

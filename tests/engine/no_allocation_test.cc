// A decode step allocates nothing, nor does dispatch_gemm_fp4: the program's allocations are counted.
#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/sampler.h"
#include "goldens.h"
#include "nibble/dispatch_gemm_fp4.h"

namespace {

std::atomic<int64_t> num_allocations{0};

void* count_and_allocate(size_t size, size_t alignment) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  size = (size + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, size == 0 ? alignment : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return count_and_allocate(size, alignof(std::max_align_t)); }
void* operator new(size_t size, std::align_val_t alignment) {
  return count_and_allocate(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace nibble {
namespace {

template <class Work>
int64_t allocations_of(Work work) {
  const int64_t before = num_allocations;
  work();
  return num_allocations - before;
}

TEST(NoAllocation, TheCounterCounts) {
  std::vector<double> values;
  EXPECT_EQ(allocations_of([&] { values.resize(1000); }), 1);
  EXPECT_EQ(allocations_of([&] { ::operator delete(::operator new(64, std::align_val_t{64}), std::align_val_t{64}); }),
            1);
}

// From the first call on, which chooses the kernels: so this comes before what loads a model.
TEST(NoAllocation, DispatchGemmFp4) {
  constexpr int64_t N = 32, K = 64;
  const std::vector<Half> A(2 * K), scales(K / 32 * N);
  const std::vector<uint32_t> B(K / 8 * N);
  std::vector<float> C(2 * N);
  for (const int64_t M : {1, 2}) {
    const GemmFp4 gemm{.M = M,
                       .N = N,
                       .K = K,
                       .group_size = 32,
                       .A = A.data(),
                       .B = B.data(),
                       .scales = scales.data(),
                       .C_float = C.data()};
    GemmStatus status{};
    EXPECT_EQ(allocations_of([&] { status = dispatch_gemm_fp4(gemm); }), 0);
    EXPECT_EQ(status, GemmStatus::ok);
  }
}

// The project's own models and, where the second set is there, one of it for each kind of layer.
std::vector<std::filesystem::path> models() {
  std::vector<std::filesystem::path> paths;
  for (const char* name :
       {"llama-modelopt-nvfp4", "llama-ct-mxfp4", "llama-floats-sharded", "qwen3-bf16", "deepseek_v3-groups"})
    paths.push_back(kModels / name);
  for (const char* name : {"qwen3_moe-ct-nvfp4", "gpt_oss-mxfp4", "deepseek_v3-modelopt-nvfp4"}) {
    const auto path = std::filesystem::path(NIBBLE_FIXTURES) / "checkpoints" / name;
    if (std::filesystem::exists(path)) paths.push_back(path);
  }
  return paths;
}

TEST(NoAllocation, DecodeAndSampling) {
  for (const std::filesystem::path& model : models()) {
    const Golden golden = read_golden(model);
    for (int num_threads : {1, 2}) {
      SCOPED_TRACE(fmt::format("{}, {} threads", golden.name, num_threads));
      Engine engine = open_engine(golden.model, "cpu", num_threads);
      Session session(engine);
      const SamplingOptions options{
          .repetition_penalty = 1.1f, .temperature = 1, .top_k = 20, .top_p = 0.9f, .seed = 1};
      Sampler sampler(options, engine.model().config.vocab_size);
      std::span<const float> logits = session.prefill(golden.prompt);
      const int64_t count = allocations_of([&] {
        for (int i = 0; i < 20; i++) {
          const int32_t token = sampler.sample(logits);
          sampler.accept(token);
          logits = session.decode(token);
        }
      });
      EXPECT_EQ(count, 0);
    }
  }
}

TEST(NoAllocation, ASecondPromptOfTheSameLength) {
  const Golden golden = read_golden(kModels / "llama-gguf-q4_1");
  Engine engine = open_engine(golden.model, "cpu", 2);
  Session session(engine);
  session.prefill(golden.prompt);
  session.truncate(0);
  EXPECT_EQ(allocations_of([&] { session.prefill(golden.prompt); }), 0);
}

}  // namespace
}  // namespace nibble

// What the executor costs on one OS thread: a thread, a rendezvous, a launch, a step of a tiny model, a GEMV. Not built by
// default: cmake --build build/release --target simt_bench
#include <chrono>
#include <cstdio>

#include "simt/collectives.h"
#include "simt/kernel_runs.h"

namespace nibble::simt {
namespace {

template <class F>
double best_seconds(F f) {
  double best = 1e9;
  for (int i = 0; i < 7; i++) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

constexpr uint32_t kThreads = 1 << 20, kTimes = 16;
float values[kThreads];

void bench_threads(uint32_t threads) {
  const Launch how{.threadgroups = {kThreads / threads}, .threads = {threads}};
  const auto position = [threads] { return current_lane->threadgroup->position.x * threads + current_lane->index; };
  const double plain = best_seconds([&] { launch(how, [&] { values[position()] += 1; }); });
  // At one call site, as in a loop of a kernel: the processor then knows where a lane goes on.
  const double shuffles = best_seconds([&] {
    launch(how, [&] {
      float& v = values[position()];
#pragma clang loop unroll(disable)
      for (uint32_t i = 0; i < kTimes; i++) v += shuffle(v, current_lane->lane ^ 1, kActiveLanes, Site::here());
    });
  });
  const double barriers = best_seconds([&] {
    launch(how, [&] {
#pragma clang loop unroll(disable)
      for (uint32_t i = 0; i < kTimes; i++) barrier(Site::here());
    });
  });
  const auto ns = [&](double seconds) { return (seconds - plain) / kThreads / kTimes * 1e9; };
  std::printf("threadgroups of %4u: %.1f ns a thread; per thread: shuffle %.1f ns, barrier %.1f ns\n", threads,
              plain / kThreads * 1e9, ns(shuffles), ns(barriers));
}

// 40 launches, 51,200 threads, 358,400 rendezvous.
void bench_step() {
  const double seconds = best_seconds([] {
    for (int i = 0; i < 30; i++)
      launch({.threadgroups = {8}, .threads = {128}}, [] {
        float v = 1;
        v = shuffle(v, current_lane->lane ^ 1, kActiveLanes, Site::here());
        values[current_lane->index] = v;
      });
    for (int i = 0; i < 10; i++)
      launch({.threadgroups = {8}, .threads = {256}}, [] {
        float v = 1;
        for (int j = 0; j < 8; j++) {
          v += shuffle(v, current_lane->lane ^ 1, kActiveLanes, Site::here());
          barrier(Site::here());
        }
        values[current_lane->index] = v;
      });
  });
  std::printf("a step of 40 launches: %.2f ms\n", seconds * 1e3);
}

void bench_gemv() {
  uint32_t M = 1, N = 2048, K = 2048, group_size = 32;
  std::vector<_Float16> A(K), C(N), scales(size_t{K} / group_size * N);
  std::vector<uint32_t> B(size_t{K} / 8 * N, 0x12345678);
  const Arguments arguments = buffers_of(A, B, scales, C, M, N, K, group_size);
  const Pipeline pipeline = make_pipeline("decode_gemv_fp4_wide");
  const double seconds = best_seconds([&] { dispatch(pipeline, arguments, {.threadgroups = {4}, .threads = {128}}); });
  std::printf("decode_gemv_fp4_wide 2048x2048: %.2f ms, %.2f ns a weight\n", seconds * 1e3, seconds * 1e9 / N / K);
}

}  // namespace
}  // namespace nibble::simt

int main() {
  using namespace nibble::simt;
  for (const uint32_t threads : {32u, 128u, 1024u}) bench_threads(threads);
  const double empty = best_seconds([] {
    for (int i = 0; i < 1000; i++) launch({.threads = {32}}, [] {});
  });
  std::printf("a launch of 32 threads that do nothing: %.2f us\n", empty * 1e3);
  bench_step();
  bench_gemv();
}

// Attention on the CPU over caches of many chunks, which several workers may share.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/attention_program.h"
#include "backends/cpu/cpu_attention.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/random_floats.h"
#include "base/piece_queues.h"

namespace nibble {
namespace {

// Where many heads share a key, AMX's tiles take queries and softmax weights with 16 bits.
constexpr float kTilesTolerance = 1e-4f;

TEST(CpuAttention, ManyChunksInStepsOfAnySize) {
  constexpr int64_t kPositions = kAttendChunk + 64;
  for (const AttentionHeads& s : {AttentionHeads{5, 1, 20, 0}, {6, 3, 16, 0}, {4, 2, 33, 530}}) {
    for (const KvCacheType type : kKvCacheTypes) {
      SCOPED_TRACE(fmt::format("{}/{} heads of {}, window {}, {}", s.num_heads, s.num_kv_heads, s.head_dim, s.window,
                               kv_cache_type_name(type)));
      const StepProgram many = attention_program(s, 64, kPositions, type);
      const auto values = backend_values(many, steps_of(64, kPositions));
      expect_near(values, many.run(*make_reference_backend(), steps_of(64, kPositions)), attention_tolerance(type));
      const StepProgram one = attention_program(s, 1, kPositions, type);
      EXPECT_EQ(one.run(*make_cpu_backend(2), steps_of(1, kPositions)), values);
    }
  }
}

// 8 heads take a row of 8 bits together, then 4, then one; 40 and 72 columns are one group or two, and a piece of one.
TEST(CpuAttention, ManyHeadsOnOneOfEightBits) {
  for (const AttentionHeads& s : {AttentionHeads{13, 1, 40, 0}, {22, 2, 72, 9}}) {
    const StepProgram many = attention_program(s, 20, 40, KvCacheType::q8_0);
    const auto values = backend_values(many, steps_of(20, 40));
    expect_near(values, many.run(*make_reference_backend(), steps_of(20, 40)), attention_tolerance(KvCacheType::q8_0));
    const StepProgram one = attention_program(s, 1, 40, KvCacheType::q8_0);
    EXPECT_EQ(one.run(*make_cpu_backend(2), steps_of(1, 40)), values);
  }
}

TEST(CpuAttention, LatentsOfManyChunks) {
  constexpr int64_t kPositions = kAttendChunk + 48, kHeads = 11, kLatent = 40, kRope = 6;
  for (const KvCacheType type : {KvCacheType::f16, KvCacheType::q8_0}) {
    SCOPED_TRACE(kv_cache_type_name(type));
    StepProgram one(1), many(40);
    for (StepProgram* p : {&one, &many}) {
      const Slice q_latent = p->random_input("q_latent", kHeads * kLatent), q = p->random_input("q", kHeads * 9);
      const Slice k = p->random_input("k", kLatent + kRope);
      p->cache_shape = {.layers = {{kLatent + kRope, 0}}, .max_len = kPositions, .type = type};
      p->step.logits = p->step.buffer("out", kHeads * kLatent);
      p->step.kv_append({.k = k, .v = {k.buffer, 0, 0}, .layer = 0});
      p->step.latent_attention({.q_latent = q_latent,
                                .q = q,
                                .layer = 0,
                                .num_heads = kHeads,
                                .latent_dim = kLatent,
                                .rope_dim = kRope,
                                .scale = 0.2f,
                                .out = p->step.logits});
    }
    const auto values = backend_values(many, steps_of(40, kPositions));
    expect_near(values, many.run(*make_reference_backend(), steps_of(40, kPositions)),
                std::max(kTilesTolerance, attention_tolerance(type)));
    const auto alone = one.run(*make_cpu_backend(2), steps_of(1, kPositions));
    EXPECT_EQ(last_rows(alone, kHeads * kLatent, 40), last_rows(values, kHeads * kLatent, 40));
  }
}

// Whether the first one is to be merged, each worker asks for itself, of what the second one writes.
TEST(CpuAttention, TwoOfOneShapeMayFollowEachOther) {
  constexpr int64_t kPositions = 2 * kAttendChunk, kTokens = 8;
  for (const AttentionHeads& s : {AttentionHeads{2, 1, 16, 0}, {4, 2, 16, 0}}) {
    StepProgram p = attention_program(s, kTokens, kPositions, KvCacheType::f16);
    const int64_t width = s.num_heads * s.head_dim;
    p.step.logits = p.step.buffer("both", 2 * width);
    auto& first = std::get<AttentionOp>(p.step.ops.back());
    first.out = p.step.logits.columns(0, width);
    AttentionOp second = first;
    second.scale = 0.1f;
    second.out = p.step.logits.columns(width, width);
    p.step.attention(second);
    expect_reference(p, steps_of(kTokens, kPositions), attention_tolerance(KvCacheType::f16));
  }
}

TEST(CpuAttention, ChunksAreSharedOfFewTokensByManyWorkers) {
  const auto shares = [](int64_t M, int num_workers) {
    return shares_chunks({.M = M, .num_heads = 32, .num_kv_heads = 8}, num_workers);
  };
  EXPECT_FALSE(shares(1, 1));
  EXPECT_TRUE(shares(1, 2));
  EXPECT_TRUE(shares(8, 64));
  EXPECT_FALSE(shares(9, 64));
}

// Two tokens, of two sequences, whose positions end in different chunks.
struct SharedAttention {
  static constexpr int64_t kTokens = 2, kMaxLen = 4 * kAttendChunk, kHeadDim = 32;

  SharedAttention(const AttentionHeads& s, KvCacheType type)
      : shape{.M = kTokens,
              .num_heads = s.num_heads,
              .num_kv_heads = s.num_kv_heads,
              .head_dim = kHeadDim,
              .v_dim = kHeadDim,
              .window = s.window,
              .max_len = kMaxLen},
        cache({.layers = {{kHeadDim * s.num_kv_heads, kHeadDim * s.num_kv_heads, s.window, s.num_kv_heads}},
               .num_sequences = kTokens,
               .max_len = kMaxLen,
               .type = type,
               .spare = kMaxLen}),
        q(static_cast<size_t>(kTokens * s.num_heads * kHeadDim)),
        sinks(static_cast<size_t>(s.num_heads)) {
    std::mt19937 random(1);
    for (float& x : q) x = random_float(random);
    for (float& x : sinks) x = random_float(random);
    std::vector<float> row(kHeadDim);
    for (int64_t m = 0; m < kTokens; m++)
      for (int64_t head = 0; head < s.num_kv_heads; head++)
        for (int32_t p = 0; p <= pos[static_cast<size_t>(m)]; p++)
          for (const KvPlane& plane : {cache.k(0, m, head * kHeadDim), cache.v(0, m, head * kHeadDim)}) {
            for (float& x : row) x = random_float(random);
            float_kernels().store(row.data(), kHeadDim, type, plane.row(p));
          }
  }

  AttentionQuery query(int64_t m, std::vector<float>& out) const {
    const int64_t first = m * shape.num_heads * kHeadDim;
    return {.q = {{q.data() + first, kHeadDim, kHeadDim}, {}},
            .pos = pos[static_cast<size_t>(m)],
            .layer = 0,
            .sequence = m,
            .scale = 0.3f,
            .sinks = sinks.data(),
            .out = out.data() + first};
  }

  std::vector<float> alone() const {
    std::vector<float> out(q.size());
    const CpuAttention attention(shape, 1);
    for (int64_t m = 0; m < kTokens; m++) attention.attend(cache, query(m, out), {0, shape.num_kv_heads}, 0);
    return out;
  }

  // The workers take their pieces in an order of chance.
  std::vector<float> shared(int num_workers, unsigned seed) const {
    std::vector<float> out(q.size());
    CpuAttention attention(shape, num_workers);
    const KvCacheType type = cache.shape.type;
    const WorkerTeam team{0, num_workers, {}};
    PieceQueues queue({&team, 1});
    for (int worker = 0; worker < num_workers; worker++)
      queue.fill(worker, worker_range(attention.num_pieces(pos, type), 1, worker, num_workers));
    std::mt19937 random(seed);
    int64_t num_taken = 0;
    for (int misses = 0; misses < 50;) {
      // Some workers come more often than others.
      const int worker = static_cast<int>(random() % static_cast<unsigned>(num_workers) *
                                          (random() % static_cast<unsigned>(num_workers))) %
                         num_workers;
      const int64_t i = queue.take(worker), next = queue.peek(worker);
      if (i < 0) {
        misses++;
        continue;
      }
      num_taken++;
      const AttentionPiece piece = attention.piece(pos, type, i);
      attention.attend_piece(cache, query(piece.m, out), piece, next < 0 ? piece : attention.piece(pos, type, next),
                             worker);
    }
    EXPECT_EQ(num_taken, attention.num_pieces(pos, type));
    for (int worker = 0; worker < num_workers; worker++) attention.leave(worker);
    if (attention.needs_merge(pos))
      for (int64_t m = 0; m < kTokens; m++)
        for (int64_t unit = 0; unit < attention.num_merges(); unit++) attention.merge(query(m, out), m, unit);
    return out;
  }

  const std::vector<int32_t> pos = {4 * kAttendChunk - 5, kAttendChunk + 70};
  AttentionShape shape;
  CpuKvCache cache;
  std::vector<float> q, sinks;
};

TEST(CpuAttention, AnyWorkerMayTakeAnyPiece) {
  for (const AttentionHeads& s :
       {AttentionHeads{4, 2, 0, 0}, {8, 4, 0, 0}, {9, 1, 0, 0}, {6, 3, 0, 1200}, {8, 4, 0, 40}})
    for (const KvCacheType type : {KvCacheType::f16, KvCacheType::q8_0}) {
      const SharedAttention attention(s, type);
      const std::vector<float> expected = attention.alone();
      for (const int num_workers : {2, 3, 4, 8})
        for (unsigned seed = 0; seed < 5; seed++)
          ASSERT_EQ(attention.shared(num_workers, seed), expected)
              << fmt::format("{} heads on {}, window {}, {}, {} workers, seed {}", s.num_heads, s.num_kv_heads,
                             s.window, kv_cache_type_name(type), num_workers, seed);
    }
}

}  // namespace
}  // namespace nibble

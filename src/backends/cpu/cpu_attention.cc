#include "backends/cpu/cpu_attention.h"

#include <algorithm>

namespace nibble {

namespace {

// 10 MB of chunks' results a token for GLM-4.7-Flash at 131,072 positions.
constexpr int64_t kMostSharedTokens = 8;

int64_t num_slots(const AttentionShape& s) {
  const int64_t last_chunk = (s.max_len + kAttendChunk - 1) / kAttendChunk;
  return s.window > 0 ? std::min((s.window + kAttendChunk - 2) / kAttendChunk + 1, last_chunk) : last_chunk;
}

// Floats of a worker's own: what the kernel works in, then joined queries, then two lists of results.
int64_t kernel_scratch(const AttentionShape& s) { return float_kernels().attend_scratch(s.heads_per_kv(), s.head_dim); }
int64_t own_bytes(const AttentionShape& s) {
  return (kernel_scratch(s) + s.heads_per_kv() * (s.head_dim + 2 * (2 + s.v_dim))) * int64_t{sizeof(float)};
}

int64_t partials_bytes(const AttentionShape& s, int num_workers) {
  if (!shares_chunks(s, num_workers)) return 0;
  return s.M * num_slots(s) * s.num_heads * (2 + s.v_dim) * int64_t{sizeof(float)};
}

// Chunks' results lie in the caches of those who attended, far from each other.
constexpr int64_t kMergedAhead = 4;
// Columns of a head that are worth a worker of their own.
constexpr int64_t kFewestMerged = 64;

}  // namespace

AttentionShape attention_shape(const AttentionOp& op, int64_t M, int64_t max_len) {
  return {.M = M,
          .num_heads = op.num_heads,
          .num_kv_heads = op.num_kv_heads,
          .head_dim = op.head_dim,
          .v_dim = op.head_dim,
          .window = op.window,
          .max_len = max_len};
}

AttentionShape attention_shape(const LatentAttentionOp& op, int64_t M, int64_t max_len) {
  return {.M = M,
          .num_heads = op.num_heads,
          .num_kv_heads = 1,
          .head_dim = op.latent_dim + op.rope_dim,
          .v_dim = op.latent_dim,
          .window = 0,
          .max_len = max_len};
}

int64_t attention_bytes(const AttentionShape& shape, int num_workers) {
  return num_workers * own_bytes(shape) + partials_bytes(shape, num_workers);
}

bool shares_chunks(const AttentionShape& shape, int num_workers) {
  return num_workers > 1 && shape.M <= kMostSharedTokens;
}

CpuAttention::CpuAttention(const AttentionShape& s, int num_workers)
    : shape(s),
      shared(shares_chunks(s, num_workers)),
      num_workers_(num_workers),
      num_slots_(num_slots(s)),
      kernel_scratch_(kernel_scratch(s)),
      partials_(static_cast<size_t>(partials_bytes(s, num_workers))),
      num_merged_(shared ? static_cast<size_t>(s.M * s.num_heads) : 0),
      runs_(shared ? static_cast<size_t>(num_workers) : 0) {
  for (int worker = 0; worker < num_workers; worker++) own_.emplace_back(static_cast<size_t>(own_bytes(s)));
}

int64_t CpuAttention::scratch_bytes() const {
  size_t bytes = partials_.size();
  for (const Buffer& buffer : own_) bytes += buffer.size();
  return static_cast<int64_t>(bytes);
}

// The chunks that hold what a token at `pos` sees.
Range CpuAttention::chunks(int64_t pos) const {
  const int64_t first = shape.window > 0 ? std::max<int64_t>(pos + 1 - shape.window, 0) : 0;
  return {first / kAttendChunk, pos / kAttendChunk + 1};
}

Attended CpuAttention::partial(int64_t m, int64_t slot, int64_t head) const {
  float* at = partials_.as<float>() + (m * num_slots_ + slot) * shape.num_heads * (2 + shape.v_dim);
  return {at + head, at + shape.num_heads + head, at + 2 * shape.num_heads + head * shape.v_dim};
}

Attended CpuAttention::of_list(int worker, int list, int64_t h) const {
  const int64_t heads = shape.heads_per_kv();
  float* at = own(worker) + kernel_scratch_ + heads * (shape.head_dim + list * (2 + shape.v_dim));
  return {at + h, at + heads + h, at + 2 * heads + h * shape.v_dim};
}

void CpuAttention::finish(const AttentionQuery& query, const Attended& attended, int64_t head) const {
  kernels_.finish_attended(attended, query.sinks != nullptr ? query.sinks + head : nullptr, shape.v_dim,
                           query.out + head * shape.v_dim);
}

// Those of a chunk.
Range CpuAttention::positions(int64_t chunk, int64_t pos) const {
  const int64_t first_seen = shape.window > 0 ? std::max<int64_t>(pos + 1 - shape.window, 0) : 0;
  return {std::max(chunk * kAttendChunk, first_seen), std::min((chunk + 1) * kAttendChunk, pos + 1)};
}

// Where the kernels begin: not in the middle of positions that are interleaved.
int64_t CpuAttention::first_to_read(const CpuKvCache& cache, int64_t first_seen) const {
  const bool interleaved = cache.shape.type == KvCacheType::q8_0 && kernels_.interleaves_q8_0;
  return interleaved ? first_seen / kKvBlock * kKvBlock : first_seen;
}

void CpuAttention::attend_chunk(const CpuKvCache& cache, const AttentionQuery& query, ChunkOfHead at, ChunkOfHead next,
                                Range heads, bool same_queries, int worker, const Attended& to) const {
  const AttentionShape& s = shape;
  const auto [first_seen, last] = positions(at.chunk, query.pos);
  const int64_t first = first_to_read(cache, first_seen);
  const int64_t num_heads = heads.last - heads.first;
  float* scores = own(worker);
  const float* q = query.q[0].data + heads.first * query.q[0].stride;
  int64_t q_stride = query.q[0].stride;
  if (query.q[1].width > 0) {
    float* joined = scores + kernel_scratch_;
    for (int64_t h = 0; h < num_heads && !same_queries; h++)
      for (int64_t d = 0; const AttentionQuery::Piece& piece : query.q) {
        std::copy_n(piece.data + (heads.first + h) * piece.stride, piece.width, joined + h * s.head_dim + d);
        d += piece.width;
      }
    q = joined;
    q_stride = s.head_dim;
  }
  const auto keys = [&](int64_t kv_head) { return cache.k(query.layer, query.sequence, kv_head * s.head_dim); };
  const KvRun k = keys(at.kv_head).run(first);
  Range after = next == at ? Range{0, 0} : positions(next.chunk, query.pos);
  after.first = first_to_read(cache, after.first);
  kernels_.attend_chunk(
      {.q = q,
       .q_stride = q_stride,
       .num_heads = static_cast<int>(num_heads),
       .heads_of_key = static_cast<int>(s.heads_per_kv()),
       .k = k,
       .v = query.values_are_keys ? k : cache.v(query.layer, query.sequence, at.kv_head * s.v_dim).run(first),
       .type = cache.shape.type,
       .len = last - first,
       .head_dim = s.head_dim,
       .v_dim = s.v_dim,
       .skip = first_seen - first,
       .scale_log2 = query.scale * kLog2e,
       .same_queries = same_queries,
       .next_k = keys(next.kv_head).run(after.first),
       .next_len = after.last - after.first,
       .scores = scores,
       .largest = to.largest,
       .total = to.total,
       .out = to.out});
}

void CpuAttention::attend(const CpuKvCache& cache, const AttentionQuery& query, Range kv_heads, int worker) const {
  const int64_t heads = shape.heads_per_kv();
  const auto [first, last] = chunks(query.pos);
  for (int64_t kv_head = kv_heads.first; kv_head < kv_heads.last; kv_head++) {
    const Range own_heads{kv_head * heads, (kv_head + 1) * heads};
    for (int64_t chunk = first; chunk < last; chunk++) {
      const ChunkOfHead at{chunk, kv_head};
      const ChunkOfHead next = chunk + 1 < last              ? ChunkOfHead{chunk + 1, kv_head}
                               : kv_head + 1 < kv_heads.last ? ChunkOfHead{first, kv_head + 1}
                                                             : at;
      attend_chunk(cache, query, at, next, own_heads, chunk > first, worker,
                   chunk == first ? merged(worker, 0) : single(worker, 0));
      if (chunk == first) continue;
      for (int64_t h = 0; h < heads; h++) kernels_.merge_attended(merged(worker, h), single(worker, h), shape.v_dim);
    }
    for (int64_t h = 0; h < heads; h++) finish(query, merged(worker, h), own_heads.first + h);
  }
}

CpuAttention::Pieces CpuAttention::pieces(int64_t pos, KvCacheType type) const {
  const Range seen = chunks(pos);
  if (shape.num_kv_heads % num_workers_ == 0) return {.chunks = seen, .heads = shape.heads_per_kv(), .of_chunk = 1};
  const bool enough = shape.M * (seen.last - seen.first) * shape.num_kv_heads >= 2 * num_workers_;
  const HeadsOfCall of_call = kernels_.heads_of_call(type);
  const int64_t heads = enough ? of_call.many : of_call.few;
  return {.chunks = seen, .heads = heads, .of_chunk = (shape.heads_per_kv() + heads - 1) / heads};
}

int64_t CpuAttention::num_pieces(std::span<const int32_t> pos, KvCacheType type) const {
  int64_t of_head = 0;
  for (const int32_t p : pos) of_head += pieces(p, type).count();
  return shape.num_kv_heads * of_head;
}

AttentionPiece CpuAttention::piece(std::span<const int32_t> pos, KvCacheType type, int64_t i) const {
  const int64_t of_head = num_pieces(pos, type) / shape.num_kv_heads, kv_head = i / of_head;
  int64_t m = 0, left = i % of_head;
  for (int64_t count; left >= (count = pieces(pos[static_cast<size_t>(m)], type).count()); m++) left -= count;
  const Pieces p = pieces(pos[static_cast<size_t>(m)], type);
  const int64_t end = (kv_head + 1) * shape.heads_per_kv();
  const int64_t first = kv_head * shape.heads_per_kv() + left % p.of_chunk * p.heads;
  return {.m = m,
          .kv_head = kv_head,
          .chunk = p.chunks.first + left / p.of_chunk,
          .heads = {first, std::min(first + p.heads, end)}};
}

void CpuAttention::attend_piece(const CpuKvCache& cache, const AttentionQuery& query, const AttentionPiece& piece,
                                const AttentionPiece& next, int worker) {
  Run& run = runs_[static_cast<size_t>(worker)];
  const Range seen = chunks(query.pos);
  const int64_t slot = piece.chunk - seen.first, first_head = piece.heads.first;
  const int64_t num_heads = piece.heads.last - first_head;
  const bool same_queries = run.m == piece.m && run.heads.first == first_head;
  const bool continues = same_queries && slot > 0 && slot == run.num_chunks;
  if (!continues) leave(worker);
  const ChunkOfHead at{piece.chunk, piece.kv_head};
  const Attended to = slot == 0   ? merged(worker, 0)
                      : continues ? single(worker, 0)
                                  : partial(piece.m, slot, first_head);
  attend_chunk(cache, query, at, next.m == piece.m ? ChunkOfHead{next.chunk, next.kv_head} : at, piece.heads,
               same_queries, worker, to);
  run = {.m = piece.m, .heads = piece.heads, .num_chunks = slot == 0 || continues ? slot + 1 : 0};
  for (int64_t h = 0; continues && h < num_heads; h++)
    kernels_.merge_attended(merged(worker, h), single(worker, h), shape.v_dim);
  if (run.num_chunks < seen.last - seen.first) return;
  for (int64_t h = 0; h < num_heads; h++) {
    finish(query, merged(worker, h), first_head + h);
    num_merged_[index_of(piece.m, first_head + h)] = static_cast<int32_t>(run.num_chunks);
  }
  run.num_chunks = 0;
}

void CpuAttention::leave(int worker) {
  Run& run = runs_[static_cast<size_t>(worker)];
  for (int64_t h = run.heads.first; run.num_chunks > 0 && h < run.heads.last; h++) {
    const Attended from = merged(worker, h - run.heads.first), to = partial(run.m, 0, h);
    *to.largest = *from.largest;
    *to.total = *from.total;
    std::copy_n(from.out, shape.v_dim, to.out);
    num_merged_[index_of(run.m, h)] = static_cast<int32_t>(run.num_chunks);
  }
  run = {};
}

bool CpuAttention::needs_merge(std::span<const int32_t> pos) const {
  for (int64_t m = 0; m < shape.M; m++) {
    const Range seen = chunks(pos[static_cast<size_t>(m)]);
    for (int64_t h = 0; h < shape.num_heads; h++)
      if (num_merged_[index_of(m, h)] < seen.last - seen.first) return true;
  }
  return false;
}

int64_t CpuAttention::num_merges() const {
  int64_t parts = 1;
  while (shape.num_heads * parts < 2 * num_workers_ && shape.v_dim % (2 * parts * kFewestMerged) == 0) parts *= 2;
  return shape.num_heads * parts;
}

void CpuAttention::merge(const AttentionQuery& query, int64_t m, int64_t unit) const {
  const int64_t parts = num_merges() / shape.num_heads, h = unit / parts;
  const int64_t columns = shape.v_dim / parts, first_column = unit % parts * columns;
  const auto of_slot = [&](int64_t slot) {
    Attended attended = partial(m, slot, h);
    attended.out += first_column;
    return attended;
  };
  const Range seen = chunks(query.pos);
  const int64_t num_slots = seen.last - seen.first, num_merged = num_merged_[index_of(m, h)];
  if (num_merged == num_slots) return;
  const Attended first = of_slot(0);
  float largest = *first.largest, total = *first.total;  // not where other workers write those of their heads
  const Attended all{&largest, &total, first.out};
  for (int64_t slot = num_merged; slot < num_slots; slot++) {
    const Attended ahead = of_slot(std::min(slot + kMergedAhead, num_slots - 1));
    __builtin_prefetch(ahead.largest);
    __builtin_prefetch(ahead.total);
    for (int64_t i = 0; i < columns; i += kLineBytes / int64_t{sizeof(float)}) __builtin_prefetch(ahead.out + i);
    kernels_.merge_attended(all, of_slot(slot), columns);
  }
  kernels_.finish_attended(all, query.sinks != nullptr ? query.sinks + h : nullptr, columns,
                           query.out + h * shape.v_dim + first_column);
}

}  // namespace nibble

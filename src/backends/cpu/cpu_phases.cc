#include "backends/cpu/cpu_phases.h"

#include <algorithm>
#include <chrono>

namespace nibble {

namespace {
using Clock = std::chrono::steady_clock;
}  // namespace

CpuPhases::CpuPhases(WorkerPool& pool) : pool_(pool), asked_(static_cast<size_t>(pool.num_threads())) {}

void CpuPhases::run() {
  pool_.run([this](int worker) { run_phases(worker); });
}

int64_t CpuPhases::weight_bytes() const {
  int64_t bytes = 0;
  for (const CompiledPhase& phase : phases_) bytes += phase.info.weight_bytes;
  return bytes;
}

int64_t CpuPhases::last_weight_bytes() const {
  int64_t bytes = 0;
  for (const CompiledPhase& phase : phases_) bytes += phase.last_bytes();
  return bytes;
}

std::vector<Phase> CpuPhases::infos() const {
  std::vector<Phase> infos;
  for (const CompiledPhase& phase : phases_) infos.push_back(phase.info);
  return infos;
}

CompiledPhase& CpuPhases::add_phase(std::string name, std::function<void(int)> work) {
  CompiledPhase phase;
  phase.info.name = std::move(name);
  phase.work = std::move(work);
  return phases_.emplace_back(std::move(phase));
}

// What reads no weights comes first: one worker does it, while the others begin with theirs and take over its rows.
void CpuPhases::place_pieces(CompiledPhase& phase) const {
  phase.pieces = {};
  for (size_t worker = 0; worker < static_cast<size_t>(pool_.num_threads()); worker++) {
    const auto first = static_cast<int64_t>(phase.pieces.pieces.size());
    for (const bool with_weights : {false, true})
      for (size_t p = 0; p < phase.parts.size(); p++) {
        if ((phase.parts[p].weight_bytes > 0) != with_weights) continue;
        const Range own = phase.parts[p].of_worker[worker];
        for (int64_t i = own.first; i < own.last; i++) phase.pieces.pieces.push_back({p, i});
      }
    phase.pieces.of_worker.push_back({first, static_cast<int64_t>(phase.pieces.pieces.size())});
  }
}

void CpuPhases::run_phases(int worker) {
  auto start = profiling_ ? Clock::now() : Clock::time_point{};
  fill_queue(0, worker);
  for (size_t i = 0; i < phases_.size(); i++) {
    CompiledPhase& phase = phases_[i];
    fill_queue(i + 1, worker);  // before the barrier: others need not wait for this worker to begin
    if (phase.is_wanted && !phase.is_wanted()) continue;
    if (phase.parts.empty())
      phase.work(worker);
    else
      run_pieces(i, worker);
    const uint32_t arrival = pool_.arrive();
    AskAhead& ahead = asked_[static_cast<size_t>(worker)];
    ahead.begin(first_rows_after(i, worker));
    while (!pool_.all_arrived(arrival) && ahead.ask(kLinesWaiting)) {}
    pool_.wait(arrival);
    if (profiling_ && worker == 0) {
      const auto end = Clock::now();
      phase.info.seconds += std::chrono::duration<double>(end - start).count();
      phase.info.read_bytes += phase.last_bytes();
      if (phase.cache_bytes) phase.info.cache_bytes += phase.cache_bytes();
      start = end;
    }
  }
}

void CpuPhases::run_pieces(size_t place, int worker) {
  CompiledPhase& phase = phases_[place];
  PieceQueues& queue = queue_of(place);
  uint64_t begun = 0;  // a bit for each part
  const auto part_of = [&](int64_t i) { return phase.pieces.pieces[static_cast<size_t>(i)].part; };
  const auto is_begun = [&](size_t part) { return (begun >> part & 1) != 0; };
  const auto begin = [&](size_t number, int64_t first_piece) {
    if (is_begun(number)) return;
    begun |= uint64_t{1} << number;
    const PhasePart& part = phase.parts[number];
    if (part.choose) part.choose(worker);
    asked_[static_cast<size_t>(worker)].begin(first_piece >= 0 ? first_rows(phase, first_piece, worker) : RowsToCome{});
    part.begin(worker);
  };
  const auto rows_after = [&](int64_t next) {
    if (next < 0) return first_rows_after(place, worker);
    const bool is_known = !phase.parts[part_of(next)].choose || is_begun(part_of(next));
    return is_known ? first_rows(phase, next, worker) : RowsToCome{};
  };
  for (int64_t i; (i = queue.take(worker)) >= 0;) {
    begin(part_of(i), i);
    phase.parts[part_of(i)].compute(phase.pieces.pieces[static_cast<size_t>(i)].piece, rows_after(queue.peek(worker)),
                                    worker);
  }
  for (size_t part = 0; worker == 0 && part < phase.parts.size(); part++) {
    begin(part, -1);
    if (phase.parts[part].bytes_now) phase.parts[part].last_bytes = phase.parts[part].bytes_now();
  }
}

void CpuPhases::fill_queue(size_t phase, int worker) {
  if (phase < phases_.size() && !phases_[phase].parts.empty())
    queue_of(phase).fill(worker, phases_[phase].pieces.of_worker[static_cast<size_t>(worker)]);
}

RowsToCome CpuPhases::first_rows(const CompiledPhase& phase, int64_t i, int worker) {
  const PlacedPiece& at = phase.pieces.pieces[static_cast<size_t>(i)];
  const PhasePart& part = phase.parts[at.part];
  return part.first_rows ? part.first_rows(at.piece, worker) : RowsToCome{};
}

RowsToCome CpuPhases::first_rows_after(size_t i, int worker) const {
  while (++i < phases_.size() && !phases_[i].cache_bytes) {
    const CompiledPhase& phase = phases_[i];
    if (phase.parts.empty()) continue;
    // Nor what comes after: it may depend on the same choice.
    if (!std::ranges::all_of(phase.parts, &PhasePart::known_before)) return {};
    const Range& own = phase.pieces.of_worker[static_cast<size_t>(worker)];
    for (int64_t piece = own.first; piece < own.last; piece++)
      if (phase.parts[phase.pieces.pieces[static_cast<size_t>(piece)].part].first_rows)
        return first_rows(phase, piece, worker);
  }
  return {};
}

}  // namespace nibble

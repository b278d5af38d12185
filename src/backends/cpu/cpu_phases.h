// The phases of a step on the CPU, which all workers run together with a barrier after each, and what they do at its edges: they
// take pieces, also of workers that are slower, and ask for what comes while they wait.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/cpu/ask_ahead.h"
#include "backends/cpu/row_shares.h"
#include "base/piece_queues.h"
#include "base/worker_pool.h"
#include "ops/backend.h"

namespace nibble {

// A group's part of a phase, in pieces that workers take. `choose`, if there is one, then `begin` come before a worker's first
// one, if it gets any; of worker 0 always. compute is told what the worker will read then.
struct PhasePart {
  int64_t weight_bytes;
  std::vector<Range> of_worker;  // the pieces that each begins with
  std::function<void(int worker)> begin;
  std::function<void(int64_t piece, RowsToCome next, int worker)> compute;
  // That a piece reads; empty if it reads no weights. For a worker that has chosen, if there is a choice.
  std::function<RowsToCome(int64_t piece, int worker)> first_rows;
  std::function<void(int worker)> choose = {};
  bool known_before = true;  // whether first_rows may be asked in phases before: not while experts are being chosen
  std::function<int64_t()> bytes_now = {};  // of weights, in this run, once worker 0 has begun; empty: weight_bytes
  int64_t last_bytes = weight_bytes;        // in the last run
};

struct PlacedPiece {
  size_t part;
  int64_t piece;
};

struct CompiledPhase {
  Phase info;
  std::function<void(int worker)> work;  // empty if there are parts
  std::vector<PhasePart> parts;
  PiecesOf<PlacedPiece> pieces;          // of all parts
  std::function<int64_t()> cache_bytes;  // that it reads in this run; empty if it reads none
  std::function<bool()> is_wanted;       // asked by each worker: the next phase must not change it; empty: always

  int64_t last_bytes() const {
    int64_t bytes = 0;
    for (const PhasePart& part : parts) bytes += part.last_bytes;
    return bytes;
  }
};

class CpuPhases {
 public:
  explicit CpuPhases(WorkerPool& pool);

  // Phases are added in their order, and stay where they are. Groups that stand side by side begin here.
  void begin_groups() { first_phase_ = phases_.size(); }
  CompiledPhase& add_phase(std::string name, std::function<void(int worker)> work);
  // A phase of its own, or one more part of the last one if that is of a group which this stands beside.
  template <class Piece>
  PhasePart& add_part(std::string name, int64_t weight_bytes, PiecesOf<Piece> all, std::function<void(int)> begin,
                      std::function<void(const Piece&, RowsToCome next, int worker)> compute,
                      std::function<RowsToCome(const Piece&, int worker)> first_rows = {}) {
    const auto pieces = std::make_shared<const std::vector<Piece>>(std::move(all.pieces));
    PhasePart part{.weight_bytes = weight_bytes,
                   .of_worker = std::move(all.of_worker),
                   .begin = std::move(begin),
                   .compute = [pieces, compute = std::move(compute)](int64_t i, RowsToCome next, int worker) {
                     compute((*pieces)[static_cast<size_t>(i)], next, worker);
                   }};
    if (first_rows)
      part.first_rows = [pieces, first_rows = std::move(first_rows)](int64_t i, int worker) {
        return first_rows((*pieces)[static_cast<size_t>(i)], worker);
      };
    const bool joins = phases_.size() > first_phase_ && !phases_.back().parts.empty();
    CompiledPhase& phase = joins ? phases_.back() : add_phase(name, {});
    if (joins) phase.info.name += " | " + name;
    phase.info.weight_bytes += weight_bytes;
    phase.parts.push_back(std::move(part));
    place_pieces(phase);
    return phase.parts.back();
  }

  // The phase that was added last; null if there is none.
  CompiledPhase* last() { return phases_.empty() ? nullptr : &phases_.back(); }

  // For pieces that the work of the phase that is added next fills in itself.
  PieceQueues& next_queue() { return queue_of(phases_.size()); }

  void run();

  int64_t weight_bytes() const;  // of a run, at most
  int64_t last_weight_bytes() const;
  std::vector<Phase> infos() const;
  void set_profiling(bool on) { profiling_ = on; }

  const WorkerPool& pool() const { return pool_; }
  AskAhead& asked(int worker) { return asked_[static_cast<size_t>(worker)]; }

 private:
  void place_pieces(CompiledPhase& phase) const;

  void run_phases(int worker);
  void run_pieces(size_t place, int worker);
  // Neighbouring phases take turns with two queues: nobody takes from the one while the other is filled. (Where one between
  // them is not wanted, its neighbours have the same queue: whoever comes first finds it empty but for what is filled.)
  PieceQueues& queue_of(size_t phase) { return queues_[phase % 2]; }
  void fill_queue(size_t phase, int worker);

  static RowsToCome first_rows(const CompiledPhase& phase, int64_t piece, int worker);
  // What the worker begins with in the next phase with weights, unless the cache is read before, or it is not known yet.
  RowsToCome first_rows_after(size_t phase, int worker) const;

  WorkerPool& pool_;
  std::deque<CompiledPhase> phases_;
  size_t first_phase_ = 0;
  std::vector<AskAhead> asked_;  // by worker
  PieceQueues queues_[2] = {PieceQueues(pool_.teams()), PieceQueues(pool_.teams())};
  bool profiling_ = false;
};

}  // namespace nibble
